// The pattern compiler, without a GPU: what it sees in a model, what it chooses, what it writes.
// Whether the code is right is for tests/cuda, on a card.

#include "passes/cuda/code.h"

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "kernels/cuda/headers.h"
#include "passes/cuda/compiler.h"
#include "passes/cuda/source.h"
#include "passes/framework/config.h"
#include "tests/support/catch.h"
#include "tests/support/linear_model.h"
#include "tests/support/support.h"

namespace sparsefuse {
namespace {

using cuda::Pattern;
using test::LinearLayer;

LinearLayer SparseLayer(int64_t inputs, const std::vector<std::vector<int64_t>>& kept,
                        int64_t scale_groups = 0) {
  LinearLayer layer({.inputs = inputs,
                     .outputs = static_cast<int64_t>(kept.size()) * kPanelOutputs,
                     .scale_groups = scale_groups,
                     .sparse = true},
                    1);
  test::SetQuads(layer, kept);
  return layer;
}

// Quads of the runs of 64 inputs with these numbers.
std::vector<int64_t> Runs(const std::vector<int64_t>& numbers) {
  std::vector<int64_t> quads;
  for (const int64_t number : numbers) {
    for (int64_t q = 0; q < kGroupQuads; ++q) quads.push_back(number * kGroupQuads + q);
  }
  return quads;
}

CudaLayer LayerOf(const LinearLayer& layer, DType dtype = DType::kFloat,
                  Activation activation = Activation::kNone) {
  Model model = test::EmptyModel(layer, dtype);
  test::AppendLinear(model, layer, activation);
  const std::vector<CudaLayer> layers = FindCudaLayers(model);
  REQUIRE(layers.size() == 1);
  return layers.front();
}

const CudaTarget& Target(std::string_view name) {
  return *FindCudaTargets(std::vector{fmt::format("cuda:{}", name)}).front();
}

// A layer of random content as the cost model sees it: nothing of it is built.
CudaLayer Sized(int64_t inputs, int64_t outputs, double kept, Pattern pattern, int32_t shared,
                Encoding encoding = Encoding::kInt8, int64_t scale_groups = 0) {
  CudaLayer layer;
  layer.shape = {inputs, outputs, scale_groups, encoding, pattern != Pattern::kDense};
  layer.pattern = pattern;
  layer.shared_panels = shared;
  layer.groups =
      std::llround(static_cast<double>(layer.shape.panels() * GroupsPerPanel(inputs)) * kept);
  return layer;
}

TEST_CASE("patterns that GPU kernels tell apart are found in a model") {
  const std::vector<int64_t> a = Runs({0, 2}), b = Runs({1, 3});
  SECTION("dense") {
    const CudaLayer layer = LayerOf(LinearLayer({.inputs = 200, .outputs = 96}, 1));
    CHECK(layer.pattern == Pattern::kDense);
    CHECK(layer.shared_panels == 4);
    CHECK(layer.groups == 12);
    CHECK(layer.density() == 1);
    CHECK_FALSE(layer.half);
  }
  SECTION("64 inputs × 128 outputs") {
    const CudaLayer layer = LayerOf(SparseLayer(256, {a, a, a, a, b, b, b, b}));
    CHECK(layer.pattern == Pattern::kRuns);
    CHECK(layer.shared_panels == 4);
    CHECK(layer.density() == 0.5);
  }
  SECTION("64 × 64") { CHECK(LayerOf(SparseLayer(256, {a, a, b, b})).shared_panels == 2); }
  SECTION("4 × 32") {
    std::vector<int64_t> odd;
    for (int64_t q = 1; q < 64; q += 2) odd.push_back(q);
    const CudaLayer layer = LayerOf(SparseLayer(256, {odd, odd, odd, odd}));
    CHECK(layer.pattern == Pattern::kQuads);
    CHECK(layer.shared_panels == 1);
    CHECK(layer.groups == 8);
  }
  SECTION("types and activations") {
    const CudaLayer layer =
        LayerOf(LinearLayer({.inputs = 64, .outputs = 32}, 1), DType::kFloat16, Activation::kGelu);
    CHECK(layer.half);
    CHECK(layer.activation == Activation::kGelu);
  }
  SECTION("types that the graph does not say") {
    const LinearLayer layer({.inputs = 64, .outputs = 32}, 1);
    for (const DType dtype : {DType::kFloat, DType::kFloat16}) {
      Model model = test::EmptyModel(layer, dtype);
      Node* node = test::AppendLinear(model, layer);
      Builder builder(model.graph());
      builder.InsertBefore(node);
      model.graph().SetInput(node, 0, builder.Op("Relu", {node->input(0)}));
      node->output(0)->set_type(std::nullopt);
      CHECK(FindCudaLayers(model).at(0).half == (dtype == DType::kFloat16));
    }
  }
  SECTION("inputs that are mostly 0") {
    const LinearLayer layer({.inputs = 6400, .outputs = 3200}, 1);
    Model model = test::EmptyModel(layer);
    Node* node = test::AppendLinear(model, layer);
    const double all = PredictFewRows(FindCudaLayers(model).at(0), Target("sm_90a"));
    SetZeroInputs(*node, 0.95);
    const CudaLayer told = FindCudaLayers(model).at(0);
    CHECK(told.shape.zero_inputs == 0.9375f);
    CHECK(PredictFewRows(told, Target("sm_90a")) - 5 == Approx((all - 5) / 16));
    node->SetAttribute("zero_inputs", 1.5f);
    CHECK_THROWS_AS(FindCudaLayers(model), UserError);
  }
}

TEST_CASE("a layer that no kernel would accept is named") {
  const LinearLayer layer = SparseLayer(256, {Runs({0, 2}), Runs({1})});
  Model model = test::EmptyModel(layer);
  Node* node = test::AppendLinear(model, layer);
  const auto fails = [&](ErrorCode code, const std::string& text) {
    try {
      FindCudaLayers(model);
      FAIL("accepted");
    } catch (const UserError& error) {
      CHECK(error.code == code);
      CHECK_THAT(error.Line(),
                 Catch::Matchers::Contains(text) && Catch::Matchers::Contains(node->Describe()));
    }
  };
  SECTION("size") {
    node->SetAttribute("K", int64_t{0});
    fails(ErrorCode::kModel, "attribute K");
  }
  SECTION("lists") {
    Value* ends = node->input(6);
    REQUIRE(ends);
    ends->set_initializer(Tensor::Of<int32_t>({3}, std::vector<int32_t>{0, 3, 2}));
    fails(ErrorCode::kModel, "group_ptr");
  }
  SECTION("not constant") {
    model.graph().SetInput(node, 6, model.graph().AddGraphInput("ends"));
    fails(ErrorCode::kUnsupported, "no constant");
  }
}

// docs/performance.md, "On a GPU": H200, float16 activations. Microseconds.
TEST_CASE("predicted times are near those measured") {
  struct Measured {
    CudaLayer layer;
    double one_row, rows512, rows4096;  // 0: not measured
  };
  const auto sized = [](bool large, double kept, Pattern pattern, int32_t shared,
                        Encoding encoding = Encoding::kInt8, int64_t scale_groups = 0) {
    return large ? Sized(8192, 28672, kept, pattern, shared, encoding, scale_groups)
                 : Sized(4096, 14336, kept, pattern, shared, encoding, scale_groups);
  };
  const Measured table[] = {
      {sized(false, 1, Pattern::kDense, 4), 20.2, 76, 514},
      {sized(true, 1, Pattern::kDense, 4), 62.1, 240, 1704},
      {sized(false, 0.5, Pattern::kRuns, 4), 13.6, 54, 361},
      {sized(true, 0.5, Pattern::kRuns, 4), 35.9, 152, 1040},
      {sized(false, 0.2, Pattern::kRuns, 4), 9.6, 39, 265},
      {sized(true, 0.2, Pattern::kRuns, 4), 19.1, 97, 672},
      {sized(false, 0.5, Pattern::kRuns, 2), 0, 72, 490},
      {sized(true, 0.5, Pattern::kRuns, 2), 0, 184, 1452},
      {sized(false, 0.5, Pattern::kQuads, 1), 13.7, 241, 1579},
      {sized(true, 0.5, Pattern::kQuads, 1), 36, 779, 6708},
      {sized(false, 1, Pattern::kDense, 4, Encoding::kInt4, 8), 16, 134, 0},
      {sized(true, 1, Pattern::kDense, 4, Encoding::kInt4, 8), 40.5, 413, 0},
  };
  const CudaTarget& target = Target("sm_90a");
  for (const Measured& m : table) {
    const CudaLayer& layer = m.layer;
    INFO(layer.shape.inputs << " inputs, pattern " << static_cast<int>(layer.pattern) << ", kept "
                            << layer.density() << ", encoding "
                            << static_cast<int>(layer.shape.encoding));
    const auto near = [](double predicted, double measured, double by) {
      INFO("predicted " << predicted << ", measured " << measured);
      if (measured > 0) CHECK(std::abs(predicted / measured - 1) < by);
    };
    near(PredictFewRows(layer, target), m.one_row, 0.2);
    for (const auto& [rows, time] : {std::pair{512, m.rows512}, std::pair{4096, m.rows4096}}) {
      near(PredictManyRows(layer, target, rows, layer.shared_panels), time, 0.13);
    }
  }
}

TEST_CASE("tiles are those of the pattern, narrower where a wide one leaves multiprocessors idle") {
  const CudaTarget& target = Target("sm_90a");
  CHECK(ChooseTile(Sized(4096, 14336, 1, Pattern::kDense, 4), target, 4096) == 4);
  CHECK(ChooseTile(Sized(1024, 1024, 1, Pattern::kDense, 4), target, 512) == 2);
  CHECK(ChooseTile(Sized(4096, 14336, 0.5, Pattern::kRuns, 2), target, 4096) == 2);
  CHECK(ChooseTile(Sized(4096, 14336, 0.5, Pattern::kQuads, 1), target, 4096) == 1);
  // Nothing is gathered that need not be, however small the layer.
  CHECK(ChooseTile(Sized(256, 256, 0.5, Pattern::kRuns, 4), target, 512) == 2);
  // Several rows of scales: no kernel has tiles of two panels; a dense one no tile of one.
  const CudaLayer scaled = Sized(64, 64, 1, Pattern::kDense, 4, Encoding::kInt4, 8);
  CHECK(ChooseTile(scaled, target, 17) == 4);
  CHECK(std::isinf(PredictManyRows(scaled, target, 17, 2)));
  CHECK(std::isinf(PredictManyRows(scaled, target, 17, 1)));
}

TEST_CASE("kernels have a name for what is constant in them, and are written once") {
  const LinearLayer small({.inputs = 64, .outputs = 64}, 1);
  Model model = test::EmptyModel(small);
  test::AppendLinear(model, small);
  test::AppendLinear(model, LinearLayer({.inputs = 64, .outputs = 64}, 2));
  test::AppendLinear(model, small, Activation::kRelu);
  const std::vector<CudaLayer> layers = FindCudaLayers(model);
  REQUIRE(layers.size() == 3);
  const CudaPlan plan = PlanCudaCode(layers, Target("sm_80"), 512);
  CHECK(plan.kernels == 6);
  std::set<std::string> names;
  for (const CudaLayer& layer : layers) {
    for (const std::string& name :
         KernelNames(InstanceOf(layer, 2, Target("sm_80")), Target("sm_80"))) {
      names.insert(name);
      INFO(name);
      const size_t at = plan.source.find(name + "(");
      CHECK(at != std::string::npos);
      CHECK(plan.source.find(name + "(", at + 1) == std::string::npos);
    }
  }
  CHECK(names.size() == 6);
  CHECK(plan.source.find(fmt::format("sparsefuse_code_{}(", cuda::HeadersDigest())) !=
        std::string::npos);
  CHECK(cuda::MarkName() == fmt::format("sparsefuse_code_{}", cuda::HeadersDigest()));
}

TEST_CASE("tiles are those that a timer finds quickest, for all layers of the same kernels") {
  const CudaTarget& target = Target("sm_90a");
  const CudaLayer full = Sized(1024, 1024, 0.9, Pattern::kRuns, 4);
  const CudaLayer sparse = Sized(1024, 1024, 0.5, Pattern::kRuns, 4);
  const CudaLayer narrow = Sized(1024, 1024, 0.5, Pattern::kRuns, 2);
  const CudaLayer gathered = Sized(1024, 1024, 0.5, Pattern::kQuads, 1);
  const std::vector<CudaLayer> layers = {full, sparse, sparse, narrow, gathered, gathered};
  int64_t calls = 0;
  const auto times = [&](double full_wide, double sparse_wide) -> TileTimer {
    return [=, &calls](const CudaLayer& layer, int32_t panels) {
      ++calls;
      if (panels != 4) return 10.0;
      return layer.groups == full.groups ? full_wide : sparse_wide;
    };
  };
  // The kernels of the first three have one name, so the first one's loss is the others' gain.
  const CudaPlan wide = PlanCudaCode(layers, target, 512, times(13, 8));
  CHECK(wide.tile_panels == std::vector<int32_t>{4, 4, 4, 2, 1, 1});
  CHECK(calls == 2 + 2 + 1 + 1);  // those that are alike once
  REQUIRE(wide.tiles[2].size() == 2);
  CHECK(wide.tiles[2][0].measured == 8);
  CHECK(wide.tiles[2][1].measured == 10);
  CHECK(wide.tiles[0][0].predicted == PredictManyRows(full, target, 512, 4));
  CHECK(PlanCudaCode(layers, target, 512, times(15, 8)).tile_panels ==
        std::vector<int32_t>{2, 2, 2, 2, 1, 1});
  CHECK(PlanCudaCode(layers, target, 512, times(10, 10)).tile_panels[0] == 4);  // of equals

  // What a timer runs has all tiles, what is published the chosen ones.
  const std::string all = SourceOfAllTiles(layers, target);
  const auto has = [](const std::string& source, const CudaLayer& layer, int32_t panels) {
    const std::string name = cuda::KernelName(InstanceOf(layer, panels, Target("sm_90a")),
                                              ManyRowsStep(Target("sm_90a"), panels));
    return source.find(name + "(") != std::string::npos;
  };
  for (const int32_t panels : {4, 2}) CHECK(has(all, full, panels));
  CHECK(has(all, gathered, 1));
  CHECK_FALSE(has(all, full, 1));
  const std::vector<CudaLayer> one = {full};
  CHECK(has(PlanCudaCode(one, target, 512, times(9, 0)).source, full, 4));
  CHECK_FALSE(has(PlanCudaCode(one, target, 512, times(9, 0)).source, full, 2));
  const CudaPlan predicted = PlanCudaCode(one, target, 512);
  REQUIRE(predicted.tiles[0].size() == 2);
  for (const TileTime& tile : predicted.tiles[0]) CHECK_FALSE(tile.measured.has_value());
}

// Layers of every encoding with every pattern and number of rows of scales, in either type.
std::vector<CudaLayer> EveryKind() {
  std::vector<CudaLayer> layers;
  const struct {
    Pattern pattern;
    int32_t shared;
  } patterns[] = {{Pattern::kDense, 4},
                  {Pattern::kRuns, 4},
                  {Pattern::kRuns, 2},
                  {Pattern::kRuns, 1},
                  {Pattern::kQuads, 1}};
  for (const Encoding encoding :
       {Encoding::kInt8, Encoding::kInt4, Encoding::kNested1, Encoding::kNested4}) {
    for (const auto& [pattern, shared] : patterns) {
      for (const int64_t scale_groups : {0, 8}) {
        if (shared == 2 && scale_groups > 0) continue;
        layers.push_back(Sized(1000, 300, 0.5, pattern, shared, encoding, scale_groups));
        layers.back().half = layers.size() % 2 == 0;
        layers.back().activation = kActivations[layers.size() % std::size(kActivations)];
      }
    }
  }
  return layers;
}

// CUDA's; empty after saying that it is not here.
std::filesystem::path Compiler() {
  const std::filesystem::path home = SPARSEFUSE_CUDA_HOME;
  if (home.empty()) WARN("skipped: CUDA's compiler is not here");
  return home.empty() ? home : home / "bin" / "nvcc";
}

TEST_CASE("code for every kind of layer compiles for every target") {
  const std::filesystem::path compiler = Compiler();
  if (compiler.empty()) return;
  for (const CudaTarget& target : CudaTargets()) {
    // sm_86 and sm_89 compile what sm_80 does; a kind of each is enough.
    std::vector<CudaLayer> layers = EveryKind();
    if (target.name == "sm_86" || target.name == "sm_89") layers.resize(1);
    const CudaPlan plan = PlanCudaCode(layers, target, 512);
    const std::string code = CompileCuda(compiler, plan.source, target.name);
    for (const CudaLayer& layer : layers) {
      const int32_t panels = ChooseTile(layer, target, 512);
      for (const std::string& name : KernelNames(InstanceOf(layer, panels, target), target)) {
        INFO(target.name << " " << name);
        CHECK(code.find(name) != std::string::npos);
      }
    }
  }
}

TEST_CASE("what CUDA's compiler has against a source is reported") {
  const std::filesystem::path compiler = Compiler();
  if (compiler.empty()) return;
  try {
    CompileCuda(compiler, "#include \"kernels/cuda/job.h\"\nint x = y;\n", "sm_80");
    FAIL("compiled");
  } catch (const UserError& error) {
    CHECK(error.code == ErrorCode::kEngine);
    CHECK_THAT(error.Line(), Catch::Matchers::Contains("\"y\" is undefined"));
  }
}

TEST_CASE("an unknown target is answered with those that there are") {
  CHECK_THROWS_WITH(FindCudaTargets(std::vector<std::string>{"cuda:sm_42"}),
                    Catch::Matchers::Contains("sm_42"));
  CHECK_THROWS(FindCudaTargets(std::vector<std::string>{"sm_80"}));
  CHECK(FindCudaTargets(std::vector<std::string>{"cuda:sm_80", "cuda:sm_80"}).size() == 1);
}

TEST_CASE("the configuration takes the targets that there are") {
  std::vector<std::string> targets;
  for (const CudaTarget& target : CudaTargets())
    targets.push_back(fmt::format("cuda:{}", target.name));
  size_t found = 0;
  for (const ConfigSection& section : ConfigSections()) {
    for (const Param& key : section.keys) {
      if (section.name != "output" || key.name != "targets") continue;
      ++found;
      CHECK(key.choices == targets);
    }
  }
  CHECK(found == 1);
}

}  // namespace
}  // namespace sparsefuse
