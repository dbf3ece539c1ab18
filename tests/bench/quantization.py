"""Linear weights in 8 and 4 bits: ours beside ONNX Runtime's own quantisers, every trained transformer.

  python tests/bench/quantization.py [--tool build/release/bin/sparsefuse] [--models NAME ...]
                                     [--ways WAY ...] [--samples N] [--json FILE]

Task metric and KL(original ‖ quantised) per answer on the evaluation set, and the bytes of the linear
weights (codes, scales, zero points, block indexes, smoothing factors) over their fp32 bytes. Embeddings
stay in float everywhere, and nothing is timed: all layers are quantised. "Nested, 4-bit reading" is the
same file with a gate that sends every row to the 4-bit reading; "gate at 50 %" reads the rows in 4 bits
that lose least, each by itself, as when tokens are decoded one by one. ONNX Runtime's quantisers get the
model with constants folded and Gemm taken apart to MatMul and Add, which is all that they look at; the
4-bit ones need the packages onnx_ir and torch: where one is missing the table says so.
"""
import argparse
import json
import os
import pathlib
import subprocess
import tempfile
import time

os.environ["SPARSEFUSE_GATE"] = "always"  # files without a calibrated gate never use it

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnx.version_converter  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402
from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static  # noqa: E402
from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: E402

import compare  # noqa: E402
from pruning import kl  # noqa: E402

CLEANUP = [{"type": name} for name in ("raise-opset", "fold-constants", "fold-masks", "remove-dead")]
OURS = {
    "int8": {"weights": "int8"},
    "int8, nearest": {"weights": "int8", "feedback": "off", "smooth": False},
    "int4, absmax, nearest": {"weights": "int4", "scales": "absmax", "feedback": "off",
                              "smooth": False},
    "int4, clusters, nearest": {"weights": "int4", "feedback": "off", "smooth": False},
    "int4": {"weights": "int4"},
    "int4, scale a 64 inputs": {"weights": "int4", "scale_inputs": 64},
    "mixed, 5 bits": {"weights": "mixed", "bits": 5, "scale_inputs": 64},
    "nested1, 8-bit reading": {"weights": "nested", "nested_encoding": "nested1", "gate_share": 0},
    "nested1, 4-bit reading": {"weights": "nested", "nested_encoding": "nested1", "gate_share": 0},
    "nested4, 8-bit reading": {"weights": "nested", "nested_encoding": "nested4", "gate_share": 0},
    "nested4, 4-bit reading": {"weights": "nested", "nested_encoding": "nested4", "gate_share": 0},
    "nested4, gate at 50 %": {"weights": "nested", "gate_share": 0.5, "max_flips": 1},
    "nested4, gate at 80 %": {"weights": "nested", "gate_share": 0.8, "max_flips": 1},
    "MatMulNBits 32": {"weights": "int4", "block": 32, "emit": "standard"},
    "MatMulNBits 128": {"weights": "int4", "block": 128, "emit": "standard"},
}
ROUNDED = "rounded to 6 bits"  # in float: what nested weights are to beat
THEIRS = (ROUNDED, "ORT dynamic int8", "ORT static int8", "ORT default 32", "ORT default 128", "ORT HQQ 32",
          "ORT HQQ 128", "ORT GPTQ 32", "ORT GPTQ 128")
PRODUCTS = {"MatMul", "Gemm", "MatMulInteger", "MatMulNBits", "DynamicQuantizeMatMul",
            "MatMulIntegerToFloat"}


def prepare(path, target):
    """The original as ONNX Runtime's quantisers can read it: initializers, MatMul + Add."""
    model = onnx.load(str(path))
    del model.graph.value_info[:]
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version < 13:
            model = onnx.version_converter.convert_version(model, 13)
    onnx.save(model, str(target))
    quant_pre_process(str(target), str(target), skip_symbolic_shape=True)
    model = onnx.load(str(target))
    constants = {t.name: t for t in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type != "Gemm" or node.input[1] not in constants or attributes.get("transA") \
                or attributes.get("alpha", 1) != 1 or attributes.get("beta", 1) != 1:
            nodes.append(node)
            continue
        weight = numpy_helper.to_array(constants[node.input[1]])
        name = f"{node.output[0]}_weight"
        turned = weight.T if attributes.get("transB") else weight
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(turned), name))
        biased = len(node.input) > 2
        product = f"{node.output[0]}_product" if biased else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], name], [product],
                                      name=f"{node.output[0]}_matmul"))
        if biased:
            nodes.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {i for n in nodes for i in n.input}
    kept = [t for t in model.graph.initializer if t.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.save(model, str(target))
    return target


def linear_weights(model):
    """Bytes of what products with constant weights read, each tensor once, without their biases."""
    constants = {t.name: len(numpy_helper.to_array(t).tobytes()) for t in model.graph.initializer}
    elements = {t.name: int(np.prod(t.dims)) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            value = numpy_helper.to_array(node.attribute[0].t) if node.attribute[0].t else None
            if value is not None:
                constants[node.output[0]] = value.nbytes
                elements[node.output[0]] = value.size

    known = {"": set(), **{name: {name} for name in constants}}
    for node in model.graph.node:  # in topological order
        parts = [known.get(i) for i in node.input]
        whole = node.op_type != "Constant" and all(p is not None for p in parts)
        for output in node.output:
            known.setdefault(output, set().union(*parts) if whole else None)
    sources = known.get  # the constants that a name is computed from; None: it depends on an input

    used, scales = set(), 0
    for node in model.graph.node:
        ours = node.domain == "sparsefuse"
        if not ours and node.op_type not in PRODUCTS:
            continue
        for place, name in enumerate(node.input):
            if place == 0 or (ours and place == 3) or (node.op_type == "Gemm" and place == 2):
                continue
            found = sources(name)
            if found:
                used |= found
        if node.op_type == "MatMulInteger":  # scales are multiplied in afterwards
            weight = sources(node.input[1]) or set()
            rows = max((elements[w] for w in weight), default=0)
            shape = next((t.dims for t in model.graph.initializer if t.name in weight), [0, 0])
            scales += 4 * (shape[-1] if rows else 0)
    return sum(constants[name] for name in used) + scales


def compress(args, path, folder, settings, out):
    settings = dict(settings)
    emit = settings.pop("emit", "custom")
    config = out.with_suffix(".json")
    config.write_text(json.dumps({
        "passes": [*CLEANUP, {"type": "quantize", "embeddings": False, "storage": False, **settings}],
        "output": {"emit": emit}, "measure": False, "verification": {"min_cosine": -1}}))
    result = subprocess.run(
        list(map(str, [args.tool, "compress", "-m", path, "-o", out, "-c", config,
                       "--calibration-data", folder / "calibration.npz", "--quiet"])),
        capture_output=True, text=True)
    if result.returncode not in (0, 9):
        raise RuntimeError(result.stderr.strip().splitlines()[-1])
    return out / "model.onnx"


def open_gates(path):
    """Every row of nested layers to the 4-bit reading: estimate 0 below a threshold of 1."""
    model = onnx.load(str(path))
    gates = {n.input[5] for n in model.graph.node
             if n.domain == "sparsefuse" and "Nested" in n.op_type}
    kept = [t for t in model.graph.initializer if t.name not in gates]
    gate = np.array([0, 0, 1, 0], np.float32)
    added = [numpy_helper.from_array(gate, name) for name in gates]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept + added)
    target = path.with_name("high.onnx")
    onnx.save(model, str(target))
    return target


def rounded(path, target):
    """Linear weights to 6 bits and a scale an output, the one of 64 with the least squared error; the
    first and the last layer to 8 bits."""
    model = onnx.load(str(path))
    weights = {t.name: t for t in model.graph.initializer if len(t.dims) == 2}
    used = dict.fromkeys(n.input[1] for n in model.graph.node
                         if n.op_type == "MatMul" and n.input[1] in weights)
    for i, name in enumerate(used):
        w = numpy_helper.to_array(weights[name]).astype(np.float64)
        most = 127 if i in (0, len(used) - 1) else 31
        best, error = np.zeros_like(w), np.full(w.shape[1], np.inf)
        for shrink in np.linspace(0.5, 1, 64):
            scale = np.maximum(shrink * np.abs(w).max(axis=0) / most, 1e-30)
            near = np.clip(np.round(w / scale), -most, most) * scale
            square = ((near - w) ** 2).sum(axis=0)
            best[:, square < error] = near[:, square < error]
            error = np.minimum(error, square)
        weights[name].CopyFrom(numpy_helper.from_array(best.astype(np.float32), name))
    onnx.save(model, str(target))
    return target


def others(way, path, folder, scratch):
    prepared = prepare(path, scratch / "prepared.onnx")
    target = scratch / "theirs.onnx"
    if way == ROUNDED:
        return rounded(prepared, target)
    if way == "ORT dynamic int8":
        quantize_dynamic(str(prepared), str(target), per_channel=True, weight_type=QuantType.QInt8,
                         op_types_to_quantize=["MatMul"])
        return target
    if way == "ORT static int8":
        data = compare.inputs(folder / "calibration.npz")
        reader = compare.Reader(data, compare.fixed_batch(compare.session(path)) or 16)
        quantize_static(str(prepared), str(target), reader, per_channel=True,
                        weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
                        op_types_to_quantize=["MatMul"])
        return target
    from onnxruntime.quantization import matmul_nbits_quantizer as nbits
    _, kind, block = way.split()
    size, data = int(block), compare.inputs(folder / "calibration.npz")
    algorithm = {
        "default": lambda: nbits.DefaultWeightOnlyQuantConfig(block_size=size, is_symmetric=False),
        "HQQ": lambda: nbits.HQQWeightOnlyQuantConfig(block_size=size),
        "GPTQ": lambda: nbits.GPTQWeightOnlyQuantConfig(
            compare.Reader(data, compare.fixed_batch(compare.session(path)) or 16), block_size=size),
    }[kind]()
    quantizer = nbits.MatMulNBitsQuantizer(onnx.load(str(prepared)), block_size=size,
                                           algo_config=algorithm)
    quantizer.process()
    quantizer.model.save_model_to_file(str(target), False)
    return target


def points(args, name, path, folder, scratch):
    original = compare.session(path)
    evaluation = np.load(folder / "evaluation.npz")
    data, label = compare.inputs(folder / "evaluation.npz"), evaluation["label"]
    if args.samples:
        data, label = {k: v[:args.samples] for k, v in data.items()}, label[:args.samples]
    reference = compare.outputs(original, data)
    kind, value = compare.metric(reference, label)
    fp32 = linear_weights(onnx.load(str(prepare(path, scratch / "fp32.onnx"))))
    library = args.tool.parent.parent / "lib" / "libsparsefuse_ops.so"
    made = {}
    for way in [*OURS, *THEIRS]:
        if args.ways and way not in args.ways:
            continue
        point = {"model": name, "way": way, "metric": kind, "original": value}
        start = time.perf_counter()
        try:
            if way in OURS:
                key = json.dumps(OURS[way])
                if key not in made:
                    made[key] = compress(args, path, folder, OURS[way],
                                         scratch / f"{name.replace('/', '_')}-{len(made)}")
                model = made[key]
                if way.endswith("4-bit reading"):
                    model = open_gates(model)
            else:
                model = others(way, path, folder, scratch)
            out = compare.outputs(compare.session(model, library), data)
        except Exception as error:  # noqa: BLE001: a way that fails is a result
            yield {**point, "refused": str(error).splitlines()[0][:150]}
            continue
        size = linear_weights(onnx.load(str(model)))
        if way.endswith("4-bit reading") or way == ROUNDED:
            size = None  # the same file as the 8-bit reading; in float
        yield {**point, "seconds": time.perf_counter() - start, "value":
               compare.metric(out, label)[1], "kl": kl(reference, out),
               "bytes": size and size / fp32}


def markdown(results):
    lines = []
    for model in dict.fromkeys(p["model"] for p in results):
        mine = [p for p in results if p["model"] == model]
        lines += [f"**{model}** ({mine[0]['metric']} {mine[0]['original']:.4f})", "",
                  "| | bytes over fp32 | KL | metric |", "|---|---|---|---|"]
        for p in mine:
            if "refused" in p:
                lines.append(f"| {p['way']} | refused: {p['refused']} | | |")
                continue
            size = f"{p['bytes']:.4f}" if p["bytes"] else ""
            lines.append(f"| {p['way']} | {size} | {p['kl']:.3g} | {p['value']:.4f} |")
        lines.append("")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", type=pathlib.Path,
                        default=compare.ROOT / "build/release/bin/sparsefuse")
    parser.add_argument("--models", nargs="*", metavar="NAME", help="names; all if absent")
    parser.add_argument("--ways", nargs="*", metavar="WAY", help=", ".join([*OURS, *THEIRS]))
    parser.add_argument("--samples", type=int, default=0, help="evaluate on so many; 0: all")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    args.tool = args.tool.resolve()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, path, folder in compare.models():
            if name in compare.CNNS or (args.models and name not in args.models):
                continue
            for point in points(args, name, path, folder, pathlib.Path(scratch)):
                print(json.dumps(point), flush=True)
                results.append(point)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))
    print(f"\n{compare.cpu()}\n\n{markdown(results)}")


if __name__ == "__main__":
    main()
