// How a layer's work is cut for a GPU: needs none.

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cuda/plan.h"
#include "tests/kernels/linear_case.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

using cuda::MakePlan;
using cuda::Plan;

size_t Index(int32_t i) { return static_cast<size_t>(i); }

// Every group belongs to one worker, in order; a worker has a part in each of its panels; slots are
// counted as workers meet panels; rows of scales are never cut.
void CheckCoverage(const LinearLayer& layer, const Plan& plan, int32_t workers) {
  REQUIRE(plan.workers >= 1);
  REQUIRE(plan.workers <= workers);
  REQUIRE(plan.worker.size() == Index(plan.workers) + 1);
  REQUIRE(plan.worker.front().group == 0);
  REQUIRE(plan.worker.front().first_panel == 0);
  REQUIRE(plan.worker.back().group == layer.groups());
  REQUIRE(plan.worker.back().scale_row == layer.scale_rows());
  std::vector<int32_t> met(Index(static_cast<int32_t>(layer.shape.panels())), 0);
  for (int32_t w = 0; w < plan.workers; ++w) {
    const cuda::Worker &from = plan.worker[Index(w)], &to = plan.worker[Index(w) + 1];
    REQUIRE(from.group <= to.group);
    REQUIRE(from.first_panel <= from.last_panel);
    REQUIRE(from.segment == met[Index(from.first_panel)]);
    REQUIRE(plan.group_ptr[Index(from.first_panel)] <= from.group);
    REQUIRE(to.group <= plan.group_ptr[Index(from.last_panel) + 1]);
    if (w + 1 < plan.workers) {
      REQUIRE(to.first_panel >= from.last_panel);
      REQUIRE(to.first_panel <= from.last_panel + 1);
    } else {
      REQUIRE(from.last_panel + 1 == to.first_panel);
    }
    for (int32_t p = from.first_panel; p <= from.last_panel; ++p) ++met[Index(p)];
    if (layer.shape.scale_groups > 0 && from.group < layer.groups()) {
      REQUIRE(plan.row_ptr[Index(from.scale_row)] == from.group);
    }
  }
  for (size_t p = 0; p < met.size(); ++p) {
    REQUIRE(met[p] >= 1);
    REQUIRE(plan.slot_ptr[p + 1] - plan.slot_ptr[p] == (met[p] > 1 ? met[p] : 0));
  }
  REQUIRE(plan.slots == plan.slot_ptr.back());
  REQUIRE(plan.row_ptr.back() == layer.groups());
  std::vector<int32_t> tiles = plan.tile_order;
  std::sort(tiles.begin(), tiles.end());
  REQUIRE(static_cast<int64_t>(tiles.size()) ==
          (layer.shape.panels() + plan.shared_panels - 1) / plan.shared_panels);
  for (size_t i = 0; i < tiles.size(); ++i) REQUIRE(tiles[i] == static_cast<int32_t>(i));
}

TEST_CASE("a plan for the GPU gives every group to one worker") {
  for (const bool sparse : {false, true}) {
    for (const int64_t scale_groups : {0, 3}) {
      for (const double density : {0.0, 0.05, 0.6}) {
        const LinearLayer layer({700, 500, scale_groups, Encoding::kInt8, sparse}, 5, false,
                                density);
        for (const int32_t workers : {1, 2, 7, 40, 1000}) {
          INFO("sparse " << sparse << ", scale groups " << scale_groups << ", density " << density
                         << ", workers " << workers);
          CheckCoverage(layer, MakePlan(layer.shape, layer.weights().blocks, workers), workers);
        }
      }
    }
  }
}

TEST_CASE("a plan for the GPU cuts into slices of equal bytes whatever the pattern") {
  std::mt19937 random(3);
  LinearLayer layer({4096, 2048, 0, Encoding::kInt8, true}, 5);
  std::vector<std::vector<int64_t>> kept(64);
  for (auto& quads : kept) {
    quads.resize(std::uniform_int_distribution<size_t>(0, 1024)(random));
    std::iota(quads.begin(), quads.end(), 0);
  }
  SetQuads(layer, kept);
  layer.Pack();
  const Plan plan = MakePlan(layer.shape, layer.weights().blocks, 132);
  REQUIRE(plan.workers == 132);
  for (size_t w = 0; w < 132; ++w) {
    const double groups = plan.worker[w + 1].group - plan.worker[w].group;
    REQUIRE(std::abs(groups - static_cast<double>(layer.groups()) / 132) <= 2);
  }
}

TEST_CASE("a plan for the GPU finds the panels that share inputs in whole runs") {
  const auto plan_of = [](int64_t inputs, const std::vector<std::vector<int64_t>>& kept,
                          int64_t scale_groups = 0) {
    LinearLayer layer(
        {inputs, 32 * static_cast<int64_t>(kept.size()), scale_groups, Encoding::kInt8, true}, 1);
    SetQuads(layer, kept);
    layer.Pack();
    return MakePlan(layer.shape, layer.weights().blocks, 8);
  };
  const auto runs = [](const std::vector<int64_t>& starts, int64_t quads) {
    std::vector<int64_t> kept;
    for (const int64_t s : starts) {
      for (int64_t q = s * 16; q < std::min(s * 16 + 16, quads); ++q) kept.push_back(q);
    }
    return kept;
  };
  const std::vector<int64_t> a = runs({0, 2, 3}, 64), b = runs({1, 2, 3}, 64);
  REQUIRE(plan_of(256, {a, a, a, a, b, b, b, b}).shared_panels == 4);
  REQUIRE(plan_of(256, {a, a, b, b}).shared_panels == 2);
  REQUIRE(plan_of(256, {a, a, b, b}, 2).shared_panels == 1);
  REQUIRE(plan_of(256, {a, b}).shared_panels == 1);
  REQUIRE(plan_of(256, {a, b}).runs);
  REQUIRE(plan_of(256, {a, a, a, a, b}).shared_panels == 4);  // a last tile of one panel
  // Inputs beyond the last, 250, are padding: still a run.
  REQUIRE(plan_of(250, {runs({3}, 63), runs({3}, 63)}).shared_panels == 4);
  std::vector<int64_t> gap = a;
  gap.erase(gap.begin() + 20);  // padding takes the place of an input that exists
  REQUIRE_FALSE(plan_of(256, {gap, gap}).runs);
  std::vector<int64_t> shifted(16);  // neighbours, but not from a multiple of 64 inputs on
  std::iota(shifted.begin(), shifted.end(), 8);
  REQUIRE_FALSE(plan_of(256, {shifted, shifted}).runs);
  const LinearLayer dense({256, 96}, 1);
  REQUIRE(MakePlan(dense.shape, dense.weights().blocks, 8).shared_panels == 4);
}

TEST_CASE("blocks for few rows fit the shared memory of every kind of GPU") {
  struct Card {
    int32_t kib, block_kib;  // of a multiprocessor; that a block may ask for
    cuda::Room room;
    int32_t blocks;
  };
  constexpr Card kCards[] = {{164, 163, cuda::Room::kLarge, 1},   // compute capability 8.0, 8.7
                             {100, 99, cuda::Room::kSmall, 1},    // 8.6, 8.9, 12.0
                             {228, 227, cuda::Room::kLarge, 2},   // 9.0, 10.0
                             {512, 227, cuda::Room::kLarge, 2},   // registers are the limit
                             {222, 111, cuda::Room::kLarge, 1}};  // none: just too little for 2
  for (const Card& card : kCards) {
    INFO(card.kib << " KiB");
    const cuda::DecodeShare share = cuda::ShareMultiprocessor(card.kib << 10, card.block_kib << 10);
    REQUIRE(share.room == card.room);
    REQUIRE(share.blocks == card.blocks);
    REQUIRE(cuda::RoomBytes(share.room) <= card.block_kib << 10);
    REQUIRE(share.blocks * (cuda::RoomBytes(share.room) + cuda::kSystemBytes) <= card.kib << 10);
  }
}

}  // namespace
}  // namespace sparsefuse::test
