#include "kernels/cuda/instance.h"

#include <algorithm>

namespace sparsefuse::cuda {

std::string KernelName(const Instance& instance, Step step) {
  constexpr const char* kSteps[] = {"decode8", "decode16", "prefill", "prefill_sm90"};
  constexpr const char* kEncodings[] = {"int8", "int4", "nested1", "nested4"};
  constexpr const char* kPatterns[] = {"dense", "runs", "quads"};
  const LinearShape& shape = instance.shape;
  const int64_t scale_groups = std::min(shape.scale_groups, GroupsPerPanel(kMaxInputs));
  std::string name = "sparsefuse_";
  name += kSteps[static_cast<size_t>(step)];
  name += '_';
  name += kEncodings[static_cast<size_t>(shape.encoding)];
  name += '_' + std::to_string(shape.inputs) + 'x' + std::to_string(shape.outputs);
  name += "_s" + std::to_string(scale_groups) + '_';
  name += kPatterns[static_cast<size_t>(instance.pattern)];
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
