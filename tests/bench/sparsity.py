"""What zeros inside weights cost: where they stand, how they are chosen, several shares.

  python tests/bench/sparsity.py [--tool build/release/bin/sparsefuse] [--models NAME ...] [--json FILE]

For each model: pass sparsify alone, in float. Blocks of 4 inputs × 32 outputs at 10 to 70 %, with
feedback and by magnitude without update; 64 × 64 and 128 × 128 at 30 and 50 %; 2:4 and single
weights at 50 %. Task metric and
KL(original ‖ sparse) per answer on the evaluation set. Zeros are counted in the written file, over the
layers that the pass took.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile
import time

import numpy as np
import onnx
import onnx.numpy_helper

import compare
from pruning import CLEANUP, kl

MODELS = ("encoder-sst2", "vit-cifar10", "stories260k", "gpt2-style-shakespeare")
BLOCKS = {
    "magnitude": {"method": "magnitude", "distribute": "uniform"},
    "feedback, uniform": {"distribute": "uniform"},
    "feedback": {},
    "feedback, permuted": {"permute": True},
}
OTHERS = {
    "magnitude": {"method": "magnitude", "distribute": "uniform"},
    "Wanda": {"method": "wanda", "distribute": "uniform", "compete": "output"},
    "SparseGPT": {"distribute": "uniform"},
}


def points():
    for share in (0.5, 0.3, 0.7, 0.2, 0.1):
        for way, settings in BLOCKS.items():
            yield "block", share, way, {"sparsity": share, **settings}
    for pattern in ("block64", "block128"):
        for share in (0.3, 0.5):
            for way in ("magnitude", "feedback"):
                yield pattern, share, way, {"pattern": pattern, "sparsity": share, **BLOCKS[way]}
    for pattern in ("2:4", "unstructured"):
        for way, settings in OTHERS.items():
            yield pattern, 0.5, way, {"pattern": pattern, "sparsity": 0.5, **settings}


def sparsify(args, path, folder, settings, out):
    config = out.with_suffix(".json")
    config.write_text(json.dumps({"passes": [*CLEANUP, {"type": "sparsify", **settings}],
                                  "threads": args.threads, "measure": False,
                                  "verification": {"min_cosine": -1}}))
    start = time.perf_counter()
    result = subprocess.run(
        [args.tool, "compress", "-m", path, "-o", out, "-c", config, "--calibration-data",
         folder / "calibration.npz", "--quiet"], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if result.returncode not in (0, 9):
        return None, result.stderr.strip().splitlines()[-1], seconds
    return out / "model.onnx", "", seconds


def zeros(path):
    """Over the matrices that hold at least a tenth of zeros."""
    found = total = 0
    for tensor in onnx.load(str(path)).graph.initializer:
        if len(tensor.dims) == 2 and min(tensor.dims) >= 32:
            w = onnx.numpy_helper.to_array(tensor)
            if (w == 0).mean() > 0.02:
                found, total = found + (w == 0).sum(), total + w.size
    return float(found / max(total, 1))


def measure(args, name, path, folder, scratch):
    original = compare.session(path)
    evaluation = np.load(folder / "evaluation.npz")
    data, label = compare.inputs(folder / "evaluation.npz"), evaluation["label"]
    if args.samples:
        data, label = {k: v[:args.samples] for k, v in data.items()}, label[:args.samples]
    reference = compare.outputs(original, data)
    for pattern, share, way, settings in points():
        if (args.ways and way not in args.ways) or (args.shares and share not in args.shares) \
                or (args.patterns and pattern not in args.patterns):
            continue
        target = scratch / f"{name}-{pattern}-{share}-{way}".replace(" ", "_").replace(":", "")
        model, reason, seconds = sparsify(args, path, folder, settings, target)
        point = {"model": name, "pattern": pattern, "share": share, "way": way, "seconds": seconds}
        if model is None:
            yield {**point, "refused": reason}
            continue
        out = compare.outputs(compare.session(model), data)
        metric, value = compare.metric(out, label)
        yield {**point, "metric": metric, "original": compare.metric(reference, label)[1],
               "value": value, "kl": kl(reference, out), "zeros": zeros(model)}


def table(results, patterns, ways):
    rows = {}
    for p in results:
        if p["pattern"] in patterns:
            rows.setdefault((p["model"], p["pattern"], p["share"]), {})[p["way"]] = p
    lines = ["| model | zeros | " + " | ".join(ways) + " |", "|---" * (len(ways) + 2) + "|"]
    for (model, pattern, share), row in sorted(rows.items()):
        known = [p for p in row.values() if "kl" in p]
        best = min((p["kl"] for p in known), default=None)
        cells = []
        for way in ways:
            p = row.get(way)
            if p is None or "refused" in p:
                cells.append("—")
                continue
            text = f"{p['kl']:.3g} ({p['value']:.4g})"
            cells.append(f"**{text}**" if p["kl"] == best else text)
        about = f"{known[0]['metric']} {known[0]['original']:.4g}" if known else "—"
        lines.append(f"| {model} ({about}) | {pattern}, {share:.0%} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", type=pathlib.Path,
                        default=compare.ROOT / "build/release/bin/sparsefuse")
    parser.add_argument("--models", nargs="*", default=MODELS, metavar="NAME")
    parser.add_argument("--patterns", nargs="*", metavar="PATTERN", help="block, block64, block128, 2:4, unstructured")
    parser.add_argument("--shares", nargs="*", type=float, metavar="SHARE")
    parser.add_argument("--ways", nargs="*", metavar="WAY", help=", ".join({**BLOCKS, **OTHERS}))
    parser.add_argument("--samples", type=int, default=0, help="evaluate on so many; 0: all")
    parser.add_argument("--threads", type=int, default=1, help="of the tool")
    parser.add_argument("--json", type=pathlib.Path, help="read if it is there, and written")
    args = parser.parse_args()
    args.tool = args.tool.resolve()
    results = json.loads(args.json.read_text()) if args.json and args.json.exists() else []
    with tempfile.TemporaryDirectory() as scratch:
        for name, path, folder in compare.models():
            if name not in args.models:
                continue
            for point in measure(args, name, path, folder, pathlib.Path(scratch)):
                print(json.dumps(point), flush=True)
                same = ("model", "pattern", "share", "way")
                results = [p for p in results if any(p[k] != point[k] for k in same)] + [point]
                if args.json:
                    args.json.write_text(json.dumps(results, indent=1))
    print(f"\n{compare.cpu()}\n\n{table(results, {'block', 'block64', 'block128'}, list(BLOCKS))}\n")
    print(table(results, {"2:4", "unstructured"}, list(OTHERS)))


if __name__ == "__main__":
    main()
