"""docs/formats.md spelt out in numpy without a look at the C++: random layers, their bytes in layout 1,
models of one operator, and what the operator makes of its input, in double precision."""
import dataclasses
import math

import numpy as np
import onnx
from onnx import helper

ENCODINGS = ["8", "4", "Nested1", "Nested4"]
ACTIVATIONS = ["", "Relu", "Gelu", "GeluTanh", "Silu"]
EPSILON = 2.0**-24  # half a step of float32 at 1


@dataclasses.dataclass
class Layer:
    encoding: str
    sparse: bool
    activation: str
    K: int
    N: int
    scale_groups: int
    high: np.ndarray | None  # nested [N, K], nibbles
    low: np.ndarray | None
    weights: np.ndarray  # [N, K], what the codes stand for in 8 bits; 0 where no quad is kept
    kept: list  # for each panel its quads, ascending
    scale_code: np.ndarray  # [S, 32]
    scale_base: float
    bias: np.ndarray
    smooth: np.ndarray
    gate: np.ndarray

    @property
    def operator(self):
        return ("BlockSparseLinear" if self.sparse else "QuantizedLinear") + self.encoding + self.activation

    @property
    def panels(self):
        return -(-self.N // 32)

    def quads(self, panel):
        """Of a panel, in whole groups: [groups, 16]."""
        quads = self.kept[panel]
        filler = [-(-self.K // 4)] * (-len(quads) % 16) if self.sparse else \
            range(len(quads), -(-len(quads) // 16) * 16)
        return np.array([*quads, *filler], np.int64).reshape(-1, 16)

    def scale_rows(self, panel):
        groups = len(self.quads(panel))
        return 1 if self.scale_groups == 0 else -(-groups // self.scale_groups)


def random_layer(random, encoding, sparse, activation="", K=70, N=40, scale_groups=0, density=0.5, smooth=False):
    """Weights of int8 and Nested1 stay within ±64, so that no pair of products saturates on any CPU."""
    high = low = None
    if encoding == "Nested4":
        high, low = (random.integers(-8, 8, (N, K)) for _ in range(2))
        weights = 4 * high + low
    else:
        most = 7 if encoding == "4" else 64
        weights = random.integers(-most - (encoding == "4"), most + 1, (N, K))
        if encoding == "Nested1":
            high, low = weights >> 4, weights & 15
    every = np.arange(-(-K // 4))
    layer = Layer(encoding, sparse, activation, K, N, scale_groups, high, low, weights, [], None, 3e-4,
                  random.standard_normal(N).astype(np.float32), np.ones(K, np.float32), np.zeros(4, np.float32))
    for panel in range(layer.panels):
        keep = random.random(len(every)) < density if sparse else np.ones(len(every), bool)
        layer.kept.append(every[keep].tolist())
        dropped = np.repeat(~keep, 4)[:K]
        weights[32 * panel:32 * panel + 32, dropped] = 0
    rows = sum(layer.scale_rows(p) for p in range(layer.panels))
    layer.scale_code = random.integers(0, 256, (rows, 32)).astype(np.uint8)
    if smooth:
        layer.smooth = np.exp(random.standard_normal(K)).astype(np.float32)
    if encoding.startswith("Nested"):  # a body that read it would notice
        layer.gate = random.standard_normal(4 + 3 * K).astype(np.float32)
        layer.gate[3] = 3
        layer.gate[2] = -np.inf  # never easy
    return layer


def blocks(layer, values):
    """[groups, 32, 16, 4] of `values` [N, K], 0 beyond its ends."""
    padded = np.zeros((layer.panels * 32, (-(-layer.K // 64) * 16 + 1) * 4), np.int64)
    padded[:layer.N, :layer.K] = values
    by_quad = padded.reshape(layer.panels, 32, -1, 4)
    stored = [by_quad[p][:, group] for p in range(layer.panels) for group in layer.quads(p)]
    return np.array(stored, np.int64).reshape(-1, 32, 16, 4)


def plane(values):
    """uint8 [groups, 1024]: output r in the low nibble, output 16 + r in the high one."""
    nibbles = values & 15
    return (nibbles[:, :16] | nibbles[:, 16:] << 4).astype(np.uint8).reshape(-1, 1024)


def constants(layer):
    """The operator's inputs after X."""
    if layer.encoding == "8":
        weight = blocks(layer, layer.weights).astype(np.int8)
    elif layer.encoding == "4":
        weight = plane(blocks(layer, layer.weights))
    else:
        weight = np.stack([plane(blocks(layer, part)) for part in (layer.high, layer.low)])
    inputs = [weight, layer.scale_code, layer.bias, layer.smooth]
    if layer.encoding.startswith("Nested"):
        inputs.append(layer.gate)
    if layer.sparse:
        groups = [len(layer.quads(p)) for p in range(layer.panels)]
        quads = np.concatenate([layer.quads(p).reshape(-1) for p in range(layer.panels)])
        inputs += [quads.astype(np.uint16), np.cumsum([0, *groups]).astype(np.int32)]
    return inputs


def model_of(layer, functions, dtype=np.float32, leading=("a", "b")):
    """One operator; `functions`: a model that holds its function and whose opset counts."""
    opset = functions.opset_import[0].version
    inputs = constants(layer)
    names = [f"c{i}" for i in range(len(inputs))]
    node = helper.make_node(layer.operator, ["X", *names], ["Y"], name="node", domain="sparsefuse", K=layer.K,
                            N=layer.N, scale_groups=layer.scale_groups, scale_base=layer.scale_base, layout=1)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph([node], "g",
                              [helper.make_tensor_value_info("X", kind, [*leading, layer.K])],
                              [helper.make_tensor_value_info("Y", kind, [*leading, layer.N])],
                              [onnx.numpy_helper.from_array(v, n) for v, n in zip(inputs, names)])
    function = next(f for f in functions.functions if f.name == layer.operator)
    return helper.make_model(graph, functions=[function], ir_version=10, opset_imports=[
        helper.make_opsetid("", opset), helper.make_opsetid("sparsefuse", 1)])


def activate(name, v):
    erf = np.vectorize(math.erf, otypes=[np.float64])
    if name == "Relu":
        return np.maximum(v, 0)
    if name == "Gelu":
        return v * (1 + erf(v / math.sqrt(2))) / 2
    if name == "GeluTanh":
        return v * (1 + np.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) / 2
    if name == "Silu":
        return v / (1 + np.exp(-v))
    return v


@dataclasses.dataclass
class Page:
    """Of each output: before the activation, and s·Σ_g |scale·t| and s·Σ_k |scale·q·w|."""
    v: np.ndarray
    partial_sums: np.ndarray
    products: np.ndarray


def linear(layer, x):
    """x [M, K]. Rows with NaN or Inf, after smoothing, are NaN."""
    page = Page(*(np.full((len(x), layer.N), np.nan) for _ in range(3)))
    scales = layer.scale_base * np.exp2(layer.scale_code / 16.0)
    for m, row in enumerate(x.astype(np.float32) * layer.smooth):
        if not np.isfinite(row).all():
            continue
        s = max(np.abs(row).max() / np.float32(127), np.float32(2.0**-126))
        q = np.clip(np.rint(row / s), -127, 127).astype(np.int64)
        first = 0
        for panel in range(layer.panels):
            outputs = slice(32 * panel, min(32 * panel + 32, layer.N))
            groups = layer.quads(panel)
            step = layer.scale_groups or max(len(groups), 1)
            total = np.zeros((3, outputs.stop - outputs.start))
            for g in range(layer.scale_rows(panel)):
                inputs = (groups[g * step:(g + 1) * step].reshape(-1, 1) * 4 + np.arange(4)).reshape(-1)
                inputs = inputs[inputs < layer.K]
                products = layer.weights[outputs, inputs] * q[inputs]
                scale = scales[first + g, :len(products)]
                t = products.sum(axis=1)
                total += scale * np.stack([t, np.abs(t), np.abs(products).sum(axis=1)])
            total *= np.float64(s)
            page.v[m, outputs] = total[0] + layer.bias[outputs]
            page.partial_sums[m, outputs], page.products[m, outputs] = total[1:]
            first += layer.scale_rows(panel)
    return page
