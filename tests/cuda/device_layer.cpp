#include "tests/cuda/device_layer.h"

#include <algorithm>

#include "kernels/base/float16.h"

namespace sparsefuse::test {
namespace {

constexpr size_t kCanary = 64;  // elements behind Y
constexpr int kPoison = 0xc5;

cuda::Plan PlanOf(const LinearLayer& layer, int32_t workers, int32_t most_panels = 4) {
  if (workers == 0) SPARSEFUSE_CHECK_CUDA(cuda::SuggestWorkers(&workers));
  return cuda::MakePlan(layer.shape, layer.weights().blocks, workers, most_panels);
}

cuda::Code::Found FoundFor(const LinearLayer& layer, const cuda::Code& code, Activation activation,
                           bool half) {
  const cuda::Code::Found found = code.Find(layer.shape, PlanOf(layer, 0), activation, half);
  if (!found.made.decode8 || !found.made.decode16 || !found.made.prefill) {
    throw std::runtime_error("a kernel is missing in the compiled code");
  }
  return found;
}

}  // namespace

DeviceLayer::DeviceLayer(const LinearLayer& layer, int32_t workers, KernelSet kernels)
    : DeviceLayer(layer, PlanOf(layer, workers)) {
  if (kernels == KernelSet::kPortable) {
    layer_.is_sm90 = false;
    layer_.room = cuda::Room::kSmall;
  }
}

DeviceLayer::DeviceLayer(const LinearLayer& layer, const cuda::Code& code, Activation activation,
                         bool half)
    : DeviceLayer(layer, PlanOf(layer, 0, FoundFor(layer, code, activation, half).tile_panels)) {
  layer_.made = FoundFor(layer, code, activation, half).made;
}

DeviceLayer::DeviceLayer(const LinearLayer& layer, cuda::Plan plan)
    : shape_(layer.shape),
      plan_(std::move(plan)),
      packed_(layer.packed),
      scale_code_(layer.scale_code),
      bias_(layer.bias),
      smooth_(layer.smooth),
      gate_(layer.gate),
      quad_(layer.quad),
      group_ptr_(layer.group_ptr),
      prepared_(cuda::PreparedBytes(plan_)) {
  const LinearWeights weights = {
      .shape = layer.shape,
      .weight = packed_.get(),
      .scale_code = scale_code_.get(),
      .scale_base = layer.scale_base,
      .bias = bias_.get(),
      .smooth = layer.smooth.empty() ? nullptr : smooth_.get(),
      .blocks = {.quad = layer.shape.sparse ? quad_.get() : nullptr, .group_ptr = group_ptr_.get()},
      .gate = layer.gate.empty() ? nullptr : gate_.get()};
  SPARSEFUSE_CHECK_CUDA(cuda::Prepare(weights, plan_, prepared_.get(), nullptr, &layer_));
  SPARSEFUSE_CHECK_CUDA(cudaDeviceSynchronize());
}

template <typename T>
std::vector<T> DeviceLayer::RunElements(const std::vector<T>& x, cuda::Run run,
                                        int64_t* easy_rows) const {
  const auto count = static_cast<size_t>(run.rows * shape_.outputs);
  DeviceArray<T> device_x(x), y(count + kCanary);
  DeviceArray<cuda::GateCounts> counts(1);
  DeviceArray<std::byte> workspace(cuda::WorkspaceBytes(layer_, run.rows));
  y.Fill(kPoison);
  workspace.Fill(kPoison);
  counts.Fill(0);
  run.x = device_x.get();
  run.y = y.get();
  run.gate_counts = counts.get();
  run.workspace = workspace.get();
  SPARSEFUSE_CHECK_CUDA(cuda::Linear(layer_, run, nullptr));
  SPARSEFUSE_CHECK_CUDA(cudaDeviceSynchronize());
  const cuda::GateCounts counted = counts.Read()[0];
  const bool gated = layer_.weights.gate && IsGated(run.gate, run.rows);
  if (counted.rows != static_cast<unsigned long long>(gated ? run.rows : 0)) {
    throw std::runtime_error("rows that a gate judged are counted wrong");
  }
  if (easy_rows) *easy_rows = static_cast<int64_t>(counted.easy);
  std::vector<T> result = y.Read();
  T poison;
  std::memset(&poison, kPoison, sizeof poison);
  for (size_t i = count; i < result.size(); ++i) {
    if (std::memcmp(&result[i], &poison, sizeof poison) != 0) {
      throw std::runtime_error("a kernel wrote beyond Y");
    }
  }
  result.resize(count);
  return result;
}

std::vector<float> DeviceLayer::Run(const std::vector<float>& x, int64_t rows, bool half,
                                    Activation activation, GateMode gate,
                                    int64_t* easy_rows) const {
  const cuda::Run run{.rows = rows, .half = half, .activation = activation, .gate = gate};
  if (!half) return RunElements(x, run, easy_rows);
  std::vector<uint16_t> narrow(x.size());
  std::transform(x.begin(), x.end(), narrow.begin(), FloatToFloat16);
  const std::vector<uint16_t> result = RunElements(narrow, run, easy_rows);
  std::vector<float> wide(result.size());
  std::transform(result.begin(), result.end(), wide.begin(), Float16ToFloat);
  return wide;
}

}  // namespace sparsefuse::test
