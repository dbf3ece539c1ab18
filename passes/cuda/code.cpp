#include "passes/cuda/code.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

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

CudaPlan PlanCudaCode(std::span<const CudaLayer> layers, const CudaTarget& target, int64_t rows,
                      const TileTimer& timer) {
  CudaPlan plan = {.target = &target, .tiles = {}, .tile_panels = {}, .source = {}};
  // Layers with the same kernels but for the tile, and the same choice of tiles.
  const auto group_of = [&](const CudaLayer& layer) {
    return std::pair(KernelName(InstanceOf(layer, 1, target), cuda::Step::kDecode8),
                     layer.shared_panels);
  };
  using Group = decltype(group_of(layers[0]));
  std::map<Group, std::map<int32_t, double, std::greater<>>> sums;  // by panels, the most first
  std::map<std::tuple<Group, int64_t, int32_t>, double> timed;      // by stored groups and panels
  for (const CudaLayer& layer : layers) {
    const Group group = group_of(layer);
    std::vector<TileTime>& tiles = plan.tiles.emplace_back();
    for (const int32_t panels : TilesOf(layer)) {
      TileTime tile = {panels, PredictManyRows(layer, target, rows, panels), std::nullopt};
      if (timer) {
        const auto [known, is_new] = timed.try_emplace({group, layer.groups, panels});
        if (is_new) known->second = timer(layer, panels);
        tile.measured = known->second;
      }
      sums[group][panels] += tile.measured.value_or(tile.predicted);
      tiles.push_back(tile);
    }
  }
  std::vector<cuda::Instance> instances;
  std::set<std::string> names;
  for (const CudaLayer& layer : layers) {
    const auto& times = sums[group_of(layer)];
    const auto quickest =
        std::min_element(times.begin(), times.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    plan.tile_panels.push_back(quickest->first);
    instances.push_back(InstanceOf(layer, quickest->first, target));
    for (std::string& name : KernelNames(instances.back(), target)) names.insert(std::move(name));
  }
  plan.kernels = static_cast<int64_t>(names.size());
  plan.source = CudaSource(instances, target);
  return plan;
}

std::string SourceOfAllTiles(std::span<const CudaLayer> layers, const CudaTarget& target) {
  std::vector<cuda::Instance> instances;
  for (const CudaLayer& layer : layers) {
    for (const int32_t panels : TilesOf(layer)) {
      instances.push_back(InstanceOf(layer, panels, target));
    }
  }
  return CudaSource(instances, target);
}

}  // namespace sparsefuse
