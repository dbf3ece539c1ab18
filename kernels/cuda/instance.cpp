#include "kernels/cuda/instance.h"

#include <algorithm>

#include "kernels/cuda/headers.h"

namespace sparsefuse::cuda {

Pattern PatternOf(const LinearShape& shape, const Plan& plan) {
  if (!shape.sparse) return Pattern::kDense;
  return plan.runs ? Pattern::kRuns : Pattern::kQuads;
}

const char* EncodingName(Encoding encoding) {
  constexpr const char* kNames[] = {"int8", "int4", "nested1", "nested4"};
  return kNames[static_cast<size_t>(encoding)];
}

const char* PatternName(Pattern pattern) {
  constexpr const char* kNames[] = {"dense", "runs", "quads"};
  return kNames[static_cast<size_t>(pattern)];
}

std::string MarkName() { return "sparsefuse_code_" + std::string(HeadersDigest()); }

std::string CodeFileName(std::string_view architecture) {
  return "model-" + std::string(architecture) + ".cubin";
}

std::string KernelName(const Instance& instance, Step step) {
  constexpr const char* kSteps[] = {"decode8", "decode16", "prefill", "prefill_sm90"};
  const LinearShape& shape = instance.shape;
  const int64_t scale_groups = std::min(shape.scale_groups, GroupsPerPanel(kMaxInputs));
  std::string name = "sparsefuse_";
  name += kSteps[static_cast<size_t>(step)];
  name += '_';
  name += EncodingName(shape.encoding);
  name += '_' + std::to_string(shape.inputs) + 'x' + std::to_string(shape.outputs);
  name += "_s" + std::to_string(scale_groups) + '_';
  name += PatternName(instance.pattern);
  name += instance.half ? "_f16" : "_f32";
  name += ActivationName(instance.activation);
  if (step == Step::kPrefill || step == Step::kPrefillSm90) {
    name += "_t" + std::to_string(instance.tile_panels);
  } else if (instance.room == Room::kSmall) {
    name += "_small";
  }
  return name;
}

}  // namespace sparsefuse::cuda
