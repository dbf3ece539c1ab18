"""Whole stacks of layers with random weights: our operators beside ONNX Runtime's own.

  python tests/bench/stacks.py [--library build/release/lib/libsparsefuse_ops.so] [--json FILE]

encoder: 12 layers, width 768, FFN 3072, 12 heads, 128 tokens, batch 1 and 8.
decoder: 4 layers, width 2048, FFN 8192, 16 heads, one token behind a cache of 128.
Weights are random, so nothing is said of accuracy; the linear layers of the fp32 graph become, one
for one, what the candidate's name says, everything else stays. A name with "+gelu" has the first
FFN layer's activation inside the operator. All candidates run interleaved in one process; ratios of
minimum times. --threads N; with 1 and 2, both are measured.
"""
import argparse
import json
import pathlib
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from compare import ROOT, cpu, interleaved

OPSET = 20


class Graph:
    """An fp32 stack; linear layers are remembered by the name of their output."""

    def __init__(self, seed=0):
        self.nodes, self.initializers, self.linear = [], {}, {}
        self.random = np.random.default_rng(seed)
        self.count = 0

    def op(self, kind, inputs, **attributes):
        self.count += 1
        output = f"v{self.count}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{kind}_{self.count}",
                                           **attributes))
        return output

    def constant(self, array):
        name = f"c{len(self.initializers)}"
        self.initializers[name] = np.asarray(array)
        return name

    def dense(self, x, inputs, outputs):
        weight = self.random.standard_normal((inputs, outputs), np.float32) / np.sqrt(inputs)
        w = self.constant(weight.astype(np.float32))
        b = self.constant(self.random.standard_normal(outputs).astype(np.float32) * 0.1)
        y = self.op("Add", [self.op("MatMul", [x, w]), b])
        self.linear[y] = (x, w, b)
        return y

    def norm(self, x, width):
        return self.op("LayerNormalization", [x, self.constant(np.ones(width, np.float32)),
                                              self.constant(np.zeros(width, np.float32))], axis=-1)

    def heads(self, x, heads, size):
        shaped = self.op("Reshape", [x, self.constant(np.array([0, 0, heads, size]))])
        return self.op("Transpose", [shaped], perm=[0, 2, 1, 3])

    def model(self, inputs, outputs):
        return helper.make_model(
            helper.make_graph(
                self.nodes, "stack",
                [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in inputs],
                [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
                [numpy_helper.from_array(a, n) for n, a in self.initializers.items()]),
            opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def stack(layers, width, ffn, heads, cache):
    g = Graph()
    x, size = "x", width // heads
    inputs = [("x", ["batch", "tokens", width])]
    for layer in range(layers):
        h = g.norm(x, width)
        q = g.heads(g.dense(h, width, width), heads, size)
        k = g.heads(g.dense(h, width, width), heads, size)
        v = g.heads(g.dense(h, width, width), heads, size)
        if cache:
            for i, value in (("k", k), ("v", v)):
                inputs.append((f"past_{i}{layer}", ["batch", heads, cache, size]))
            k = g.op("Concat", [f"past_k{layer}", k], axis=2)
            v = g.op("Concat", [f"past_v{layer}", v], axis=2)
        q = g.op("Mul", [q, g.constant(np.float32(size ** -0.5))])
        p = g.op("Softmax", [g.op("MatMul", [q, g.op("Transpose", [k], perm=[0, 1, 3, 2])])], axis=-1)
        a = g.op("Transpose", [g.op("MatMul", [p, v])], perm=[0, 2, 1, 3])
        a = g.op("Reshape", [a, g.constant(np.array([0, 0, width]))])
        x = g.op("Add", [x, g.dense(a, width, width)])
        h = g.op("Gelu", [g.dense(g.norm(x, width), width, ffn)])
        x = g.op("Add", [x, g.dense(h, ffn, width)])
    return g, inputs, [x]


def scale_codes(scales):
    """One byte each over one base, as docs/formats.md says."""
    base = np.float32(scales.max() * 2.0 ** (-255 / 16))
    return base, np.clip(np.ceil(16 * np.log2(np.maximum(scales, base) / base)), 0, 255)


def layout1(codes, density, random):
    """codes int8 [N, K] → groups int8 [G, 32, 64], quads, group_ptr. N % 32 = K % 64 = 0."""
    outputs, inputs = codes.shape
    panels = codes.reshape(outputs // 32, 32, inputs // 4, 4)
    keep = max(16, round(density * inputs / 4 / 16) * 16)
    quads = np.stack([np.sort(random.permutation(inputs // 4)[:keep]) for _ in panels])
    kept = np.stack([p[:, q] for p, q in zip(panels, quads)])       # [P, 32, keep, 4]
    groups = kept.reshape(len(panels), 32, keep // 16, 64).transpose(0, 2, 1, 3)
    return (groups.reshape(-1, 32, 64), quads.astype(np.uint16).reshape(-1),
            np.arange(len(panels) + 1, dtype=np.int32) * (keep // 16))


def nibbles(groups):
    """Codes −8 … 7 [G, 32, 64] → uint8 [G, 1024]."""
    low, high = groups[:, :16].astype(np.uint8) & 15, groups[:, 16:].astype(np.uint8) & 15
    return (low | high << 4).reshape(len(groups), 1024)


def our_node(name, x, w, b, weight, output, density, easy, random):
    """The custom node in place of a linear layer, and its constants."""
    inputs, outputs = weight.shape
    encoding, _, activation = name.partition("+")
    top = {"8": 63, "4": 7, "Nested4": 35}[encoding]  # 63: neighbours stay within 128
    scales = np.abs(weight).max(0) / top
    base, codes = scale_codes(scales)
    q = np.clip(np.rint(weight / (base * 2.0 ** (codes / 16))), -top, top).astype(np.int8).T
    groups, quads, ptr = layout1(q, density, random)
    scale_groups = 8 if encoding != "8" and density == 1 else 0
    if scale_groups:
        codes = np.repeat(codes.reshape(-1, 1, 32), -(-inputs // 64 // 8), 1)
    constants = {"code": codes.reshape(-1, 32).astype(np.uint8), "b": None,
                 "smooth": np.ones(inputs, np.float32)}
    if encoding == "8":
        packed = groups.reshape(-1, 32, 16, 4)
    elif encoding == "4":
        packed = nibbles(groups)
    else:
        high = np.clip(np.rint(groups / 4), -8, 7)
        packed = np.stack([nibbles(high), nibbles(groups - 4 * high)])
        constants["gate"] = np.array([0, 0, 1 if easy else 0, 0], np.float32)
    if density < 1:
        constants |= {"quad": quads, "ptr": ptr}
    constants = {"weight": packed, **constants}
    names = [b if k == "b" else f"{output}_{k}" for k in constants]
    node = helper.make_node(
        ("QuantizedLinear" if density == 1 else "BlockSparseLinear") + encoding + activation,
        [x, *names], [output], name=output, domain="sparsefuse", K=inputs, N=outputs,
        scale_groups=scale_groups, scale_base=float(base), layout=1)
    return node, {n: v for n, v in zip(names, constants.values()) if v is not None}


def bits4_node(x, w, b, weight, output, block=128):
    inputs, outputs = weight.shape
    blocks = weight.T.reshape(outputs, inputs // block, block)
    scales = np.abs(blocks).max(-1) / 7
    q = (np.rint(blocks / scales[..., None]) + 8).astype(np.uint8)
    constants = {f"{output}_w": q[..., ::2] | q[..., 1::2] << 4,
                 f"{output}_s": scales.reshape(-1).astype(np.float32)}
    node = helper.make_node("MatMulNBits", [x, *constants], [output + "_p"], domain="com.microsoft",
                            K=inputs, N=outputs, bits=4, block_size=block, accuracy_level=4)
    return [node, helper.make_node("Add", [output + "_p", b], [output])], constants


def rewrite(g, inputs, outputs, replace, fuse=False):
    """The model with every linear layer replaced; its Gelu drawn in if `fuse`."""
    initializers = dict(g.initializers)
    gelu = {n.input[0]: n.output[0] for n in g.nodes if n.op_type == "Gelu"} if fuse else {}
    nodes = []
    for node in g.nodes:
        output = node.output[0]
        if output in g.linear:
            x, w, b = g.linear[output]
            fused = gelu.get(output)
            new, constants = replace(x, w, b, g.initializers[w], fused or output, bool(fused))
            initializers.pop(w)
            initializers |= constants
            nodes += new
        elif node.op_type == "MatMul" and node.input[1] in g.initializers:
            continue
        elif fuse and node.op_type == "Gelu":
            continue
        else:
            nodes.append(node)
    model = helper.make_model(
        helper.make_graph(
            nodes, "stack",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in inputs],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
            [numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in initializers.items()]),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("sparsefuse", 1),
                       helper.make_opsetid("com.microsoft", 1)], ir_version=9)
    return model


def ours(g, inputs, outputs, encoding, density=1.0, easy=False, fuse=False):
    random = np.random.default_rng(1)

    def replace(x, w, b, weight, output, fused):
        node, constants = our_node(encoding + ("+Gelu" if fused else ""), x, w, b, weight, output,
                                   density, easy, random)
        return [node], constants

    return rewrite(g, inputs, outputs, replace, fuse)


def candidates(kind, folder, library):
    """(name, model path, library or None): fp32 and ONNX Runtime's own first."""
    shape = {"encoder": (12, 768, 3072, 12, 0), "decoder": (4, 2048, 8192, 16, 128)}[kind]
    g, inputs, outputs = stack(*shape)
    found = []

    def add(name, model, lib=None):
        path = folder / f"{kind}{len(found)}.onnx"
        onnx.save(model, str(path))
        found.append((name, path, lib))
        return path

    fp32 = add("fp32", g.model(inputs, outputs))
    dynamic = folder / f"{kind}-dynamic.onnx"
    quantize_dynamic(str(fp32), str(dynamic), per_channel=True, weight_type=QuantType.QInt8)
    found.append(("ort dynamic int8", dynamic, None))
    if kind == "encoder":
        add("int8", ours(g, inputs, outputs, "8"), library)
        add("int8 +gelu", ours(g, inputs, outputs, "8", fuse=True), library)
        for density in (0.5, 0.2):
            add(f"int8 +gelu, {1 - density:.0%} zero blocks",
                ours(g, inputs, outputs, "8", density, fuse=True), library)
        return found
    for block in (32, 128):
        add(f"ort 4-bit, blocks of {block}",
            rewrite(g, inputs, outputs, lambda *a, n=block: bits4_node(*a[:5], n)))
    add("int8 +gelu", ours(g, inputs, outputs, "8", fuse=True), library)
    add("int4 +gelu", ours(g, inputs, outputs, "4", fuse=True), library)
    add("nested4 +gelu", ours(g, inputs, outputs, "Nested4", fuse=True), library)
    add("nested4 +gelu, read in 4 bits", ours(g, inputs, outputs, "Nested4", easy=True, fuse=True),
        library)
    add("int4 +gelu, 50% zero blocks", ours(g, inputs, outputs, "4", 0.5, fuse=True), library)
    return found


def feed(session, batch, kind):
    random = np.random.default_rng(2)
    data = {}
    for value in session.get_inputs():
        shape = [batch if d == "batch" else (128 if kind == "encoder" else 1) if d == "tokens" else d
                 for d in value.shape]
        data[value.name] = random.standard_normal(shape, np.float32)
    return data


def open_session(path, library, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if library:
        options.register_custom_ops_library(str(library))
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def measure(kind, batches, threads, seconds, library, folder):
    found = candidates(kind, folder, library)
    sessions = [open_session(path, lib, threads) for _, path, lib in found]
    points = []
    for batch in batches:
        data = feed(sessions[0], batch, kind)
        for name, session in zip((n for n, _, _ in found), sessions):
            assert np.isfinite(session.run(None, data)[0]).all(), name
        latencies = interleaved(sessions, data, seconds)
        points.append({"stack": kind, "batch": batch, "threads": threads,
                       "latency": {n: t for (n, _, _), t in zip(found, latencies)}})
    return points


def markdown(points):
    lines = ["| stack | batch | threads | candidate | ms | over fp32 | over ONNX Runtime dynamic int8 |",
             "|---|---|---|---|---|---|---|"]
    for p in points:
        latency = {n: t["min_ms"] for n, t in p["latency"].items()}
        for name, ms in latency.items():
            lines.append(f"| {p['stack']} | {p['batch']} | {p['threads']} | {name} | {ms:.2f} "
                         f"| ×{latency['fp32'] / ms:.2f} | ×{latency['ort dynamic int8'] / ms:.2f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=pathlib.Path,
                        default=ROOT / "build/release/lib/libsparsefuse_ops.so")
    parser.add_argument("--stacks", nargs="*", default=["encoder", "decoder"])
    parser.add_argument("--threads", type=int, nargs="*", default=[1])
    parser.add_argument("--seconds", type=float, default=20, help="per stack, batch and threads")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    points = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in args.stacks:
            for threads in args.threads:
                batches = [1, 8] if kind == "encoder" else [1]
                points += measure(kind, batches, threads, args.seconds, args.library,
                                  pathlib.Path(folder))
    print(f"{cpu()}, ONNX Runtime {ort.__version__}\n")
    print(markdown(points))
    if args.json:
        args.json.write_text(json.dumps({"cpu": cpu(), "onnxruntime": ort.__version__,
                                         "points": points}, indent=1) + "\n")


if __name__ == "__main__":
    main()
