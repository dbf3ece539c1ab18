"""Judges that do not share a line with the tool: onnx's checker and reference evaluator, ONNX Runtime.

Run by ctest (or by hand: `python -m pytest tests/oracle --tool build/release/bin/sparsefuse`).
"""
import pathlib
import subprocess

import numpy as np
import onnxruntime as ort
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
ASSETS = ROOT.parent / "shared" / "assets"


def pytest_addoption(parser):
    parser.addoption("--tool", default=str(ROOT / "build/release/bin/sparsefuse"))


@pytest.fixture(scope="session")
def tool(request):
    return pathlib.Path(request.config.getoption("--tool")).resolve()


@pytest.fixture(scope="session")
def library(tool):
    return tool.parent.parent / "lib" / "libsparsefuse_ops.so"


@pytest.fixture(scope="session")
def compress(tool, tmp_path_factory):
    """compress(model, data, *flags) -> output folder; each distinct call runs once. Nothing is timed,
    so that all that can be quantised is, on every machine. Of the data a few samples do: files are
    judged here, not how well they answer."""
    done = {}
    few = tmp_path_factory.mktemp("data") / "few.npz"
    config = tmp_path_factory.mktemp("config") / "unmeasured.json"
    config.write_text('{"measure": false}')

    def run(model, data, *flags):
        key = (str(model), *flags)
        if key not in done:
            out = tmp_path_factory.mktemp("out")
            np.savez(few, **{name: values[:32] for name, values in np.load(data).items()})
            command = [tool, "compress", "-c", config, "-m", model, "-o", out, "--calibration-data", few,
                       "--quiet", *flags]
            result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
            assert result.returncode == 0, result.stderr
            done[key] = out
        return done[key]

    return run


def session(path, library=None, optimize=True):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if library is not None:
        options.register_custom_ops_library(str(library))
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feeds(data, count):
    return {name: values[:count] for name, values in np.load(data).items() if name != "label"}


def trained_models():
    """(name, model, calibration data): the demo always, the development assets where present."""
    demo = ROOT / "configs" / "demo"
    models = [("demo", demo / "model.onnx", demo / "calibration.npz")]
    if ASSETS.is_dir():
        for folder in sorted(p.parent for p in ASSETS.glob("*/calibration.npz")):
            for model in sorted(folder.glob("*.onnx")):
                models.append((f"{folder.name}/{model.stem}", model, folder / "calibration.npz"))
    return models
