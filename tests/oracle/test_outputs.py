"""Every output file of the tool, judged from outside."""
import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from conftest import ASSETS, feeds, session, trained_models

MODELS = trained_models()
EMITS = ["custom", "standard"]
cases = pytest.mark.parametrize("name,model,data", MODELS, ids=[m[0] for m in MODELS])
emits = pytest.mark.parametrize("emit", EMITS)


def test_assets_are_present():
    if not ASSETS.is_dir():
        pytest.skip("../shared/assets is absent: only the demo is judged")


@cases
@emits
def test_checker_accepts(name, model, data, emit, compress):
    out = compress(model, data, "--emit", emit)
    onnx.checker.check_model(str(out / "model.onnx"), full_check=True)


@cases
def test_kernel_agrees_with_function_body(name, model, data, compress, library):
    path = compress(model, data, "--emit", "custom") / "model.onnx"
    x = feeds(data, 1)
    kernel = session(path, library).run(None, x)
    body = session(path).run(None, x)
    for k, b in zip(kernel, body):
        scale = max(np.abs(b).max(), 1e-6)
        # Both have the same integers; floats differ by the order of roundings, which later layers
        # may turn into a step of an activation's code.
        assert np.abs(k - b).max() <= 0.02 * scale
        assert np.abs(k - b).mean() <= 0.002 * scale


def reference_answers(proto, x):
    """The reference evaluator implements DequantizeLinear from opset 19 on only; what it does with the
    inputs of opset 18 is the same."""
    try:
        return ReferenceEvaluator(proto).run(None, x)
    except RuntimeError as error:
        if "No implementation for operator 'DequantizeLinear'" not in str(error):
            raise
    for holder in (proto, *proto.functions):
        for entry in holder.opset_import:
            if entry.domain == "":
                entry.version = max(entry.version, 19)
    return ReferenceEvaluator(proto).run(None, x)


@cases
@emits
def test_reference_evaluator_agrees(name, model, data, emit, compress):
    path = compress(model, data, "--emit", emit) / "model.onnx"
    proto = onnx.load(str(path))
    x = feeds(data, 1)
    reference = reference_answers(proto, x)
    runtime = session(path, optimize=False).run(None, x)
    for r, o in zip(reference, runtime):
        scale = max(np.abs(o).max(), 1e-6)
        assert np.abs(r - o).max() <= 0.03 * scale
        assert np.abs(r - o).mean() <= 0.003 * scale
