#include "passes/cuda/code.h"

#include <algorithm>
#include <set>

#include "passes/cuda/source.h"

namespace sparsefuse {

std::vector<const CudaTarget*> FindCudaTargets(std::span<const std::string> names) {
  constexpr std::string_view kPrefix = "cuda:";
  std::vector<const CudaTarget*> targets;
  for (const std::string& name : names) {
    const auto found =
        std::find_if(CudaTargets().begin(), CudaTargets().end(), [&](const CudaTarget& target) {
          return name.starts_with(kPrefix) && name.substr(kPrefix.size()) == target.name;
        });
    if (found == CudaTargets().end()) {
      std::vector<std::string> known;
      for (const CudaTarget& target : CudaTargets()) {
        known.push_back(fmt::format("{}{}", kPrefix, target.name));
      }
      throw UserError(ErrorCode::kUsage, fmt::format("there is no target \"{}\"", Printable(name)),
                      fmt::format("targets: {}", fmt::join(known, ", ")))
          .At("--target");
    }
    if (std::find(targets.begin(), targets.end(), &*found) == targets.end()) {
      targets.push_back(&*found);
    }
  }
  return targets;
}

CudaPlan PlanCudaCode(std::span<const CudaLayer> layers, const CudaTarget& target, int64_t rows) {
  CudaPlan plan = {.target = &target, .tile_panels = {}, .source = {}};
  std::vector<cuda::Instance> instances;
  std::set<std::string> names;
  for (const CudaLayer& layer : layers) {
    const int32_t panels = ChooseTile(layer, target, rows);
    plan.tile_panels.push_back(panels);
    instances.push_back(InstanceOf(layer, panels, target));
    for (std::string& name : KernelNames(instances.back(), target)) names.insert(std::move(name));
  }
  plan.kernels = static_cast<int64_t>(names.size());
  plan.source = CudaSource(instances, target);
  return plan;
}

}  // namespace sparsefuse
