#include <algorithm>

#include "kernels/cuda/job.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/quantize.h"

namespace sparsefuse::cuda {
namespace {

__constant__ ScaleRoots scale_roots = kScaleRoots;

// DecodeScale of pack.h.
__global__ void DecodeScalesKernel(const uint8_t* code, float base, int64_t count, float* scale) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  scale[i] = base * scale_roots.root[code[i] & 15] * static_cast<float>(1 << (code[i] >> 4));
}

bool IsAligned(const void* pointer, size_t to) {
  return reinterpret_cast<uintptr_t>(pointer) % to == 0;
}

size_t Align(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Hands out aligned parts of a buffer; with a null buffer it only counts.
class Parts {
 public:
  explicit Parts(std::byte* buffer) : buffer_(buffer) {}
  template <typename T>
  T* Take(int64_t count) {
    std::byte* part = buffer_ ? buffer_ + bytes_ : nullptr;
    bytes_ += Align(static_cast<size_t>(count) * sizeof(T));
    return reinterpret_cast<T*>(part);
  }
  size_t bytes() const { return bytes_; }

 private:
  std::byte* buffer_;
  size_t bytes_ = 0;
};

struct PreparedParts {
  Worker* worker;
  int32_t *group_ptr, *slot_ptr, *scale_ptr, *row_ptr, *tile_order;
  float* scale;
  uint32_t* input_words;
};
PreparedParts TakePrepared(const Plan& plan, Parts& parts) {
  const auto panels = static_cast<int64_t>(plan.group_ptr.size());
  return {parts.Take<Worker>(plan.workers + 1),
          parts.Take<int32_t>(panels),
          parts.Take<int32_t>(panels),
          parts.Take<int32_t>(panels),
          parts.Take<int32_t>(static_cast<int64_t>(plan.row_ptr.size())),
          parts.Take<int32_t>(static_cast<int64_t>(plan.tile_order.size())),
          parts.Take<float>(int64_t{plan.scale_ptr.back()} * kPanelOutputs),
          parts.Take<uint32_t>(plan.input_words)};
}

bool Skips(const Layer& layer, int64_t rows) {
  return layer.input_words && rows <= kDecodeRows && SkipsZeros(layer.weights.shape, rows);
}

int64_t CodesStride(const LinearShape& shape) {
  return (GroupsPerPanel(shape.inputs) + 1) * kGroupInputs;
}

struct WorkParts {
  int8_t* codes;
  float* row_scale;
  int32_t *easy, *arrived, *slot;
  int64_t counters;  // from `arrived` on, to be put to 0
};
// Sums of a run that skips zeros follow its counters.
int64_t CounterCount(const Layer& layer, int64_t rows) {
  if (!Skips(layer, rows)) return layer.panels * kArrivals;
  const SkipShape shape = SkipShapeOf(layer.weights.shape);
  return shape.strips + shape.sums(rows);
}
WorkParts TakeWork(const Layer& layer, int64_t rows, Parts& parts) {
  // Whole tiles where there may be tiles.
  const int64_t code_rows =
      rows > kDecodeRows ? (rows + kTileRowsSm90 - 1) / kTileRowsSm90 * kTileRowsSm90 : rows;
  return {parts.Take<int8_t>(code_rows * CodesStride(layer.weights.shape)),
          parts.Take<float>(rows),
          parts.Take<int32_t>(rows),
          parts.Take<int32_t>(CounterCount(layer, rows)),
          parts.Take<int32_t>(layer.slots * kSlotValues),
          CounterCount(layer, rows)};
}

template <typename T>
cudaError_t Upload(const std::vector<T>& from, T* to, cudaStream_t stream) {
  return cudaMemcpyAsync(to, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice, stream);
}

#define SPARSEFUSE_RETURN_IF_CUDA_ERROR(expression) \
  if (const cudaError_t error = (expression); error != cudaSuccess) return error

}  // namespace

cudaError_t FindDevice(Device* device) noexcept {
  int current = 0, shared = 0, block_shared = 0;
  SPARSEFUSE_RETURN_IF_CUDA_ERROR(cudaGetDevice(&current));
  const struct {
    cudaDeviceAttr attribute;
    int* value;
  } asked[] = {{cudaDevAttrComputeCapabilityMajor, &device->major},
               {cudaDevAttrComputeCapabilityMinor, &device->minor},
               {cudaDevAttrMultiProcessorCount, &device->multiprocessors},
               {cudaDevAttrMaxSharedMemoryPerMultiprocessor, &shared},
               {cudaDevAttrMaxSharedMemoryPerBlockOptin, &block_shared}};
  for (const auto& [attribute, value] : asked) {
    SPARSEFUSE_RETURN_IF_CUDA_ERROR(cudaDeviceGetAttribute(value, attribute, current));
  }
  device->share = ShareMultiprocessor(shared, block_shared);
  return cudaSuccess;
}

cudaError_t SuggestWorkers(int32_t* workers) noexcept {
  Device device{};
  SPARSEFUSE_RETURN_IF_CUDA_ERROR(FindDevice(&device));
  *workers = device.multiprocessors * device.share.blocks;
  return cudaSuccess;
}

size_t PreparedBytes(const Plan& plan) noexcept {
  Parts parts(nullptr);
  TakePrepared(plan, parts);
  return parts.bytes();
}

cudaError_t Prepare(const LinearWeights& weights, const Plan& plan, std::byte* prepared,
                    cudaStream_t stream, Layer* layer) noexcept {
  if (!IsAligned(weights.weight, 16) || !IsAligned(weights.smooth, 16) ||
      !IsAligned(weights.blocks.quad, 16) || !IsAligned(prepared, kAlignment)) {
    return cudaErrorMisalignedAddress;
  }
  Parts parts(prepared);
  const PreparedParts to = TakePrepared(plan, parts);
  Device device{};
  SPARSEFUSE_RETURN_IF_CUDA_ERROR(FindDevice(&device));
  SPARSEFUSE_RETURN_IF_CUDA_ERROR(Upload(plan.worker, to.worker, stream));
  SPARSEFUSE_RETURN_IF_CUDA_ERROR(Upload(plan.group_ptr, to.group_ptr, stream));
  SPARSEFUSE_RETURN_IF_CUDA_ERROR(Upload(plan.slot_ptr, to.slot_ptr, stream));
  SPARSEFUSE_RETURN_IF_CUDA_ERROR(Upload(plan.scale_ptr, to.scale_ptr, stream));
  SPARSEFUSE_RETURN_IF_CUDA_ERROR(Upload(plan.row_ptr, to.row_ptr, stream));
  SPARSEFUSE_RETURN_IF_CUDA_ERROR(Upload(plan.tile_order, to.tile_order, stream));
  const int64_t scales = int64_t{plan.scale_ptr.back()} * kPanelOutputs;
  constexpr int64_t kThreads = 256;
  if (scales > 0) {
    SPARSEFUSE_RETURN_IF_CUDA_ERROR(
        LaunchKernel(DecodeScalesKernel, nullptr, (scales + kThreads - 1) / kThreads, kThreads, 0,
                     false, stream, weights.scale_code, weights.scale_base, scales, to.scale));
  }
  if (plan.input_words > 0) {
    SPARSEFUSE_RETURN_IF_CUDA_ERROR(LaunchCopyWeights(
        weights.shape, reinterpret_cast<const uint8_t*>(weights.weight), to.input_words, stream));
  }
  *layer = {.weights = weights,
            .panels = weights.shape.panels(),
            .plane_bytes = plan.group_ptr.back() * PlaneBytes(weights.shape.encoding),
            .workers = plan.workers,
            .slots = plan.slots,
            .shared_panels = plan.shared_panels,
            .runs = plan.runs,
            .overlaps_launches = device.major >= 9,
            .is_sm90 = device.is_sm90(),
            .room = device.share.room,
            .made = {},
            .worker = to.worker,
            .group_ptr = to.group_ptr,
            .slot_ptr = to.slot_ptr,
            .scale_ptr = to.scale_ptr,
            .row_ptr = to.row_ptr,
            .tile_order = to.tile_order,
            .scale = to.scale,
            .input_words = plan.input_words > 0 ? to.input_words : nullptr};
  return cudaSuccess;
}

size_t WorkspaceBytes(const Layer& layer, int64_t rows) noexcept {
  Parts parts(nullptr);
  TakeWork(layer, rows, parts);
  return parts.bytes();
}

cudaError_t Linear(const Layer& layer, const Run& run, cudaStream_t stream) noexcept {
  if (run.rows == 0) return cudaSuccess;
  if (!IsAligned(run.x, 16) || !IsAligned(run.y, 16) || !IsAligned(run.workspace, kAlignment)) {
    return cudaErrorMisalignedAddress;
  }
  const LinearWeights& weights = layer.weights;
  const LinearShape& shape = weights.shape;
  Parts parts(run.workspace);
  const WorkParts work = TakeWork(layer, run.rows, parts);
  const bool gated = weights.gate && IsGated(run.gate, run.rows);
  const bool prefills = run.rows > kDecodeRows && !gated;
  const bool sm90 = prefills && layer.is_sm90 && layer.shared_panels > 1;
  SPARSEFUSE_RETURN_IF_CUDA_ERROR(LaunchQuantize({.x = run.x,
                                                  .half = run.half,
                                                  .smooth = weights.smooth,
                                                  .gate = weights.gate,
                                                  .inputs = shape.inputs,
                                                  .codes = work.codes,
                                                  .codes_stride = CodesStride(shape),
                                                  .tiled = sm90,
                                                  .row_scale = work.row_scale,
                                                  .easy = gated ? work.easy : nullptr,
                                                  .counts = run.gate_counts,
                                                  .counter = work.arrived,
                                                  .counters = prefills ? 0 : work.counters},
                                                 run.rows, layer.overlaps_launches, stream));
  Job job{.weight = reinterpret_cast<const uint8_t*>(weights.weight),
          .plane_bytes = layer.plane_bytes,
          .quad = shape.sparse ? weights.blocks.quad : nullptr,
          .scale = layer.scale,
          .bias = weights.bias,
          .worker = layer.worker,
          .group_ptr = layer.group_ptr,
          .slot_ptr = layer.slot_ptr,
          .scale_ptr = layer.scale_ptr,
          .row_ptr = layer.row_ptr,
          .tile_order = layer.tile_order,
          .outputs = shape.outputs,
          .panels = static_cast<int32_t>(layer.panels),
          .groups_per_panel = static_cast<int32_t>(GroupsPerPanel(shape.inputs)),
          .groups_per_scale =
              static_cast<int32_t>(std::min(shape.scale_groups, GroupsPerPanel(kMaxInputs))),
          .codes = work.codes,
          .codes_stride = CodesStride(shape),
          .row_scale = work.row_scale,
          .easy = gated ? work.easy : nullptr,
          .arrived = work.arrived,
          .slot = work.slot,
          .rows = run.rows,
          .y = run.y,
          .half = run.half,
          .activation = run.activation};
  Launch launch{.encoding = shape.encoding,
                .gathers = shape.sparse && !layer.runs,
                .workers = layer.workers,
                .shared_panels = layer.shared_panels,
                .room = layer.room,
                .made = layer.made,
                .overlaps = layer.overlaps_launches,
                .stream = stream};
  if (Skips(layer, run.rows)) {
    const SkipShape skip = SkipShapeOf(shape);
    return LaunchSkip(job, {skip, layer.input_words, work.arrived + skip.strips}, launch);
  }
  if (sm90) return LaunchPrefillSm90(job, launch);
  if (prefills) return LaunchPrefill(job, launch);
  for (int64_t row = 0; row < run.rows; row += kDecodeRows) {
    job.rows = std::min(kDecodeRows, run.rows - row);
    SPARSEFUSE_RETURN_IF_CUDA_ERROR(LaunchDecode(job, launch));
    launch.overlaps = false;
    job.codes += kDecodeRows * job.codes_stride;
    job.row_scale += kDecodeRows;
    if (job.easy) job.easy += kDecodeRows;
    job.y = static_cast<std::byte*>(job.y) +
            static_cast<size_t>(kDecodeRows * job.outputs) * (job.half ? 2 : 4);
  }
  return cudaSuccess;
}

}  // namespace sparsefuse::cuda
