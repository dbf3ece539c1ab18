"""QuantizedLinear8 alone: kernel, function body in ONNX Runtime, function body in the reference evaluator
and docs/formats.md spelt out in numpy, on awkward shapes, at every opset that bodies are made for."""
import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from conftest import ROOT, session

OPSETS = range(18, 26)


def rows_by_the_book(x, codes, scale, bias):
    """docs/formats.md, row by row. x [M, K], codes [N, K], scale [N], bias [N]."""
    out = np.empty((len(x), len(codes)), np.float32)
    with np.errstate(all="ignore"):
        for m, row in enumerate(x.astype(np.float32)):
            largest = np.float32(np.abs(row).max()) if len(row) else np.float32(0)
            if not np.isfinite(row).all():
                out[m] = np.nan
                continue
            s = max(np.float32(largest / np.float32(127)), np.float32(2.0) ** -126)
            q = np.clip(np.rint(row / s), -127, 127).astype(np.int64)
            t = codes.astype(np.int64) @ q
            out[m] = s * (scale * t.astype(np.float32)) + bias
    return out


def one_layer(function, K, N, opset, seed):
    """A model of one QuantizedLinear8 around `function`, with random codes, scales and bias."""
    random = np.random.default_rng(seed)
    panels, groups = -(-N // 32), -(-K // 64)
    codes = random.integers(-64, 65, (N, K)).astype(np.int8)
    padded = np.zeros((panels * 32, groups * 64), np.int8)
    padded[:N, :K] = codes
    packed = padded.reshape(panels, 32, groups, 64).transpose(0, 2, 1, 3).reshape(-1, 32, 16, 4)
    scale_codes = random.integers(100, 256, (panels, 32)).astype(np.uint8)
    base = 3e-7
    bias = random.standard_normal(N).astype(np.float32)
    helper = onnx.helper
    node = helper.make_node("QuantizedLinear8", ["X", "w", "s", "b", "o"], ["Y"], domain="sparsefuse",
                            K=K, N=N, scale_groups=0, scale_base=base, layout=1)
    constants = {"w": np.ascontiguousarray(packed), "s": scale_codes, "b": bias,
                 "o": np.ones(K, np.float32)}
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, ["a", "b", K])],
        [helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, ["a", "b", N])],
        [onnx.numpy_helper.from_array(v, k) for k, v in constants.items()])
    function = onnx.FunctionProto.FromString(function.SerializeToString())
    for entry in function.opset_import:
        entry.version = opset
    model = helper.make_model(graph, functions=[function], ir_version=10, opset_imports=[
        helper.make_opsetid("", opset), helper.make_opsetid("sparsefuse", 1)])
    scale = np.float32(base) * np.exp2(scale_codes.reshape(-1)[:N].astype(np.float32) / 16)
    return model, codes, scale.astype(np.float32), bias


@pytest.fixture(scope="session")
def function(compress):
    demo = ROOT / "configs" / "demo"
    path = compress(demo / "model.onnx", demo / "calibration.npz", "--emit", "custom") / "model.onnx"
    return next(f for f in onnx.load(str(path)).functions if f.name == "QuantizedLinear8")


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("K,N", [(64, 32), (65, 33), (100, 17), (192, 576), (1, 1)])
def test_four_judges_agree(function, opset, K, N, tmp_path, library):
    model, codes, scale, bias = one_layer(function, K, N, opset, seed=K * 1000 + N)
    onnx.checker.check_model(model, full_check=True)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    random = np.random.default_rng(7)
    x = random.standard_normal((2, 5, K)).astype(np.float32)
    x[0, 1] = 0
    x[0, 2] *= 1e-42  # denormal
    x[0, 3] *= 1e30
    book = rows_by_the_book(x.reshape(-1, K), codes, scale, bias).reshape(2, 5, N)
    answers = {"reference": ReferenceEvaluator(model).run(None, {"X": x})[0],
               "body": session(path).run(None, {"X": x})[0],
               "kernel": session(path, library).run(None, {"X": x})[0]}
    for judge, y in answers.items():
        tolerance = 1e-5 * np.abs(book).max(axis=-1, keepdims=True) + 1e-6
        assert (np.abs(y - book) <= tolerance).all(), judge


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_rows_do_not_touch_others(function, bad, tmp_path, library):
    model, codes, scale, bias = one_layer(function, 70, 40, 18, seed=1)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    x = np.random.default_rng(3).standard_normal((1, 4, 70)).astype(np.float32)
    x[0, 2, 11] = bad
    book = rows_by_the_book(x[0], codes, scale, bias)
    for lib in (None, library):
        y = session(path, lib).run(None, {"X": x})[0][0]
        assert np.isnan(y[2]).all()
        assert np.allclose(np.delete(y, 2, 0), np.delete(book, 2, 0), rtol=1e-5, atol=1e-5)


def test_no_rows(function, tmp_path, library):
    model, *_ = one_layer(function, 70, 40, 18, seed=1)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    x = np.zeros((0, 3, 70), np.float32)
    for lib in (None, library):
        assert session(path, lib).run(None, {"X": x})[0].shape == (0, 3, 40)
