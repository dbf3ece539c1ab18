// What is removed from small graphs of each family, and how the numbers beside it are rewritten.

#include "passes/prune/removal.h"

#include <algorithm>

#include "tests/support/catch.h"
#include "tests/unit/analysis/families.h"
#include "tests/unit/analysis/graphs.h"
#include "tests/unit/prune/removing.h"

namespace sparsefuse {
namespace {

using test::CheckBlocks;
using test::CheckUnits;
using test::Drawn;
using test::ParseGraph;
using test::RandomFeeds;

std::vector<int64_t> KeptCounts(int64_t units) {
  std::vector<int64_t> counts = {units - 1, units / 2, 1};
  counts.erase(std::unique(counts.begin(), counts.end()), counts.end());
  return counts;
}

const Module& Only(const Structure& structure, ModuleKind kind) {
  const Module* found = nullptr;
  for (const Module& module : structure.modules) {
    if (module.kind != kind) continue;
    REQUIRE(!found);
    found = &module;
  }
  REQUIRE(found);
  return *found;
}

TEST_CASE("every module of every family, alone and with all others, equals the masked model") {
  for (const test::Family& family : test::Families()) {
    const Model model = test::FamilyModel(family.name);
    const Structure structure = FindStructure(model);
    REQUIRE(!structure.modules.empty());
    for (uint64_t seed = 0; seed < (family.fused ? 1 : 3); ++seed) {
      const Feeds feeds = RandomFeeds(model, seed);
      std::vector<Keep> all;
      for (const Module& module : structure.modules) {
        for (const int64_t count : KeptCounts(module.units)) {
          INFO(family.name << ": " << count << " of " << module.units << " " << Name(module.kind));
          const Keep keep{&module, Drawn(module.units, count, seed)};
          CheckUnits(model, std::vector{keep}, feeds);
        }
        const int64_t count = KeptCounts(module.units)[seed % KeptCounts(module.units).size()];
        all.push_back({&module, Drawn(module.units, count, seed)});
      }
      INFO(family.name << ": all modules");
      CheckUnits(model, all, feeds);
    }
  }
}

TEST_CASE("every block of every family, alone, with all others, and after its units") {
  size_t blocks = 0;
  for (const test::Family& family : test::Families()) {
    const Model model = test::FamilyModel(family.name);
    const Structure structure = FindStructure(model);
    const Feeds feeds = RandomFeeds(model, 5);
    for (const Block& block : structure.blocks) {
      INFO(family.name << ": " << Name(block.kind));
      CheckBlocks(model, std::vector{&block}, feeds);
      ++blocks;
    }
    if (structure.blocks.empty()) continue;
    INFO(family.name << ": all blocks");
    const std::vector<const Block*> outer = test::Outermost(structure.blocks);
    CheckBlocks(model, outer, feeds);

    std::vector<Keep> keeps;
    for (const Module& module : structure.modules) keeps.push_back({&module, {0}});
    Model units_first = model.Clone(), masked = model.Clone();
    RemoveUnits(units_first, keeps);
    MaskUnits(masked, keeps);
    RemoveBlock(units_first, *outer[0]);
    RemoveBlock(masked, *outer[0]);
    CHECK(RemovalError(masked, units_first, feeds, {}) <= 1e-4);
  }
  CHECK(blocks >= 9);
}

// Two products with ReLU between; what follows is about one node or form of weights.
TEST_CASE("a shape that another layer shares is not changed for it") {
  const Model model = ParseGraph(R"(
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[2,4] x) => (float[2,3] y, float[2,6] z)
<float[4,6] w = ?, float[6,3] w2 = ?, float[4,6] v = ?, int64[3] shape = {2, 6, 1}, int64[2] flat = {2, -1}>
{
  a = MatMul (x, w)
  a3 = Reshape (a, shape)
  ar = Relu (a3)
  a2 = Reshape (ar, flat)
  y = MatMul (a2, w2)
  b = MatMul (x, v)
  b3 = Reshape (b, shape)
  z = Reshape (b3, flat)
}
)");
  const Structure structure = FindStructure(model);
  REQUIRE(structure.modules.size() == 1);
  const Model removed =
      CheckUnits(model, std::vector{Keep{&structure.modules[0], {1, 4}}}, RandomFeeds(model, 1));
  const auto shape_of = [&](const char* output) {
    return removed.graph().FindValue(output)->producer()->constant_input(1)->ToInts();
  };
  CHECK(shape_of("a3") == std::vector<int64_t>{2, 2, 1});
  CHECK(shape_of("b3") == std::vector<int64_t>{2, 6, 1});
}

TEST_CASE("computed shapes: pieces of a Concat that others share, and other arithmetic") {
  const Model model = ParseGraph(R"(
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[B,4] x) => (float[B,3] y, float[B,6] z)
<float[4,6] w = ?, float[6,3] w2 = ?, float[4,6] v = ?, int64 i0 = {0}, int64[1] first = {0},
 int64 six = {6}, int64[1] one = {1}, int64[3] factor = {1, 2, 1}, int64[3] three = {-1, 3, 1},
 int64[2] flat = {0, -1}>
{
  shape = Shape (x)
  batch = Gather (shape, i0)
  bu = Unsqueeze (batch, first)
  su = Unsqueeze (six, first)
  target = Concat <axis = 0> (bu, su, one)
  product = Mul (three, factor)
  a = MatMul (x, w)
  a3 = Reshape (a, target)
  ar = Relu (a3)
  ax = Reshape (ar, product)
  a2 = Reshape (ax, flat)
  y = MatMul (a2, w2)
  b = MatMul (x, v)
  b3 = Reshape (b, target)
  z = Reshape (b3, flat)
}
)");
  const Structure structure = FindStructure(model);
  REQUIRE(structure.modules.size() == 1);
  const Model removed =
      CheckUnits(model, std::vector{Keep{&structure.modules[0], {0, 3, 4}}}, RandomFeeds(model, 1));
  const auto shape_from = [&](const char* output) {
    return removed.graph().FindValue(output)->producer()->input(1)->producer()->op();
  };
  CHECK(shape_from("a3") == "Concat");
  CHECK(shape_from("ax") == "ScatterElements");
  // What is left is understood as well as what was there.
  const Structure again = FindStructure(removed);
  CHECK(again.modules.empty());  // ScatterElements ends it
}

TEST_CASE("Split into equal parts without sizes") {
  for (const char* opset : {"11", "13", "18"}) {
    const std::string parts = std::string(opset) == "18" ? ", num_outputs = 2" : "";
    const Model model = ParseGraph(R"(
<ir_version: 8, opset_import: ["" : )" +
                                   std::string(opset) +
                                   R"(]>
agraph (float[2,4] x) => (float[2,3] y, float[2,3] z)
<float[4,10] w = ?, float[5,3] w1 = ?, float[5,3] w2 = ?>
{
  a = MatMul (x, w)
  b, c = Split <axis = 1)" + parts +
                                   R"(> (a)
  y = MatMul (b, w1)
  z = MatMul (c, w2)
}
)");
    const Structure structure = FindStructure(model);
    REQUIRE(structure.modules.size() == 2);
    const Feeds feeds = RandomFeeds(model, 1);
    const Keep left{&structure.modules[0], {0, 4}}, right{&structure.modules[1], {1, 2}};
    CheckUnits(model, std::vector{left}, feeds);
    const Model even = CheckUnits(model, std::vector{left, right}, feeds);
    CHECK(even.graph().FindValue("b")->producer()->inputs().size() == 1);
  }
}

TEST_CASE("slices with ends counted from the back") {
  const Model model = ParseGraph(R"(
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[2,4] x) => (float[2,3] y, float[2,3] z, float[2,3] u)
<float[4,15] w = ?, float[4,3] v1 = ?, float[6,3] v2 = ?, float[5,3] v3 = ?, int64[1] zero = {0},
 int64[1] one = {1}, int64[1] four = {4}, int64[1] back = {-5}, int64[1] most = {9223372036854775807}>
{
  a = MatMul (x, w)
  first = Slice (a, zero, four, one)
  middle = Slice (a, four, back, one)
  last = Slice (a, back, most, one)
  y = MatMul (first, v1)
  z = MatMul (middle, v2)
  u = MatMul (last, v3)
}
)");
  const Structure structure = FindStructure(model);
  REQUIRE(structure.modules.size() == 3);
  std::vector<Keep> all;
  for (const Module& module : structure.modules) {
    all.push_back({&module, {0, module.units - 1}});
    CheckUnits(model, std::vector{all.back()}, RandomFeeds(model, 1));
  }
  CheckUnits(model, all, RandomFeeds(model, 2));
}

TEST_CASE("quantised weights: codes, scales and zero points of what is removed go together") {
  const Model model = ParseGraph(R"(
<ir_version: 10, opset_import: ["" : 21]>
agraph (float[2,4] x) => (float[2,3] y)
<uint8[4,5] w = {1,250,3,40,5, 60,7,80,9,100, 11,120,13,140,15, 160,17,180,19,200},
 float[5] ws = +, uint8[5] wz = {120, 121, 122, 123, 124}, int8[5,3] v = {1,-2,3,-4,5,-6,7,-8,9,-10,11,-12,13,-14,15},
 float[3] vs = +>
{
  wf = DequantizeLinear <axis = 1> (w, ws, wz)
  a = MatMul (x, wf)
  r = Abs (a)
  vf = DequantizeLinear <axis = 1> (v, vs)
  y = MatMul (r, vf)
}
)");
  const Structure structure = FindStructure(model);
  const Module& neurons = Only(structure, ModuleKind::kNeurons);
  const Model removed =
      CheckUnits(model, std::vector{Keep{&neurons, {1, 4}}}, RandomFeeds(model, 1));
  CHECK(removed.graph().FindValue("w")->constant()->ToInts() ==
        std::vector<int64_t>{250, 5, 7, 100, 120, 15, 17, 200});
  CHECK(removed.graph().FindValue("wz")->constant()->ToInts() == std::vector<int64_t>{121, 124});
}

TEST_CASE("4-bit codes stay packed") {
  Model model = ParseGraph(R"(
<ir_version: 10, opset_import: ["" : 21]>
agraph (float[2,2] x) => (float[2,3] y)
<uint8[3] codes = {0, 0, 0}, float[5] ws = +, float[5,3] v = ?>
{
  wf = DequantizeLinear <axis = 1> (codes, ws)
  a = MatMul (x, wf)
  y = MatMul (a, v)
}
)");
  // [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]
  const uint8_t packed[] = {0x21, 0x43, 0x65, 0x87, 0xa9};
  model.graph().FindValue("codes")->set_initializer(
      Tensor::FromBytes(DType::kUint4, {2, 5}, std::as_bytes(std::span(packed))));
  const Structure structure = FindStructure(model);
  const Module& neurons = Only(structure, ModuleKind::kNeurons);
  const Model removed =
      CheckUnits(model, std::vector{Keep{&neurons, {0, 2, 4}}}, RandomFeeds(model, 1));
  const Tensor& codes = *removed.graph().FindValue("codes")->constant();
  CHECK(codes.dims() == Dims{2, 3});
  CHECK(codes.ToInts() == std::vector<int64_t>{1, 3, 5, 6, 8, 10});
}

TEST_CASE("weights in Constant nodes, half precision, and declared types") {
  Model model = ParseGraph(R"(
<ir_version: 10, opset_import: ["" : 18]>
agraph (float[2,2] x) => (float[2,2] y)
<float[5,2] v = ?, float[2,5] r, float16[2,2] yh>
{
  w = Constant <value = float[2,5] {0.5, -1, 2, 3, -2, 1, 1, -1, 0.25, 2}> ()
  b = Constant <value_floats = [0.5, -0.5, 1.0, 1.5, 2.5]> ()
  m = MatMul (x, w)
  a = Add (m, b)
  r = Relu (a)
  rh = Cast <to = 10> (r)
  vh = Cast <to = 10> (v)
  yh = MatMul (rh, vh)
  y = Cast <to = 1> (yh)
}
)");
  const Structure structure = FindStructure(model);
  const Module& neurons = Only(structure, ModuleKind::kNeurons);
  const Feeds feeds = RandomFeeds(model, 1);
  Model masked = model.Clone(), removed = model.Clone();
  const std::vector<Keep> keeps = {{&neurons, {1, 3}}};
  MaskUnits(masked, keeps);
  RemoveUnits(removed, keeps);
  // Half precision, but the same sums.
  CHECK(RemovalError(masked, removed, feeds, {}) <= 1e-3);
  CHECK(removed.graph().FindValue("b")->constant()->ToFloats() == std::vector<float>{-0.5, 1.5});
  CHECK(removed.graph().FindValue("w")->constant()->dims() == Dims{2, 2});
  REQUIRE(model.graph().FindValue("r")->type()->has_shape);
  CHECK_FALSE(removed.graph().FindValue("r")->type()->has_shape);
  CHECK(removed.graph().FindValue("r")->type()->dtype == DType::kFloat);
  CHECK(removed.graph().FindValue("y")->type()->has_shape);
}

TEST_CASE("the error of a removal that went wrong is seen") {
  const char* text = R"(
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[2,4] x) => (float[2,3] y)
<float[4,6] w = ?, float[6] b = ?, float[6,3] v = ?>
{
  a = MatMul (x, w)
  ab = Add (a, b)
  r = Relu (ab)
  y = MatMul (r, v)
}
)";
  const Model model = ParseGraph(text);
  const Structure structure = FindStructure(model);
  Module other = structure.modules.at(0);
  // The bias of unit 1 in place of unit 0's.
  for (ModuleAxis& axis : other.axes) {
    if (axis.tensor->name() == "b") std::swap(axis.unit_of[0], axis.unit_of[1]);
  }
  Model masked = model.Clone(), removed = model.Clone();
  MaskUnits(masked, std::vector{Keep{&structure.modules[0], {0, 2, 3, 4, 5}}});
  RemoveUnits(removed, std::vector{Keep{&other, {0, 2, 3, 4, 5}}});
  CHECK(RemovalError(masked, removed, RandomFeeds(model, 1), {}) > 1e-3);
}

}  // namespace
}  // namespace sparsefuse
