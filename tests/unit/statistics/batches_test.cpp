#include "passes/statistics/batches.h"

#include <fmt/format.h>

#include <mutex>

#include "tests/support/catch.h"
#include "tests/support/dataset.h"
#include "tests/unit/analysis/graphs.h"
#include "tests/unit/statistics/naive.h"

namespace sparsefuse {
namespace {

using test::ParseGraph;

Feeds One(const std::string& name, Tensor tensor) { return {{name, std::move(tensor)}}; }

Model Doubling() {
  return ParseGraph(R"(<ir_version: 8, opset_import: ["" : 17]>
      g (float[n] x) => (float[n] y) { y = Add(x, x) })");
}

Batches Numbers(int count) {
  Batches batches;
  for (int i = 0; i < count; ++i) {
    batches.push_back(One("x", Tensor::Of<float>({1}, {static_cast<float>(i)})));
  }
  return batches;
}

TEST_CASE("batches are merged in order, whatever the number of threads") {
  const Model model = Doubling();
  const Batches batches = Numbers(7);
  for (const int threads : {1, 2, 3, 16}) {
    INFO(threads);
    Context context;
    context.threads = threads;
    std::vector<float> computed(batches.size()), merged;
    const BatchRun runs[] = {{model, batches, {"y"}}, {model, batches, {"x", "y"}}};
    RunBatches(
        runs, context,
        [&](size_t i, std::vector<std::vector<Tensor>> outputs) {
          computed[i] = outputs[0][0].data<float>()[0] + outputs[1][0].data<float>()[0];
        },
        [&](size_t i) { merged.push_back(computed[i]); });
    CHECK(merged == std::vector<float>{0, 3, 6, 9, 12, 15, 18});
  }
}

TEST_CASE("all outputs of all batches") {
  const Model model = Doubling();
  const Batches batches = Numbers(3);
  const auto outputs = RunBatches({model, batches, {"y"}}, {});
  REQUIRE(outputs.size() == 3);
  CHECK(outputs[2][0].data<float>()[0] == 4);
  CHECK(RunBatches({model, {}, {"y"}}, {}).empty());
}

TEST_CASE("the error of the lowest batch is thrown") {
  const Model model = Doubling();
  const Batches batches = Numbers(6);
  Context context;
  context.threads = 3;
  std::vector<size_t> merged;
  try {
    RunBatches(
        {{{model, batches, {"y"}}}}, context,
        [](size_t i, const std::vector<std::vector<Tensor>>&) {
          if (i >= 4) throw UserError(ErrorCode::kEngine, fmt::format("batch {}", i));
        },
        [&](size_t i) { merged.push_back(i); });
    FAIL("no error");
  } catch (const UserError& error) {
    CHECK(error.message == "batch 4");
  }
  CHECK(merged == std::vector<size_t>{0, 1, 2});
}

Dataset Load(const std::string& batch_dim, int64_t samples) {
  const Model model = ParseGraph(fmt::format(
      R"(<ir_version: 8, opset_import: ["" : 17]> g (float[{},2] x) => (float[{},2] y)
         {{ y = Relu(x) }})",
      batch_dim, batch_dim));
  return test::MakeDataset(model, {{"x", test::Counting({samples, 2})}});
}

std::vector<int64_t> FirstOfEach(const Batches& batches) {
  std::vector<int64_t> shape;
  for (const Feeds& feeds : batches) shape.push_back(feeds[0].second.dims()[0]);
  return shape;
}

TEST_CASE("samples are stacked into batches, a fixed batch is never short") {
  const std::vector<int64_t> samples = {1, 3, 4, 6, 7};
  const Batches batches = MakeBatches(Load("n", 8), samples, 2);
  CHECK(FirstOfEach(batches) == std::vector<int64_t>{2, 2, 1});
  CHECK(batches[1][0].second.data<float>()[2] == 12);  // sample 6
  CHECK(FirstOfEach(MakeBatches(Load("n", 8), samples, 0)) == std::vector<int64_t>{1, 1, 1, 1, 1});
  CHECK(FirstOfEach(MakeBatches(Load("4", 8), samples, 2)) == std::vector<int64_t>{4});
  const Batches few = MakeBatches(Load("4", 8), std::vector<int64_t>{5, 2}, 2);
  CHECK(FirstOfEach(few) == std::vector<int64_t>{4});
  CHECK(few[0][0].second.data<float>()[6] == 4);  // sample 2 again
}

// --- Padding
// --------------------------------------------------------------------------------------

// Attention over [batch, tokens, 4] with a mask, and token types that are looked up.
Model WithMask(const std::string& mask_nodes) {
  return ParseGraph(fmt::format(
      R"(<ir_version: 8, opset_import: ["" : 17]>
         g (int64[b,s] types, float[b,s,4] x, int64[b,s] mask) => (float[b,s,4] y)
         <float[2,4] table = ?, float one = {{1.0}}, float low = {{-10000.0}},
          int64[2] axes = {{1, 2}}, int64 zero = {{0}}, int64[1] first = {{1}}> {{
           e = Gather(table, types)
           h = Add(x, e)
           t = Transpose<perm = [0, 2, 1]>(h)
           scores = MatMul(h, t)
           {}
           p = Softmax(masked)
           y = MatMul(p, h)
         }})",
      mask_nodes));
}

Tensor Ints(Dims dims, const std::vector<int64_t>& values) {
  return Tensor::Of<int64_t>(std::move(dims), values);
}

Batches Padded(const std::vector<int64_t>& types, const std::vector<int64_t>& mask) {
  return {{{"types", Ints({2, 3}, types)},
           {"x", test::RandomTensor({2, 3, 4}, 1)},
           {"mask", Ints({2, 3}, mask)}}};
}

TEST_CASE("the padding mask is found by what is done with it") {
  const Batches batches = Padded({0, 0, 1, 0, 1, 1}, {1, 1, 0, 1, 1, 1});
  for (const char* nodes : {
           "u = Unsqueeze(mask, first) c = Cast<to = 1>(u) d = Sub(one, c) f = Mul(d, low) "
           "masked = Add(scores, f)",
           "u = Unsqueeze(mask, first) q = Equal(u, zero) masked = Where(q, low, scores)",
       }) {
    INFO(nodes);
    CHECK(FindPaddingMask(WithMask(nodes), batches) == "mask");
  }
  // Read by nothing that leads to the scores.
  CHECK(
      !FindPaddingMask(WithMask("unused = Cast<to = 1>(mask) masked = Identity(scores)"), batches));
  // A lookup by the mask is none of its elements.
  CHECK(!FindPaddingMask(
      WithMask("m = Gather(table, mask) r = Transpose<perm = [0, 2, 1]>(m) q = MatMul(m, r) "
               "masked = Add(scores, q)"),
      batches));
}

TEST_CASE("a mask holds 0 and 1, something of every sample, and pads somewhere") {
  const Model model =
      WithMask("u = Unsqueeze(mask, first) c = Cast<to = 1>(u) masked = Mul(scores, c)");
  const auto find = [&](const std::vector<int64_t>& mask) {
    return FindPaddingMask(model, Padded({0, 0, 0, 0, 0, 0}, mask)).has_value();
  };
  CHECK(find({0, 1, 1, 1, 1, 1}));   // on the left
  CHECK(!find({1, 1, 1, 1, 1, 1}));  // nothing is left out
  CHECK(!find({1, 1, 0, 0, 0, 0}));
  CHECK(!find({1, 2, 0, 1, 1, 1}));
  CHECK(!find({1, -1, 0, 1, 1, 1}));
  Batches two = Padded({0, 0, 0, 0, 0, 0}, {1, 1, 1, 1, 1, 1});
  two.push_back(Padded({0, 0, 0, 0, 0, 0}, {1, 1, 0, 1, 0, 0})[0]);
  CHECK(FindPaddingMask(model, two) == "mask");
  CHECK(!FindPaddingMask(model, {}));
}

TEST_CASE("rows follow the mask where their axes are the mask's") {
  const Feeds feeds = One("mask", Ints({2, 3}, {1, 1, 0, 1, 0, 0}));
  const auto kept = [&](const Dims& dims) { return KeptRows("mask", feeds, dims); };
  CHECK(kept({2, 3}) == std::vector<bool>{1, 1, 0, 1, 0, 0});
  CHECK(kept({6}) == std::vector<bool>{1, 1, 0, 1, 0, 0});
  CHECK(kept({2, 3, 2}) == std::vector<bool>{1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0});
  CHECK(kept({2}).empty());
  CHECK(kept({3, 2}).empty());
  CHECK(kept({}).empty());
  CHECK(KeptRows(std::nullopt, feeds, Dims{2, 3}).empty());
}

}  // namespace
}  // namespace sparsefuse
