"""Filters of convolutions in 8 and 4 bits, every trained CNN.

  python tests/bench/filters.py [--tool build/release/bin/sparsefuse] [--json FILE]

Task metric and KL(original ‖ quantised) per answer on the evaluation set, file size, and speed over the
original in ONNX Runtime (one thread, batch 1, interleaved, ratio of minimum times), with nothing but
quantisation. "Nearest": every weight to its nearest code.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy as np

import compare
from pruning import CLEANUP, kl

WAYS = {
    "int8": {},
    "int4, nearest": {"filters": "int4", "feedback": "off"},
    "int4": {"filters": "int4"},
    "int4, ends too": {"filters": "int4", "ends": "same"},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", type=pathlib.Path,
                        default=compare.ROOT / "build/release/bin/sparsefuse")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, path, folder in compare.models():
            if name not in compare.CNNS:
                continue
            original = compare.session(path)
            data = compare.inputs(folder / "evaluation.npz")
            label = np.load(folder / "evaluation.npz")["label"]
            reference = compare.outputs(original, data)
            metric, value = compare.metric(reference, label)
            batch = compare.fixed_batch(original) or 1
            feed = {k: v[:batch] for k, v in data.items()}
            for way, settings in WAYS.items():
                out = pathlib.Path(scratch) / f"{name}-{way.replace(' ', '_')}"
                config = out.with_suffix(".json")
                config.write_text(json.dumps({"passes": [*CLEANUP, {"type": "quantize", **settings}]}))
                subprocess.run([args.tool.resolve(), "compress", "-m", path, "-o", out, "-c", config,
                             "--calibration-data", folder / "calibration.npz", "--quiet"],
                               check=True)
                candidate = compare.session(out / "model.onnx")
                answers = compare.outputs(candidate, data)
                times = compare.interleaved([original, candidate], feed, 1.0)
                results.append({"model": name, "way": way, "metric": metric, "original": value,
                                "value": compare.metric(answers, label)[1],
                                "kl": kl(reference, answers),
                                "bytes": compare.size(out / "model.onnx"),
                                "share": compare.size(out / "model.onnx") / compare.size(path),
                                "speed": times[0]["min_ms"] / times[1]["min_ms"]})
                print(json.dumps(results[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))
    print(f"\n{compare.cpu()}\n\n| model | filters | file | KL | metric | speed |\n|---|---|---|---|---|---|")
    for p in results:
        print(f"| {p['model']} ({p['metric']} {p['original']:.4g}) | {p['way']} | {p['share']:.3f} | "
              f"{p['kl']:.3g} | {p['value']:.4g} | ×{p['speed']:.2f} |")


if __name__ == "__main__":
    main()
