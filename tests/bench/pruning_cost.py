"""What analysing and pruning cost on a model larger than those in the assets: time and peak memory.

  python tests/bench/pruning_cost.py [--tool build/release/bin/sparsefuse] [--layers 12] [--width 768]

A synthetic encoder (random weights, random token ids; nothing is said of accuracy): pass prune at
30 % of the multiply-adds of heads and neurons, with as many samples as the widest matrix needs.
Prints JSON: seconds and peak bytes of each pass, the largest block's bytes, the model's bytes.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy as np
from onnx import TensorProto, helper, save

import compare
import stacks

VOCABULARY, TOKENS, CLASSES = 2000, 128, 4
CLEANUP = ["raise-opset", "fold-constants", "fold-batchnorm", "fold-masks", "remove-dead"]


def encoder(layers, width):
    graph, _, (last,) = stacks.stack(layers, width, 4 * width, width // 64, 0)
    random = np.random.default_rng(1)
    table = graph.constant(random.standard_normal((VOCABULARY, width)).astype(np.float32))
    graph.nodes.insert(0, helper.make_node("Gather", [table, "ids"], ["x"], name="embedding"))
    pooled = graph.op("ReduceMean", [last, graph.constant(np.array([1]))], keepdims=0)
    logits = graph.dense(graph.norm(pooled, width), width, CLASSES)
    model = graph.model([], [logits])
    model.graph.input.append(
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", TOKENS]))
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", type=pathlib.Path,
                        default=compare.ROOT / "build/release/bin/sparsefuse")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    fit = 4 * 4 * args.width // TOKENS  # samples; 4 rows of data an input of the widest matrix
    ids = np.random.default_rng(2).integers(0, VOCABULARY, (-(-fit * 10 // 6) + 2, TOKENS))
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        save(encoder(args.layers, args.width), folder / "model.onnx")
        np.savez(folder / "data.npz", ids=ids)
        (folder / "config.json").write_text(json.dumps({
            "measure": False, "verification": {"min_cosine": -1},
            "passes": [{"type": name} for name in CLEANUP] + [{"type": "prune", "ratio": 0.3}]}))
        subprocess.run(
            [args.tool.resolve(), "compress", "-m", folder / "model.onnx", "-o", folder / "out",
             "-c", folder / "config.json", "--calibration-data", folder / "data.npz",
             "--threads", str(args.threads), "--quiet"], check=True,
            env={"XDG_CACHE_HOME": str(folder / "cache")})
        metrics = json.loads((folder / "out/metrics.json").read_text())
        width = args.width
        print(json.dumps({
            "cpu": compare.cpu(), "threads": args.threads, "samples": len(ids),
            "model_bytes": metrics["model"]["bytes"],
            "block_bytes": 4 * 12 * width * width,
            "passes": [{k: p[k] for k in ("name", "seconds", "verify_seconds", "peak_bytes")}
                       for p in metrics["passes"]],
            "seconds": metrics["seconds"], "peak_bytes": metrics["peak_bytes"]}, indent=1))


if __name__ == "__main__":
    main()
