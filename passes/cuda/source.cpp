#include "passes/cuda/source.h"

#include <algorithm>
#include <set>
#include <string_view>

namespace sparsefuse {
namespace {

using cuda::Instance;
using cuda::Pattern;
using cuda::Step;

// What the kernels of one layer know: struct Constants and a function that puts it into a job.
constexpr std::string_view kPrologue = R"(// Kernels for the layers of one model.

#include "kernels/cuda/decode.cuh"
#include "kernels/cuda/prefill.cuh"
#include "kernels/cuda/prefill_sm90.cuh"

namespace sparsefuse::cuda {

struct Constants {
  int64_t inputs, outputs, scale_groups;
  bool sparse, half;
  Activation activation;
};

// The job with what is known of its layer written out, for the compiler to see.
template <Constants kKnown>
__device__ Job Known(Job job) {
  job.outputs = kKnown.outputs;
  job.panels = static_cast<int32_t>(PanelCount(kKnown.outputs));
  job.groups_per_panel = static_cast<int32_t>(GroupsPerPanel(kKnown.inputs));
  job.groups_per_scale = static_cast<int32_t>(kKnown.scale_groups);
  job.codes_stride = (GroupsPerPanel(kKnown.inputs) + 1) * kGroupInputs;
  if (!kKnown.sparse) job.quad = nullptr;
  job.half = kKnown.half;
  job.activation = kKnown.activation;
  return job;
}
)";

constexpr std::string_view kEncodings[] = {"kInt8", "kInt4", "kNested1", "kNested4"};
constexpr std::string_view kActivationNames[] = {"kNone", "kRelu", "kGelu", "kGeluTanh", "kSilu"};

std::string ConstantsOf(const Instance& instance) {
  const LinearShape& shape = instance.shape;
  return fmt::format("Constants{{{}, {}, {}, {}, {}, Activation::{}}}", shape.inputs, shape.outputs,
                     std::min(shape.scale_groups, GroupsPerPanel(kMaxInputs)), shape.sparse,
                     instance.half, kActivationNames[static_cast<size_t>(instance.activation)]);
}

// The call of the library's kernel, by names of kernels/cuda/{decode,prefill,prefill_sm90}.cuh.
std::string Body(const Instance& instance, Step step) {
  const std::string_view encoding = kEncodings[static_cast<size_t>(instance.shape.encoding)];
  const bool many = instance.shape.scale_groups > 0;
  const bool gathers = instance.pattern == Pattern::kQuads;
  switch (step) {
    case Step::kDecode8:
    case Step::kDecode16:
      return fmt::format("decode::Slice<Encoding::{}, {}, {}, Room::{}>(known, {})", encoding,
                         step == Step::kDecode8 ? 1 : 2, many,
                         instance.room == cuda::Room::kLarge ? "kLarge" : "kSmall", gathers);
    case Step::kPrefill: {
      const std::string_view tile = instance.tile_panels == 4   ? (many ? "ScaledWide" : "Wide")
                                    : instance.tile_panels == 2 ? "Narrow"
                                    : many                      ? "ScaledSingle"
                                                                : "Single";
      return fmt::format("prefill::Product<Encoding::{}, prefill::{}, {}>(known)", encoding, tile,
                         instance.tile_panels == 1);
    }
    case Step::kPrefillSm90:
      return fmt::format("prefill_sm90::Product<Encoding::{}, prefill_sm90::{}>(known)", encoding,
                         many                        ? "Scaled"
                         : instance.tile_panels == 4 ? "Wide"
                                                     : "Narrow");
  }
  throw InternalError("unknown step");
}

std::string Bounds(const Instance& instance, Step step) {
  switch (step) {
    case Step::kDecode8:
    case Step::kDecode16:
      return instance.room == cuda::Room::kLarge
                 ? "decode::kThreads, decode::kBlocksPerMultiprocessor"
                 : "decode::kThreads, 1";
    case Step::kPrefill:
      return fmt::format("{} * prefill::kRowWarps * kWarp", instance.tile_panels == 4 ? 2 : 1);
    case Step::kPrefillSm90:
      return "prefill_sm90::kThreads, 1";
  }
  throw InternalError("unknown step");
}

std::vector<Step> StepsOf(const Instance& instance, const CudaTarget& target) {
  return {Step::kDecode8, Step::kDecode16, ManyRowsStep(target, instance.tile_panels)};
}

}  // namespace

Instance InstanceOf(const CudaLayer& layer, int32_t tile_panels, const CudaTarget& target) {
  return {.shape = layer.shape,
          .pattern = layer.pattern,
          .tile_panels = tile_panels,
          .activation = layer.activation,
          .half = layer.half,
          .room = target.room};
}

std::vector<std::string> KernelNames(const Instance& instance, const CudaTarget& target) {
  std::vector<std::string> names;
  for (const Step step : StepsOf(instance, target)) names.push_back(KernelName(instance, step));
  return names;
}

std::string CudaSource(std::span<const Instance> instances, const CudaTarget& target) {
  std::string source(kPrologue);
  source += fmt::format("\nextern \"C\" __global__ void {}() {{}}\n", cuda::MarkName());
  std::set<std::string> written;
  for (const Instance& instance : instances) {
    for (const Step step : StepsOf(instance, target)) {
      const std::string name = KernelName(instance, step);
      if (!written.insert(name).second) continue;
      // Decode kernels take the second parameter of the library's, which is known here.
      const bool decodes = step == Step::kDecode8 || step == Step::kDecode16;
      source += fmt::format(
          "\nextern \"C\" __global__ void __launch_bounds__({})\n"
          "    {}(const __grid_constant__ Job job{}) {{\n"
          "  const Job known = Known<{}>(job);\n  {};\n}}\n",
          Bounds(instance, step), name, decodes ? ", bool" : "", ConstantsOf(instance),
          Body(instance, step));
    }
  }
  return source + "\n}  // namespace sparsefuse::cuda\n";
}

}  // namespace sparsefuse
