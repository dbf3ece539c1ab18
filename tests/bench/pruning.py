"""What pruning costs: five ways to choose and repair, several shares removed, every trained model.

  python tests/bench/pruning.py [--tool build/release/bin/sparsefuse] [--models NAME ...] [--json FILE]

For each model: pass prune alone, in float, at 20, 30 and 50 % of the multiply-adds of the layers with
heads and neurons (transformers), or 10, 20 and 30 % of those with channels (CNNs). Task metric and
KL(original ‖ pruned) per answer on the whole evaluation set; speed of the pruned model over the
original in ONNX Runtime, one thread, batch 1, interleaved, ratio of minimum times.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile
import time

import numpy as np

import compare

WAYS = {
    "magnitude": {"criterion": "magnitude", "repair": "none"},
    "gradient": {"criterion": "gradient", "repair": "none"},
    "Fisher": {"criterion": "fisher", "repair": "none"},
    "OBS, refitted": {"criterion": "obs", "repair": "refit"},
    "OBS, in sequence": {"criterion": "obs", "repair": "sequence"},
}
CLEANUP = [{"type": name} for name in
           ("raise-opset", "fold-constants", "fold-batchnorm", "fold-masks", "remove-dead")]


def log_softmax(x):
    x = x.astype(np.float64)
    if (x >= 0).all() and np.allclose(x.sum(-1), 1, atol=1e-3):
        return np.log(np.maximum(x, 1e-12))
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def kl(reference, candidate):
    p, q = log_softmax(reference), log_softmax(candidate)
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def prune(args, path, folder, settings, out):
    config = out.with_suffix(".json")
    config.write_text(json.dumps({
        "passes": [*CLEANUP, {"type": "prune", **settings}],
        "verification": {"min_cosine": -1}}))
    start = time.perf_counter()
    result = subprocess.run(
        [args.tool, "compress", "-m", path, "-o", out, "-c", config, "--calibration-data",
         folder / "calibration.npz", "--quiet"], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if result.returncode not in (0, 9):
        return None, result.stderr.strip().splitlines()[-1], seconds
    return out / "model.onnx", "", seconds


def points(args, name, path, folder, scratch):
    convolutional = name.split("/")[0] in compare.CNNS
    original = compare.session(path)
    evaluation = np.load(folder / "evaluation.npz")
    data, label = compare.inputs(folder / "evaluation.npz"), evaluation["label"]
    if args.samples:
        data, label = {k: v[:args.samples] for k, v in data.items()}, label[:args.samples]
    reference = compare.outputs(original, data)
    batch = compare.fixed_batch(original) or 1
    feed = {k: v[:batch] for k, v in data.items()}
    for ratio in (0.1, 0.2, 0.3) if convolutional else (0.2, 0.3, 0.5):
        for way, settings in WAYS.items():
            if args.ways and way not in args.ways:
                continue
            target = scratch / f"{name.replace('/', '_')}-{ratio}-{way.replace(' ', '_')}"
            model, reason, seconds = prune(args, path, folder,
                                           {"ratio": ratio, **settings,
                                            **json.loads(args.settings)}, target)
            point = {"model": name, "ratio": ratio, "way": way, "seconds": seconds}
            if model is None:
                yield {**point, "refused": reason}
                continue
            candidate = compare.session(model)
            out = compare.outputs(candidate, data)
            metric, value = compare.metric(out, label)
            times = compare.interleaved([original, candidate], feed, args.seconds)
            yield {**point, "metric": metric, "original": compare.metric(reference, label)[1],
                   "value": value, "kl": kl(reference, out),
                   "speed": times[0]["min_ms"] / times[1]["min_ms"],
                   "bytes": compare.size(model) / compare.size(path)}


def markdown(results):
    ways = list(WAYS)
    lines = ["| model | removed | " + " | ".join(ways) + " | speed |", "|---" * (len(ways) + 3) + "|"]
    rows = {}
    for p in results:
        rows.setdefault((p["model"], p["ratio"]), {})[p["way"]] = p
    for (model, ratio), row in rows.items():
        best = min((p["kl"] for p in row.values() if "kl" in p), default=None)
        cells = []
        for way in ways:
            p = row.get(way)
            if p is None or "refused" in p:
                cells.append("—")
                continue
            text = f"{p['kl']:.3g} ({p['value']:.4g})"
            cells.append(f"**{text}**" if p["kl"] == best else text)
        known = [p for p in row.values() if "speed" in p]
        first = known[0] if known else {"metric": "", "original": float("nan")}
        speed = row[ways[-1]].get("speed") if ways[-1] in row else None
        lines.append(f"| {model} ({first['metric']} {first['original']:.4g}) | {ratio:.0%} | "
                     + " | ".join(cells) + f" | {f'×{speed:.2f}' if speed else ''} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", type=pathlib.Path,
                        default=compare.ROOT / "build/release/bin/sparsefuse")
    parser.add_argument("--models", nargs="*", metavar="NAME", help="names; all if absent")
    parser.add_argument("--ways", nargs="*", metavar="WAY", help=", ".join(WAYS))
    parser.add_argument("--settings", default="{}", help="more parameters of the pass, as JSON")
    parser.add_argument("--samples", type=int, default=0, help="evaluate on so many; 0: all")
    parser.add_argument("--seconds", type=float, default=1.0, help="of timing, a model")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    args.tool = args.tool.resolve()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, path, folder in compare.models():
            if args.models and name not in args.models:
                continue
            for point in points(args, name, path, folder, pathlib.Path(scratch)):
                print(json.dumps(point), flush=True)
                results.append(point)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))
    print(f"\n{compare.cpu()}\n\n{markdown(results)}")


if __name__ == "__main__":
    main()
