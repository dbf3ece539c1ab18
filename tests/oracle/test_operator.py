"""Every linear operator alone: the kernel, the function body in ONNX Runtime, and the body in the reference
evaluator against docs/formats.md spelt out in numpy (linear_book.py), on awkward shapes and inputs.

Bounds, with R scale rows a panel, before the activation (ε = 2⁻²⁴):
  kernel   (R + 4)·ε·(s·Σ_g |scale·t| + |v|)                        kernels/linear/linear.h
  body     (R + 8)·ε·(s·Σ_g |scale·t| + |v|): it decodes scales with Pow
           … + (K + 8)·ε·s·Σ_k |scale·q·w| for sparse weights with scale rows of groups, whose product is one
           of floats
The activations' slopes are within 1.13; their own error is 4·ε·|v|. float16 adds its rounding.
"""
import subprocess
import zlib

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator

from conftest import session
from linear_book import ACTIVATIONS, ENCODINGS, EPSILON, activate, linear, model_of, random_layer

OPSETS = range(18, 26)
KINDS = [(encoding, sparse) for encoding in ENCODINGS for sparse in (False, True)]
kinds = pytest.mark.parametrize("encoding,sparse", KINDS, ids=[f"{'sparse' if s else 'dense'}{e}" for e, s in KINDS])


@pytest.fixture(scope="session")
def functions(tool, tmp_path_factory):
    """functions(opset): a model that holds the functions of all operators."""
    folder = tmp_path_factory.mktemp("functions")
    known = {}

    def at(opset):
        if opset not in known:
            path = folder / f"{opset}.onnx"
            subprocess.run([tool.parent / "write_functions", str(opset), path], check=True)
            known[opset] = onnx.load(str(path))
        return known[opset]

    return at


def random_for(*key):
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def awkward_rows(random, K, dtype):
    """Rows of every magnitude, some with NaN and Inf; [2, 7, K]."""
    x = random.standard_normal((14, K))
    x[1] = 0
    x[2] = np.sign(x[2]) * 1e-42 if dtype == np.float32 else 0  # denormal: codes are 0
    x[3] *= 2.0**-124 if dtype == np.float32 else 2.0**-20  # a scale at its floor, or denormal
    x[4] *= 1e33 if dtype == np.float32 else 1e4
    x[5] = random.integers(-127, 127, K) + 0.5  # ties
    x[5, 0] = 127
    x[6] = 0
    x[6, -1] = -3
    x[7, K // 2] = np.nan
    x[8, 0] = np.inf
    x[9, -1] = -np.inf
    x[10] = np.nan
    x[11, :] = np.inf
    return x.astype(dtype).reshape(2, 7, K)


def limits(layer, page, judge):
    """Allowed deviation from activate(page.v)."""
    rows = max(layer.scale_rows(p) for p in range(layer.panels))
    size = page.partial_sums + np.abs(page.v)
    if judge == "kernel":
        bound = (rows + 4) * EPSILON * size
    else:
        bound = (rows + 8) * EPSILON * size
        if layer.sparse and layer.scale_groups:
            bound += (layer.K + 8) * EPSILON * page.products
    return 1.13 * bound + 4 * EPSILON * np.abs(page.v) if layer.activation else bound


def judge_layer(layer, functions, library, folder, dtype=np.float32, x=None, check=False, reference=True):
    model = model_of(layer, functions, dtype)
    if check:
        onnx.checker.check_model(model, full_check=True)
    path = folder / "m.onnx"
    onnx.save(model, path)
    if x is None:
        x = awkward_rows(random_for(layer.operator, layer.K), layer.K, dtype)
    with np.errstate(all="ignore"):
        answers = {"body": session(path).run(None, {"X": x})[0],
                   "kernel": session(path, library).run(None, {"X": x})[0]}
        if reference:
            answers["reference"] = ReferenceEvaluator(model).run(None, {"X": x})[0]
        page = linear(layer, x.reshape(-1, layer.K))
        book = activate(layer.activation, page.v)
    for judge, y in answers.items():
        assert y.dtype == dtype and y.shape == (*x.shape[:-1], layer.N), judge
        y = y.reshape(book.shape).astype(np.float64)
        assert (np.isnan(y) == np.isnan(book)).all(), f"{judge}: NaN elsewhere"
        bound = limits(layer, page, judge)
        if dtype == np.float16:
            bound = bound + np.abs(book) * 2.0**-11 + 2.0**-25
            with np.errstate(over="ignore"):  # beyond its range is its infinity
                near = np.isinf(y) & (book.astype(np.float16).astype(np.float64) == y)
        else:
            near = False
        excess = np.where(np.isnan(book) | near, 0, np.abs(y - book) - bound)
        worst = np.unravel_index(np.argmax(excess), excess.shape)
        assert (excess <= 0).all(), \
            f"{judge} {worst}: {y[worst]} for {book[worst]}, off by {abs(y - book)[worst]} > {bound[worst]}"


@pytest.mark.parametrize("opset", OPSETS)
@kinds
def test_judges_agree_at_every_opset(encoding, sparse, opset, functions, library, tmp_path):
    for i, activation in enumerate(ACTIVATIONS):
        random = random_for(encoding, sparse, activation, opset)
        for scale_groups in (0, 1):
            layer = random_layer(random, encoding, sparse, activation, K=135, N=40, scale_groups=scale_groups)
            judge_layer(layer, functions(opset), library, tmp_path, check=True, reference=i == opset % 5)


@pytest.mark.parametrize("seed", range(6))
@kinds
def test_judges_agree_on_random_layers(encoding, sparse, seed, functions, library, tmp_path):
    random = random_for("layers", encoding, sparse, seed)
    for scale_groups in (0, 1, 2, 8):
        K = int(random.choice([1, 3, 4, 63, 64, 65, 127, 190, 300, 513, 1100]))
        N = int(random.choice([1, 31, 32, 33, 64, 65, 100, 129]))
        layer = random_layer(random, encoding, sparse, str(random.choice(ACTIVATIONS)), K, N, scale_groups,
                             density=float(random.choice([0.02, 0.1, 0.3, 0.6, 0.9, 1])), smooth=random.random() < 0.5)
        judge_layer(layer, functions(18 + seed), library, tmp_path, np.float16 if random.random() < 0.3 else np.float32)


@pytest.mark.parametrize("scale_groups", [0, 1, 2, 8])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_empty_panels(encoding, scale_groups, functions, library, tmp_path):
    """First, last, neighbouring and all panels without a quad; a panel of zeros that are stored."""
    for empty in ([0], [4], [1, 2], [0, 1, 3, 4], range(5)):
        random = random_for(encoding, scale_groups, *empty)
        layer = random_layer(random, encoding, True, K=200, N=150, scale_groups=scale_groups, density=0.7)
        rows = [layer.scale_rows(p) for p in range(5)]
        by_panel = np.split(layer.scale_code, np.cumsum(rows)[:-1])
        for p in empty:
            layer.kept[p] = []
            layer.weights[32 * p:32 * p + 32] = 0
            by_panel[p] = by_panel[p][:layer.scale_rows(p)]
        layer.scale_code = np.concatenate(by_panel)
        if 2 not in empty:
            layer.weights[64:96] = 0
            for part in (layer.high, layer.low):
                if part is not None:
                    part[64:96] = 0
        judge_layer(layer, functions(21), library, tmp_path, check=True)


@kinds
def test_any_leading_dimensions(encoding, sparse, functions, library, tmp_path):
    for scale_groups in (0, 1):
        layer = random_layer(random_for(encoding, sparse), encoding, sparse, K=70, N=40, scale_groups=scale_groups)
        for dims in ([], [3], [0], [0, 3], [3, 0], [2, 0, 3], [1, 2, 1, 3]):
            model = model_of(layer, functions(20), leading=[f"d{i}" for i in range(len(dims))])
            path = tmp_path / "m.onnx"
            onnx.save(model, path)
            x = np.ones((*dims, 70), np.float32)
            expected = np.broadcast_to(linear(layer, np.ones((1, 70))).v[0], (*dims, 40))
            for lib in (None, library):
                y = session(path, lib).run(None, {"X": x})[0]
                assert y.shape == (*dims, 40)
                assert np.allclose(y, expected, rtol=1e-5, atol=1e-5)


PRODUCTS = {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMul", "Gemm", "FusedMatMul"}
# What scaling, rounding, reductions, bias and activations are made of, or fused into.
RUN_TIME = {"Abs", "ReduceMax", "ReduceSum", "Max", "Div", "Mul", "Add", "Slice", "QuantizeLinear", "Cast", "Round",
            "Relu", "Gelu", "BiasGelu", "FastGelu", "QuickGelu", "Erf", "Tanh", "Sigmoid"}
ROWWISE = {"Reshape", "Pad", "Transpose", "Shape", "Concat"}  # dense with scale rows of groups


@kinds
def test_weights_are_unpacked_at_load(encoding, sparse, functions, tmp_path, capfd):
    """And ONNX Runtime finds nothing to warn of, in the branch that is not taken either."""
    for opset in OPSETS:
        for activation in ACTIVATIONS:
            for scale_groups in (0, 2):
                layer = random_layer(random_for(encoding), encoding, sparse, activation, 300, 70, scale_groups)
                onnx.save(model_of(layer, functions(opset)), tmp_path / "m.onnx")
                options = ort.SessionOptions()
                options.optimized_model_filepath = str(tmp_path / "o.onnx")
                options.log_severity_level = 2
                ort.InferenceSession(str(tmp_path / "m.onnx"), options, providers=["CPUExecutionProvider"])
                nodes = [node.op_type for node in onnx.load(str(tmp_path / "o.onnx")).graph.node]
                products = [op for op in nodes if op in PRODUCTS]
                assert products == ["MatMul" if sparse and scale_groups else "MatMulInteger"]
                allowed = RUN_TIME | (ROWWISE if scale_groups and not sparse else set())
                assert not set(nodes) - PRODUCTS - allowed
                warnings = capfd.readouterr().err.splitlines()
                assert not [line for line in warnings if "Serializing optimized model" not in line]
