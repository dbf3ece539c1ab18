"""Our GPU kernels beside what else multiplies on the same GPU: one run, one JSON document.

  python tests/bench/cuda_baselines.py [--quick | --decode] [--bench-cuda build/release/bin/bench_cuda]

"bench_cuda" is that program's document: ours, cuBLASLt's products, dequantising and multiplying.
"torch": float16 matmul, int8 (torch._int_mm), 2:4 and block-sparse (BSR) float16, 4-bit weights with
bfloat16 activations. "onnxruntime": MatMul and MatMulNBits (4 bits, blocks of 32, accuracy level by
default) of the CUDA provider, float16. --quick: one size only; --decode: few rows only, as bench_cuda
has them. Weights are random. Whatever is not installed or fails is in the document with the reason,
{"skipped": …}; the exit code is 1 if nothing was measured.

Like bench_cuda, torch's figures are the best of five replays of a captured graph of 56 calls over copies
of the weights that together exceed 400 MB. ONNX Runtime gets a model of as many nodes as there are copies,
captured by the provider: the best of five times 50 runs by the wall clock, X and outputs on the device.
"GB/s" counts the weights' bytes, "of_copy" is their share of bench_cuda's measured copy.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZES = ((4096, 14336), (8192, 28672))  # K, N: bench_cuda's
ROWS = (1, 8, 16, 512, 4096)
COLD_BYTES = 400 << 20
CALLS, REPEATS, RUNS = 56, 5, 50
GROUP = 32  # weights of a scale in 4 bits


def copies_of(weight_bytes):
    return COLD_BYTES // weight_bytes + 2


def reason(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def point(name, k, n, rows, weight_bytes, seconds, density=1.0):
    """A measurement, with what follows from it."""
    return {"name": name, "K": k, "N": n, "M": rows, "us": seconds * 1e6, "bytes": weight_bytes,
            "GB/s": weight_bytes / seconds * 1e-9, "TOPS": 2e-12 * rows * k * n * density / seconds}


def bench_cuda(program, flags):
    if not program.exists():
        return {"skipped": f"there is no {program}"}
    result = subprocess.run([str(program), *flags], capture_output=True, text=True)
    if result.returncode != 0:
        return {"skipped": reason(result.stderr or f"exit code {result.returncode}")}
    return json.loads(result.stdout)


# --- torch


def torch_seconds(torch, call):
    """Of one call(i), i counting up; the best of several replays."""
    for i in range(3):
        call(i)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(CALLS):
            call(i)
    best = float("inf")
    for repeat in range(1 + REPEATS):
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        graph.replay()
        after.record()
        after.synchronize()
        if repeat > 0:
            best = min(best, before.elapsed_time(after) * 1e-3 / CALLS)
    return best


def float16(torch, k, n):
    return torch.randn(n, k, dtype=torch.float16, device="cuda")


def int8_copy(torch, k, n):
    weight = torch.randint(-127, 128, (n, k), dtype=torch.int8, device="cuda")
    return lambda x: torch._int_mm(x, weight.t())


def semi_structured_copy(torch, k, n):
    weight = float16(torch, k, n)
    mask = torch.tensor([1, 1, 0, 0], dtype=torch.bool, device="cuda").repeat(k // 4)
    sparse = torch.sparse.to_sparse_semi_structured(weight * mask)
    return lambda x: torch.nn.functional.linear(x, sparse)


def bsr_copy(torch, k, n, side, density):
    blocks = torch.rand(n // side, k // side, device="cuda") < density
    mask = blocks.repeat_interleave(side, 0).repeat_interleave(side, 1)
    sparse = (float16(torch, k, n) * mask).to_sparse_bsr((side, side))
    return lambda x: torch.nn.functional.linear(x, sparse)


def float16_copy(torch, k, n):
    weight = float16(torch, k, n)
    return lambda x: torch.matmul(x, weight.t())


def int4_copy(torch, k, n):
    codes = torch.randint(0, 256, (n, k // 2), dtype=torch.uint8, device="cuda")
    packed = torch._convert_weight_to_int4pack(codes, 8)
    scales = torch.rand(k // GROUP, n, 2, dtype=torch.bfloat16, device="cuda")
    return lambda x: torch._weight_int4pack_mm(x, packed, GROUP, scales)


def torch_contestants(k, n):
    """(name, bytes of the weights, share of the products computed, x's type, least rows, how a copy is made)."""
    weights = k * n
    yield "float16", 2 * weights, 1, "float16", 1, float16_copy
    yield "int8, _int_mm", weights, 1, "int8", 17, int8_copy
    yield ("float16, 2:4", weights + weights // 8, 0.5, "float16", 1, semi_structured_copy)
    for side, density in ((128, 0.5), (128, 0.2), (64, 0.5)):
        yield (f"float16, BSR {side}x{side} at {density:.0%}", int(2 * weights * density), density, "float16", 1,
               lambda torch, k, n, side=side, density=density: bsr_copy(torch, k, n, side, density))
    yield (f"int4, groups of {GROUP}, bfloat16", weights // 2 + 4 * weights // GROUP, 1, "bfloat16", 1,
           int4_copy)


def torch_points(torch, sizes, rows):
    for k, n in sizes:
        for name, weight_bytes, density, dtype, least, make in torch_contestants(k, n):
            try:
                copies = [make(torch, k, n) for _ in range(copies_of(weight_bytes))]
            except Exception as error:  # noqa: BLE001: a baseline that fails is a result
                yield {"name": name, "K": k, "N": n, "skipped": reason(error)}
                continue
            for m in rows:
                if m < least:
                    yield {"name": name, "K": k, "N": n, "M": m,
                           "skipped": f"takes {least} rows or more"}
                    continue
                x = torch.randn(m, k, device="cuda").mul(30 if dtype == "int8" else 1)
                x = x.to(getattr(torch, dtype))
                try:
                    seconds = torch_seconds(torch, lambda i: copies[i % len(copies)](x))
                except Exception as error:  # noqa: BLE001: a baseline that fails is a result
                    yield {"name": name, "K": k, "N": n, "M": m, "skipped": reason(error)}
                    continue
                yield point(name, k, n, m, weight_bytes, seconds, density)
            del copies
            torch.cuda.empty_cache()


def run_torch(sizes, rows):
    try:
        import torch
    except ImportError as error:
        return {"skipped": reason(error)}
    if not torch.cuda.is_available():
        return {"skipped": f"torch {torch.__version__} finds no CUDA device"}
    with torch.no_grad():
        return {"version": torch.__version__, "card": torch.cuda.get_device_name(0),
                "points": list(torch_points(torch, sizes, rows))}


# --- ONNX Runtime


def nbits_weight(codes, scales):
    """Codes 0 … 15 [N, K], which stand for code − 8, and scales [N, K/GROUP] → MatMulNBits' B and scales."""
    n, k = codes.shape
    blocks = codes.reshape(n, k // GROUP, GROUP)
    return blocks[..., ::2] | blocks[..., 1::2] << 4, scales.reshape(-1)


def ort_model(kind, k, n, constants):
    """One node for each of `constants`, a tuple of arrays, all of input X: outputs Y0, Y1, …"""
    from onnx import TensorProto, helper, numpy_helper
    nodes, initializers, outputs = [], [], []
    for i, arrays in enumerate(constants):
        names = [f"{letter}{i}" for letter, _ in zip("ws", arrays)]
        initializers += [numpy_helper.from_array(a, name) for a, name in zip(arrays, names)]
        if kind == "MatMulNBits":
            node = helper.make_node(kind, ["X", *names], [f"Y{i}"], name=f"node{i}", domain="com.microsoft",
                                    K=k, N=n, bits=4, block_size=GROUP)
        else:
            node = helper.make_node(kind, ["X", *names], [f"Y{i}"], name=f"node{i}")
        nodes.append(node)
        outputs.append(helper.make_tensor_value_info(f"Y{i}", TensorProto.FLOAT16, ["rows", n]))
    x = helper.make_tensor_value_info("X", TensorProto.FLOAT16, ["rows", k])
    return helper.make_model(helper.make_graph(nodes, "baseline", [x], outputs, initializers),
                             opset_imports=[helper.make_opsetid("", 17),
                                            helper.make_opsetid("com.microsoft", 1)], ir_version=8)


def random_constants(numpy, kind, k, n, random):
    if kind == "MatMulNBits":
        codes = random.integers(0, 16, (n, k), numpy.uint8)
        scales = random.random((n, k // GROUP), numpy.float32).astype(numpy.float16)
        return nbits_weight(codes, scales)
    return (random.random((k, n), numpy.float32).astype(numpy.float16),)


def ort_session(ort, model):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = ort.InferenceSession(model.SerializeToString(), options,
                                   providers=[("CUDAExecutionProvider", {"enable_cuda_graph": "1"})])
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise RuntimeError("ONNX Runtime left the CUDA provider out: it does not load here")
    return session


def ort_seconds(ort, numpy, session, k, n, rows, nodes):
    """Of one node."""
    x = numpy.random.default_rng(7).standard_normal((rows, k), numpy.float32).astype(numpy.float16)
    binding = session.io_binding()
    kept = [ort.OrtValue.ortvalue_from_numpy(x, "cuda", 0)]
    binding.bind_ortvalue_input("X", kept[0])
    for i in range(nodes):
        kept.append(ort.OrtValue.ortvalue_from_shape_and_type([rows, n], numpy.float16, "cuda", 0))
        binding.bind_ortvalue_output(f"Y{i}", kept[-1])
    session.run_with_iobinding(binding)  # captures
    options = ort.RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    best = float("inf")
    for _ in range(1 + REPEATS):
        binding.synchronize_outputs()
        start = time.perf_counter()
        for _ in range(RUNS):
            session.run_with_iobinding(binding, options)
        binding.synchronize_outputs()
        best = min(best, (time.perf_counter() - start) / RUNS / nodes)
    return best


def ort_points(ort, numpy, sizes, rows):
    random = numpy.random.default_rng(1)
    for k, n in sizes:
        for name, kind, weight_bytes in (
                ("MatMul, float16", "MatMul", 2 * k * n),
                (f"MatMulNBits, 4 bits, blocks of {GROUP}", "MatMulNBits", k * n // 2 + 2 * k * n // GROUP)):
            nodes = copies_of(weight_bytes)
            model = ort_model(kind, k, n, [random_constants(numpy, kind, k, n, random)] * nodes)
            for m in rows:
                try:
                    # A session for each number of rows: a captured graph has one shape.
                    session = ort_session(ort, model)
                    seconds = ort_seconds(ort, numpy, session, k, n, m, nodes)
                except Exception as error:  # noqa: BLE001: a baseline that fails is a result
                    yield {"name": name, "K": k, "N": n, "M": m, "skipped": reason(error)}
                    continue
                yield point(name, k, n, m, weight_bytes, seconds) | {"nodes": nodes}


def run_onnxruntime(sizes, rows):
    try:
        import numpy
        import onnx  # noqa: F401: ort_model needs it
        import onnxruntime as ort
    except ImportError as error:
        return {"skipped": reason(error)}
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return {"skipped": f"onnxruntime {ort.__version__} has no CUDA provider"}
    return {"version": ort.__version__, "points": list(ort_points(ort, numpy, sizes, rows))}


def add_shares(document):
    copy = document["bench_cuda"].get("copy_GB/s")
    for part in ("torch", "onnxruntime"):
        for p in document[part].get("points", []):
            if copy and "GB/s" in p:
                p["of_copy"] = p["GB/s"] / copy


def is_measured(part):
    return "skipped" not in part and any("us" in p for p in part.get("points", [{"us": 0}]))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="one size only")
    which.add_argument("--decode", action="store_true", help="few rows only")
    parser.add_argument("--bench-cuda", type=pathlib.Path, default=ROOT / "build/release/bin/bench_cuda")
    args = parser.parse_args()
    sizes = SIZES[:1] if args.quick else SIZES
    rows = [m for m in ROWS if m <= 16] if args.decode else ROWS
    flags = ["--quick"] if args.quick else ["--decode"] if args.decode else []
    document = {"bench_cuda": bench_cuda(args.bench_cuda, flags), "torch": run_torch(sizes, rows),
                "onnxruntime": run_onnxruntime(sizes, rows)}
    add_shares(document)
    print(json.dumps(document, indent=1))
    if not any(is_measured(part) for part in document.values()):
        why = "; ".join(f"{name}: {part.get('skipped', 'every case failed')}"
                        for name, part in document.items())
        print(f"cuda_baselines: nothing was measured ({why})", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
