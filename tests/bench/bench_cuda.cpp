// Times the linear layers on a GPU beside cuBLASLt's products in float16 and int8, and prints JSON.
//
//   bench_cuda [--quick | --decode]      one size only; few rows only
//
// Every figure is the best of five replays of a captured graph of 50 or more launches, over copies
// of the weights that together exceed the second-level cache several times. "us" is the whole
// operator: float16 in, quantised, multiplied, scaled, float16 out; "product_us" leaves the
// quantisation out (measured alone, and taken off). "dequantise_cublasLt_us" is the straightforward
// way over the same copies of the same weights: a float16 matrix written anew by every call
// (dequantise.h; cleared first where blocks are left out), then cuBLASLt's fastest float16 product
// of this size; nothing quantised. "bytes" are the packed weights with their lists. "of_limit" is
// the share of what the card can do: bytes at the speed of a copy or, where that takes longer,
// operations at the speed of cuBLASLt's fastest int8 product. Where a library is absent its figures
// are, too.

#include <cublasLt.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/job.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/quantize.h"
#include "tests/bench/dequantise.h"
#include "tests/cuda/device_layer.h"

namespace sparsefuse::test {
namespace {

using nlohmann::json;

constexpr int64_t kColdBytes = int64_t{400} << 20;
constexpr int kLaunches = 56;

cudaStream_t stream;

// Seconds of one call of `launch(i)`, i counting up; the best of several replays.
double Seconds(const std::function<void(int)>& launch, int launches = kLaunches) {
  launch(0);
  SPARSEFUSE_CHECK_CUDA(cudaStreamSynchronize(stream));
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  SPARSEFUSE_CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < launches; ++i) launch(i);
  SPARSEFUSE_CHECK_CUDA(cudaStreamEndCapture(stream, &graph));
  SPARSEFUSE_CHECK_CUDA(cudaGraphInstantiate(&replay, graph, 0));
  cudaEvent_t before, after;
  SPARSEFUSE_CHECK_CUDA(cudaEventCreate(&before));
  SPARSEFUSE_CHECK_CUDA(cudaEventCreate(&after));
  float best = 1e30f;
  for (int i = 0; i < 6; ++i) {
    SPARSEFUSE_CHECK_CUDA(cudaEventRecord(before, stream));
    SPARSEFUSE_CHECK_CUDA(cudaGraphLaunch(replay, stream));
    SPARSEFUSE_CHECK_CUDA(cudaEventRecord(after, stream));
    SPARSEFUSE_CHECK_CUDA(cudaEventSynchronize(after));
    float ms;
    SPARSEFUSE_CHECK_CUDA(cudaEventElapsedTime(&ms, before, after));
    if (i > 0) best = std::min(best, ms);
  }
  cudaGraphExecDestroy(replay);
  cudaGraphDestroy(graph);
  cudaEventDestroy(before);
  cudaEventDestroy(after);
  return best * 1e-3 / launches;
}

double Rounded(double value) { return std::stod((std::ostringstream{} << value).str()); }

// --- cuBLASLt ---

void CheckLt(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    throw std::runtime_error(std::string(what) + ": status " + std::to_string(status));
  }
}

// Y[M, N] = X[M, K]·W[N, K]ᵀ.
struct Product {
  int64_t m, n, k;
  bool int8 = false;  // to int32; else float16 to float16
  auto operator<=>(const Product&) const = default;
};

struct Buffers {
  DeviceArray<std::byte> x, y, workspace;
  DeviceArray<__half> matrix;  // of dequantised weights
};
constexpr size_t kLtWorkspaceBytes = size_t{64} << 20;

class Lt {
 public:
  Lt() {
    for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"}) {
      if (!library_) library_ = dlopen(name, RTLD_NOW);
    }
    if (library_) {
      CheckLt(Find<decltype(&cublasLtCreate)>("cublasLtCreate")(&handle_), "cublasLtCreate");
    }
  }
  bool found() const { return library_ != nullptr; }

  // Best time of a call among the library's own first proposals; 0: it has none. Calls take the
  // weights in turn.
  double Time(const Product& product, const std::vector<void*>& weights, const Buffers& buffers) {
    const Prepared prepared = Prepare(product);
    double best = 0;
    for (const cublasLtMatmulAlgo_t& way : Ways(prepared)) {
      const double seconds = TimeWay(product, prepared, way, weights, buffers, nullptr);
      if (seconds > 0 && (best == 0 || seconds < best)) {
        best = seconds;
        fastest_[product] = way;
      }
    }
    return best;
  }

  // Time of before(call) and the product, in the way that Time found fastest; 0: it found none.
  double TimeAfter(const std::function<void(int)>& before, const Product& product, void* weights,
                   const Buffers& buffers) {
    const auto way = fastest_.find(product);
    if (way == fastest_.end()) return 0;
    return TimeWay(product, Prepare(product), way->second, {weights}, buffers, before);
  }

 private:
  struct Prepared {
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c;
  };

  // Lasts until the process ends.
  Prepared Prepare(const Product& product) {
    const cudaDataType in = product.int8 ? CUDA_R_8I : CUDA_R_16F;
    const cudaDataType out = product.int8 ? CUDA_R_32I : CUDA_R_16F;
    Prepared prepared{};
    CheckLt(Find<decltype(&cublasLtMatmulDescCreate)>("cublasLtMatmulDescCreate")(
                &prepared.product, product.int8 ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F,
                product.int8 ? CUDA_R_32I : CUDA_R_32F),
            "cublasLtMatmulDescCreate");
    const cublasOperation_t transpose = CUBLAS_OP_T;
    CheckLt(Find<decltype(&cublasLtMatmulDescSetAttribute)>("cublasLtMatmulDescSetAttribute")(
                prepared.product, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof transpose),
            "cublasLtMatmulDescSetAttribute");
    const auto layout = Find<decltype(&cublasLtMatrixLayoutCreate)>("cublasLtMatrixLayoutCreate");
    const auto m = static_cast<uint64_t>(product.m), n = static_cast<uint64_t>(product.n),
               k = static_cast<uint64_t>(product.k);
    CheckLt(layout(&prepared.a, in, k, n, product.k), "cublasLtMatrixLayoutCreate");
    CheckLt(layout(&prepared.b, in, k, m, product.k), "cublasLtMatrixLayoutCreate");
    CheckLt(layout(&prepared.c, out, n, m, product.n), "cublasLtMatrixLayoutCreate");
    return prepared;
  }

  // The library's first proposals.
  std::vector<cublasLtMatmulAlgo_t> Ways(const Prepared& prepared) {
    cublasLtMatmulPreference_t preference;
    CheckLt(Find<decltype(&cublasLtMatmulPreferenceCreate)>("cublasLtMatmulPreferenceCreate")(
                &preference),
            "cublasLtMatmulPreferenceCreate");
    CheckLt(Find<decltype(&cublasLtMatmulPreferenceSetAttribute)>(
                "cublasLtMatmulPreferenceSetAttribute")(
                preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kLtWorkspaceBytes,
                sizeof kLtWorkspaceBytes),
            "cublasLtMatmulPreferenceSetAttribute");
    std::array<cublasLtMatmulHeuristicResult_t, 8> proposals{};
    int found = 0;
    // An error here means that there are none.
    if (Find<decltype(&cublasLtMatmulAlgoGetHeuristic)>("cublasLtMatmulAlgoGetHeuristic")(
            handle_, prepared.product, prepared.a, prepared.b, prepared.c, prepared.c, preference,
            static_cast<int>(proposals.size()), proposals.data(),
            &found) != CUBLAS_STATUS_SUCCESS) {
      return {};
    }
    std::vector<cublasLtMatmulAlgo_t> ways;
    for (int i = 0; i < found; ++i) ways.push_back(proposals[static_cast<size_t>(i)].algo);
    return ways;
  }

  // 0: the way does not work.
  double TimeWay(const Product& product, const Prepared& prepared, const cublasLtMatmulAlgo_t& way,
                 const std::vector<void*>& weights, const Buffers& buffers,
                 const std::function<void(int)>& before) {
    const auto multiply = Find<decltype(&cublasLtMatmul)>("cublasLtMatmul");
    const float one = 1, zero = 0;
    const int32_t int_one = 1, int_zero = 0;
    bool works = true;
    const auto run = [&](int call) {
      if (before) before(call);
      works &=
          multiply(handle_, prepared.product,
                   product.int8 ? static_cast<const void*>(&int_one) : &one,
                   weights[static_cast<size_t>(call) % weights.size()], prepared.a, buffers.x.get(),
                   prepared.b, product.int8 ? static_cast<const void*>(&int_zero) : &zero,
                   buffers.y.get(), prepared.c, buffers.y.get(), prepared.c, &way,
                   buffers.workspace.get(), kLtWorkspaceBytes, stream) == CUBLAS_STATUS_SUCCESS;
    };
    run(0);
    if (!works) return 0;
    const double seconds = Seconds(run);
    return works ? seconds : 0;
  }

  template <typename Function>
  Function Find(const char* name) {
    void* symbol = dlsym(library_, name);
    if (!symbol) throw std::runtime_error(std::string("cuBLASLt has no ") + name);
    return reinterpret_cast<Function>(symbol);
  }
  void* library_ = nullptr;
  cublasLtHandle_t handle_ = nullptr;
  std::map<Product, cublasLtMatmulAlgo_t> fastest_;
};

// --- Our layers ---

struct Case {
  Encoding encoding;
  int64_t side;  // of zero squares; 32: panels with any quads; 0: dense
  double density;
  double zeros = 0;  // share of the inputs that are 0 in every row
};

const char* NameOf(Encoding encoding) {
  constexpr const char* kNames[] = {"int8", "int4", "nested1", "nested4"};
  return kNames[static_cast<int>(encoding)];
}

std::vector<std::byte> RandomBytes(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i + 4 <= count; i += 4) {
    const auto word = static_cast<uint32_t>(random());
    std::memcpy(&bytes[i], &word, 4);
  }
  return bytes;
}

// float16, at most 16 rows; every row is 0 at the same inputs.
std::vector<std::byte> SparseRows(int64_t inputs, double zeros) {
  std::vector<std::byte> x = RandomBytes(static_cast<size_t>(16 * inputs * 2), 3);
  std::mt19937 random(5);
  std::bernoulli_distribution is_zero(zeros);
  for (int64_t k = 0; k < inputs; ++k) {
    const bool zero = is_zero(random);
    for (int64_t row = 0; row < 16; ++row) {
      auto* const value = &x[static_cast<size_t>(2 * (row * inputs + k))];
      value[1] &= std::byte{0xbb};  // of moderate size
      if (zero) value[0] = value[1] = std::byte{0};
    }
  }
  return x;
}

// Lists of kept quads, the same number in every panel.
void MakeBlocks(int64_t inputs, int64_t outputs, const Case& c, std::vector<uint16_t>& quad,
                std::vector<int32_t>& group_ptr) {
  std::mt19937 random(7);
  const int64_t groups = inputs / kGroupInputs, panels = PanelCount(outputs);
  const int64_t unit = c.side == 32 ? 1 : kGroupQuads * (c.side / 64);  // quads that go together
  const int64_t units = groups * kGroupQuads / unit;
  const auto kept = static_cast<size_t>(static_cast<double>(units) * c.density + 0.5);
  std::vector<int64_t> order(static_cast<size_t>(units));
  group_ptr = {0};
  for (int64_t p = 0; p < panels; ++p) {
    if (p * kPanelOutputs % std::max<int64_t>(c.side, 32) == 0) {
      for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
      std::shuffle(order.begin(), order.end(), random);
      std::sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(kept));
    }
    for (size_t i = 0; i < kept; ++i) {
      for (int64_t q = 0; q < unit; ++q) quad.push_back(static_cast<uint16_t>(order[i] * unit + q));
    }
    while (quad.size() % kGroupQuads != 0) quad.push_back(static_cast<uint16_t>(inputs / 4));
    group_ptr.push_back(static_cast<int32_t>(quad.size() / kGroupQuads));
  }
}

// Every call writes the float16 matrix of the next copy, then multiplies by it.
double TimeDequantised(const std::vector<cuda::Layer>& layers, bool high_only, int64_t rows,
                       const Buffers& buffers, Lt& lt) {
  const auto dequantise = [&](int call) {
    const cuda::Layer& layer = layers[static_cast<size_t>(call) % layers.size()];
    const LinearShape& shape = layer.weights.shape;
    if (shape.sparse) {
      SPARSEFUSE_CHECK_CUDA(cudaMemsetAsync(
          buffers.matrix.get(), 0,
          static_cast<size_t>(shape.inputs * shape.outputs) * sizeof(__half), stream));
    }
    SPARSEFUSE_CHECK_CUDA(LaunchDequantise({.encoding = shape.encoding,
                                            .high_only = high_only,
                                            .inputs = shape.inputs,
                                            .outputs = shape.outputs,
                                            .scale_groups = shape.scale_groups,
                                            .weight = layer.weights.weight,
                                            .plane_bytes = layer.plane_bytes,
                                            .quad = layer.weights.blocks.quad,
                                            .group_ptr = layer.group_ptr,
                                            .scale_ptr = layer.scale_ptr,
                                            .scale = layer.scale},
                                           buffers.matrix.get(), stream));
  };
  const LinearShape& shape = layers[0].weights.shape;
  return lt.TimeAfter(dequantise, {rows, shape.outputs, shape.inputs}, buffers.matrix.get(),
                      buffers);
}

json TimeLayer(int64_t inputs, int64_t outputs, const Case& c, const std::vector<int64_t>& rows,
               const std::vector<GateMode>& gates, const Buffers& buffers, Lt& lt, double copy) {
  std::vector<uint16_t> quad;
  std::vector<int32_t> group_ptr;
  LinearShape shape{inputs, outputs, 0, c.encoding, c.side > 0};
  if (shape.sparse) {
    MakeBlocks(inputs, outputs, c, quad, group_ptr);
  } else if (c.encoding != Encoding::kInt8) {
    shape.scale_groups = 8;
  }
  shape.zero_inputs = static_cast<float>(c.zeros);
  int32_t workers;
  SPARSEFUSE_CHECK_CUDA(cuda::SuggestWorkers(&workers));
  const cuda::Plan plan =
      cuda::MakePlan(shape, {shape.sparse ? quad.data() : nullptr, group_ptr.data()}, workers);
  const auto bytes = static_cast<size_t>(plan.group_ptr.back() * GroupBytes(c.encoding));
  const size_t all_bytes = bytes + quad.size() * 2;
  const int copies = static_cast<int>(kColdBytes / static_cast<int64_t>(all_bytes)) + 2;

  const std::vector<std::byte> packed = RandomBytes(bytes, 1);
  const std::vector<uint8_t> codes(static_cast<size_t>(plan.scale_ptr.back() * 32), 100);
  const DeviceArray<uint8_t> scale_code(codes);
  const DeviceArray<float> bias(std::vector<float>(static_cast<size_t>(outputs), 0.5f));
  const DeviceArray<float> smooth(std::vector<float>(static_cast<size_t>(inputs), 1.0f));
  const DeviceArray<float> gate(std::vector<float>{0, 0, 1, 0});  // every row is easy
  std::vector<std::unique_ptr<DeviceArray<std::byte>>> weights, prepared;
  std::vector<std::unique_ptr<DeviceArray<uint16_t>>> quads;
  const DeviceArray<int32_t> ptr(group_ptr);
  std::vector<cuda::Layer> layers(static_cast<size_t>(copies));
  for (int i = 0; i < copies; ++i) {
    weights.push_back(std::make_unique<DeviceArray<std::byte>>(packed));
    quads.push_back(std::make_unique<DeviceArray<uint16_t>>(quad));
    prepared.push_back(std::make_unique<DeviceArray<std::byte>>(cuda::PreparedBytes(plan)));
    const LinearWeights w{.shape = shape,
                          .weight = weights.back()->get(),
                          .scale_code = scale_code.get(),
                          .scale_base = 1e-5f,  // ordinary numbers in float16, too
                          .bias = bias.get(),
                          .smooth = smooth.get(),
                          .blocks = {shape.sparse ? quads.back()->get() : nullptr, ptr.get()},
                          .gate = IsNested(c.encoding) ? gate.get() : nullptr};
    SPARSEFUSE_CHECK_CUDA(
        cuda::Prepare(w, plan, prepared.back()->get(), stream, &layers[static_cast<size_t>(i)]));
  }
  SPARSEFUSE_CHECK_CUDA(cudaStreamSynchronize(stream));

  const DeviceArray<std::byte> sparse_rows(c.zeros > 0 ? SparseRows(inputs, c.zeros)
                                                       : std::vector<std::byte>());
  json results = json::array();
  for (const int64_t m : rows) {
    for (const GateMode mode : gates) {
      cuda::Run run{.rows = m,
                    .x = c.zeros > 0 ? sparse_rows.get() : buffers.x.get(),
                    .y = buffers.y.get(),
                    .half = true,
                    .gate = mode,
                    .workspace = buffers.workspace.get()};
      const double seconds = Seconds([&](int i) {
        SPARSEFUSE_CHECK_CUDA(cuda::Linear(layers[static_cast<size_t>(i % copies)], run, stream));
      });
      const auto stride = (GroupsPerPanel(inputs) + 1) * kGroupInputs;
      auto* const w = buffers.workspace.get();
      const double quantise = Seconds([&](int) {
        SPARSEFUSE_CHECK_CUDA(cuda::LaunchQuantize(
            {.x = run.x,
             .half = true,
             .smooth = smooth.get(),
             .gate = gate.get(),
             .inputs = inputs,
             .codes = reinterpret_cast<int8_t*>(w),
             .codes_stride = stride,
             .tiled = false,
             .row_scale = reinterpret_cast<float*>(w + m * stride),
             .easy = mode == GateMode::kOff ? nullptr
                                            : reinterpret_cast<int32_t*>(w + m * (stride + 4)),
             .counts = nullptr,
             .counter = reinterpret_cast<int32_t*>(w + m * (stride + 8)),
             .counters = layers[0].panels * cuda::kArrivals},
            m, layers[0].overlaps_launches, stream));
      });
      const bool high_only = mode != GateMode::kOff;
      const bool skips = c.zeros > 0 && cuda::SkipsZeros(shape, m);
      const double read = (skips ? 1 - c.zeros : 1) *
                          static_cast<double>(high_only ? bytes / 2 + quad.size() * 2 : all_bytes);
      const double operations =
          2.0 * static_cast<double>(m) * static_cast<double>(plan.group_ptr.back()) * kGroupWeights;
      results.push_back({{"K", inputs},
                         {"N", outputs},
                         {"M", m},
                         {"encoding", NameOf(c.encoding)},
                         {"block", c.side},
                         {"density", c.density},
                         {"zero_inputs", c.zeros},
                         {"reading", high_only ? 4 : 8},
                         {"us", Rounded(seconds * 1e6)},
                         {"product_us", Rounded((seconds - quantise) * 1e6)},
                         {"quantise_us", Rounded(quantise * 1e6)},
                         {"bytes", read},
                         {"GB/s", Rounded(read / seconds * 1e-9)},
                         {"of_copy", Rounded(read / seconds / copy)},
                         {"TOPS", Rounded(operations / seconds * 1e-12)}});
      const double dequantised = TimeDequantised(layers, high_only, m, buffers, lt);
      if (dequantised > 0) {
        results.back()["dequantise_cublasLt_us"] = Rounded(dequantised * 1e6);
      }
    }
  }
  return results;
}

int Main(bool quick, bool decode) {
  SPARSEFUSE_CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  cudaDeviceProp device;
  SPARSEFUSE_CHECK_CUDA(cudaGetDeviceProperties(&device, 0));
  json report{{"card", device.name}, {"multiprocessors", device.multiProcessorCount}};

  constexpr size_t kCopied = size_t{1} << 31;
  double copy = 0;
  {
    const DeviceArray<std::byte> from(kCopied), to(kCopied);
    cudaEvent_t before, after;
    SPARSEFUSE_CHECK_CUDA(cudaEventCreate(&before));
    SPARSEFUSE_CHECK_CUDA(cudaEventCreate(&after));
    for (int i = 0; i < 6; ++i) {
      SPARSEFUSE_CHECK_CUDA(cudaEventRecord(before, stream));
      SPARSEFUSE_CHECK_CUDA(
          cudaMemcpyAsync(to.get(), from.get(), kCopied, cudaMemcpyDeviceToDevice, stream));
      SPARSEFUSE_CHECK_CUDA(cudaEventRecord(after, stream));
      SPARSEFUSE_CHECK_CUDA(cudaEventSynchronize(after));
      float ms;
      SPARSEFUSE_CHECK_CUDA(cudaEventElapsedTime(&ms, before, after));
      copy = std::max(copy, 2.0 * kCopied / (ms * 1e-3));
    }
  }
  report["copy_GB/s"] = Rounded(copy * 1e-9);

  Buffers buffers{DeviceArray<std::byte>(size_t{4096} * 28672 * 2),
                  DeviceArray<std::byte>(size_t{4096} * 28672 * 4),
                  DeviceArray<std::byte>(size_t{512} << 20),
                  DeviceArray<__half>(size_t{8192} * 28672)};
  {
    const std::vector<std::byte> bytes = RandomBytes(size_t{64} << 20, 3);
    std::vector<std::byte> x(bytes);
    for (size_t i = 1; i < x.size(); i += 2) x[i] &= std::byte{0xbb};  // float16 of moderate size
    SPARSEFUSE_CHECK_CUDA(cudaMemcpy(buffers.x.get(), x.data(), x.size(), cudaMemcpyHostToDevice));
  }

  Lt lt;
  if (!lt.found()) report["cublasLt"] = "not found";
  const std::vector<int64_t> few = {1, 8}, many = {512, 4096};
  json& ours = report["ours"] = json::array();
  json& baseline = report["cublasLt_us"] = json::array();
  double most_operations = 0;  // per second, of int8 products of many rows
  for (const std::array<int64_t, 2>& size : {std::array<int64_t, 2>{4096, 14336}, {8192, 28672}}) {
    const int64_t inputs = size[0], outputs = size[1];
    if (quick && inputs == 8192) continue;
    if (lt.found()) {
      const auto half_bytes = static_cast<size_t>(inputs * outputs * 2);
      const int copies = static_cast<int>(kColdBytes / static_cast<int64_t>(half_bytes)) + 2;
      const std::vector<std::byte> values = RandomBytes(half_bytes, 2);
      std::vector<std::byte> halves(values);
      for (size_t i = 1; i < halves.size(); i += 2) halves[i] &= std::byte{0xbb};
      std::vector<std::unique_ptr<DeviceArray<std::byte>>> arrays;
      std::vector<void*> pointers;
      for (int i = 0; i < copies; ++i) {
        arrays.push_back(std::make_unique<DeviceArray<std::byte>>(halves));
        pointers.push_back(arrays.back()->get());
      }
      for (const int64_t m : {1, 8, 16, 512, 4096}) {
        json point{{"K", inputs}, {"N", outputs}, {"M", m}};
        if (decode && m > 16) continue;
        for (const bool int8 : {false, true}) {
          const double seconds = lt.Time({m, outputs, inputs, int8}, pointers, buffers);
          if (seconds == 0) continue;
          point[int8 ? "int8" : "float16"] = Rounded(seconds * 1e6);
          if (int8 && m > 16) {
            most_operations = std::max(most_operations,
                                       2.0 * static_cast<double>(m * outputs * inputs) / seconds);
          }
        }
        baseline.push_back(point);
      }
    }
    const auto add = [&](const Case& c, std::vector<int64_t> rows, bool gated = false) {
      if (decode) std::erase_if(rows, [](int64_t m) { return m > 16; });
      const std::vector<GateMode> gates =
          gated ? std::vector{GateMode::kAlways} : std::vector{GateMode::kOff};
      for (json& point : TimeLayer(inputs, outputs, c, rows, gates, buffers, lt, copy)) {
        ours.push_back(point);
      }
    };
    add({Encoding::kInt8, 0, 1}, {1, 8, 16, 512, 4096});
    add({Encoding::kInt8, 128, 0.5}, {1, 8, 512, 4096});
    add({Encoding::kInt8, 32, 0.5}, {1, 8, 512, 4096});
    add({Encoding::kNested4, 128, 0.5}, few, true);
    add({Encoding::kNested4, 0, 1}, few, true);
    add({Encoding::kInt4, 0, 1}, {1, 8, 512});
    for (const double zeros : {0.5, 0.9, 0.98}) add({Encoding::kInt8, 0, 1, zeros}, {1, 8});
    add({Encoding::kInt4, 0, 1, 0.9}, {1});
    if (quick) continue;
    add({Encoding::kInt8, 64, 0.5}, many);
    add({Encoding::kInt8, 128, 0.2}, {1, 8, 512, 4096});
    add({Encoding::kInt8, 128, 0.8}, many);
    add({Encoding::kInt8, 32, 0.2}, {1, 8, 512, 4096});
    add({Encoding::kNested4, 0, 1}, {1, 8, 512, 4096});
    add({Encoding::kNested1, 0, 1}, {1, 512});
    add({Encoding::kInt4, 128, 0.5}, {1, 8, 512, 4096});
  }
  if (most_operations > 0) report["product_TOPS"] = Rounded(most_operations * 1e-12);
  for (json& point : ours) {
    const double of_product =
        most_operations > 0 ? point["TOPS"].get<double>() * 1e12 / most_operations : 0;
    point["of_limit"] = Rounded(std::max(point["of_copy"].get<double>(), of_product));
  }
  std::printf("{\n");
  for (auto it = report.begin(); it != report.end(); ++it) {
    const bool last = std::next(it) == report.end();
    if (!it->is_array()) {
      std::printf(" \"%s\": %s%s\n", it.key().c_str(), it->dump().c_str(), last ? "" : ",");
      continue;
    }
    std::printf(" \"%s\": [\n", it.key().c_str());
    for (size_t i = 0; i < it->size(); ++i) {
      std::printf("  %s%s\n", (*it)[i].dump().c_str(), i + 1 < it->size() ? "," : "");
    }
    std::printf(" ]%s\n", last ? "" : ",");
  }
  std::printf("}\n");
  return 0;
}

}  // namespace
}  // namespace sparsefuse::test

int main(int argc, char** argv) {
  try {
    const auto has = [&](const char* flag) { return argc > 1 && std::strcmp(argv[1], flag) == 0; };
    return sparsefuse::test::Main(has("--quick"), has("--decode"));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
