"""Ours beside ONNX Runtime's own quantisers, model by model, in one process.

  python tests/bench/compare.py [--tool build/release/bin/sparsefuse] [--models NAME ...] [--json FILE]

For each trained model: fp32, ONNX Runtime's int8 (dynamic for transformers, static QDQ for CNNs with
BatchNorm folded, unsigned activations, signed weights per channel), and `sparsefuse compress` with
preset int8. Size, task metric, flips (answers that differ from fp32) on the whole evaluation set, and
latency, one thread, the three interleaved run by run; ratios of minimum times to fp32. Prints a Markdown
table; --json also writes every figure.
"""
import argparse
import json
import pathlib
import platform
import subprocess
import tempfile
import time

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime as ort
from onnxruntime.quantization import (CalibrationDataReader, QuantFormat, QuantType,
                                      quantize_dynamic, quantize_static)
from onnxruntime.quantization.shape_inference import quant_pre_process

ROOT = pathlib.Path(__file__).resolve().parents[2]
ASSETS = ROOT.parent / "shared" / "assets"
CNNS = {"resnet8-cifar10", "kws-dscnn", "mnist-cnn"}


def models():
    demo = ROOT / "configs" / "demo"
    yield "demo", demo / "model.onnx", demo
    if ASSETS.is_dir():
        for folder in sorted({p.parent for p in ASSETS.glob("*/evaluation.npz")}):
            for model in sorted(folder.glob("*.onnx")):
                if folder.name != "shakespeare-gpt-small":  # the demo
                    name = folder.name if model.stem == "model" else f"{folder.name}/{model.stem}"
                    yield name, model, folder


def session(path, library=None, threads=1):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if library:
        options.register_custom_ops_library(str(library))
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def inputs(npz):
    return {k: v for k, v in np.load(npz).items() if k != "label"}


def fixed_batch(s):
    first = s.get_inputs()[0].shape[0]
    return first if isinstance(first, int) else None


def outputs(s, data, batch=16):
    batch = fixed_batch(s) or batch
    n = len(next(iter(data.values())))
    return np.concatenate([s.run(None, {k: v[i:i + batch] for k, v in data.items()})[0]
                           for i in range(0, n - n % batch if fixed_batch(s) else n, batch)])


def metric(out, label):
    """(name, value). Probabilities and logits have the same arg-max; perplexity needs logits."""
    if label.ndim == 1 or label.shape[1:] == (1,):
        return "accuracy", float((out.reshape(len(out), -1).argmax(-1) == label.reshape(-1)).mean())
    keep = label != -100
    shifted = out.astype(np.float64) - out.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    picked = np.take_along_axis(log_p, np.where(keep, label, 0)[..., None], -1)[..., 0]
    return "perplexity", float(np.exp(-picked[keep].mean()))


class Reader(CalibrationDataReader):
    def __init__(self, data, batch):
        n = min(len(next(iter(data.values()))), 256)
        self.rows = iter([{k: v[i:i + batch] for k, v in data.items()} for i in range(0, n, batch)])

    def get_next(self):
        return next(self.rows, None)


def ort_int8(name, path, folder, target):
    """ONNX Runtime's own int8; None and the reason where its tools refuse the model."""
    prepared = target.with_suffix(".prepared.onnx")
    model = onnx.load(str(path))
    del model.graph.value_info[:]  # its shape inference trips over contradictory annotations
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version < 13:
            model = onnx.version_converter.convert_version(model, 13)
    onnx.save(model, str(prepared))
    try:
        quant_pre_process(str(prepared), str(prepared), skip_symbolic_shape=True)
        if name.split("/")[0] in CNNS:
            data = inputs(folder / "calibration.npz")
            quantize_static(str(prepared), str(target),
                            Reader(data, fixed_batch(session(path)) or 16),
                            quant_format=QuantFormat.QDQ, per_channel=True,
                            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
        else:
            quantize_dynamic(str(prepared), str(target), per_channel=True,
                             weight_type=QuantType.QInt8)
        session(target)
        return target, ""
    except Exception as error:  # noqa: BLE001: a baseline that fails is a result
        return None, str(error).splitlines()[0][:120]


def interleaved(sessions, feed, seconds):
    samples = [[] for _ in sessions]
    for s in sessions:
        for _ in range(3):
            s.run(None, feed)
    stop, runs = time.perf_counter() + seconds, 0
    while runs < 20 or time.perf_counter() < stop:
        for i in range(len(sessions)):
            j = (i + runs) % len(sessions)
            start = time.perf_counter()
            sessions[j].run(None, feed)
            samples[j].append(time.perf_counter() - start)
        runs += 1
    return [{"min_ms": min(t) * 1e3, "median_ms": float(np.median(t)) * 1e3,
             "p95_ms": float(np.percentile(t, 95)) * 1e3, "runs": runs} for t in samples]


def compress(tool, path, folder, out, preset):
    command = [tool, "compress", "-m", path, "-o", out, "--preset", preset, "--calibration-data",
               folder / "calibration.npz", "--quiet"]
    start = time.perf_counter()
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if result.returncode not in (0, 9):
        raise SystemExit(f"{path}: {result.stderr}")
    return time.perf_counter() - start


def size(path):
    return sum(f.stat().st_size for f in [path, *path.parent.glob(path.stem + "-*.data")])


def row(name, path, folder, args, scratch):
    library = args.tool.parent.parent / "lib" / "libsparsefuse_ops.so"
    ours = scratch / name.replace("/", "_")
    seconds = compress(args.tool, path, folder, ours, args.preset)
    theirs, reason = ort_int8(name, path, folder, scratch / (name.replace("/", "_") + ".ort.onnx"))
    candidates = {"fp32": session(path), "sparsefuse": session(ours / "model.onnx", library)}
    if theirs:
        candidates["ort_int8"] = session(theirs)
    evaluation = np.load(folder / "evaluation.npz")
    data, label = inputs(folder / "evaluation.npz"), evaluation["label"]
    result = {"model": name, "compress_seconds": seconds, "ort_int8_reason": reason}
    reference = None
    for key, s in candidates.items():
        out = outputs(s, data)
        reference = out if reference is None else reference
        kind, value = metric(out, label)
        result[key] = {"metric": kind, "value": value,
                       "flips": float((out.argmax(-1) != reference.argmax(-1)).mean())}
    result["fp32"]["bytes"] = size(path)
    result["sparsefuse"]["bytes"] = size(ours / "model.onnx")
    if theirs:
        result["ort_int8"]["bytes"] = size(theirs)
    for batch in ([fixed_batch(candidates["fp32"])] if fixed_batch(candidates["fp32"])
                  else args.batches):
        feed = {k: v[:batch] for k, v in data.items()}
        for key, latency in zip(candidates, interleaved(list(candidates.values()), feed,
                                                        args.seconds)):
            result[key].setdefault("latency", {})[str(batch)] = latency
    return result


def markdown(results):
    lines = ["| model | | size | metric | flips | speed over fp32 (batch) |", "|---|---|---|---|---|---|"]
    for r in results:
        base = r["fp32"]
        for key, title in (("sparsefuse", "**sparsefuse**"), ("ort_int8", "ONNX Runtime int8")):
            if key not in r:
                lines.append(f"| {r['model']} | {title} | refused: {r['ort_int8_reason']} | | | |")
                continue
            c = r[key]
            speed = ", ".join(
                f"×{base['latency'][b]['min_ms'] / c['latency'][b]['min_ms']:.2f} ({b})"
                for b in c["latency"])
            lines.append(
                f"| {r['model'] if key == 'sparsefuse' else ''} | {title} "
                f"| {c['bytes'] / base['bytes']:.3f} "
                f"| {c['metric']} {base['value']:.4f} → {c['value']:.4f} | {c['flips']:.1%} | {speed} |")
    return "\n".join(lines)


def cpu():
    text = pathlib.Path("/proc/cpuinfo").read_text()
    name = next((l.split(":")[1].strip() for l in text.splitlines() if l.startswith("model name")),
                platform.processor())
    flags = next((l.split(":")[1].split() for l in text.splitlines() if l.startswith("flags")), [])
    isa = [f for f in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if f in flags]
    return f"{name} ({', '.join(isa)})"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", type=pathlib.Path, default=ROOT / "build/release/bin/sparsefuse")
    parser.add_argument("--preset", default="int8")
    parser.add_argument("--models", nargs="*", help="names; all if absent")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=3, help="per model and batch")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    args.tool = args.tool.resolve()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, path, folder in models():
            if not args.models or name in args.models:
                results.append(row(name, path, folder, args, pathlib.Path(scratch)))
                print(f"{name} done", flush=True)
    print(f"\n{cpu()}, ONNX Runtime {ort.__version__}, 1 thread\n")
    print(markdown(results))
    if args.json:
        args.json.write_text(json.dumps({"cpu": cpu(), "onnxruntime": ort.__version__,
                                         "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
