// Zeros in the embedded demo: what the design says about them, measured.

#include <algorithm>

#include "onnx_io/reader.h"
#include "passes/engine/evaluate.h"
#include "passes/framework/pass.h"
#include "passes/framework/runner.h"
#include "passes/statistics/matrix.h"
#include "passes/statistics/zeros.h"
#include "tests/support/catch.h"
#include "tests/support/demo.h"

namespace sparsefuse {
namespace {

// Of all matrices that have any.
double ZeroBlocks(const Model& model) {
  double zeros = 0, all = 0;
  for (const Node* node : model.graph().TopologicalOrder()) {
    const std::optional<MatrixView> matrix = AsMatrix(*node);
    if (!matrix) continue;
    const ZeroMask mask = ExistingZeros(Weight(*matrix), Pattern::kBlock);
    if (ZeroShare(mask) == 0) continue;
    zeros += ZeroShare(mask) * static_cast<double>(mask.size());
    all += static_cast<double>(mask.size());
  }
  return zeros / std::max(all, 1.0);
}

// Both feed-forward and attention layers, few enough for a quick test.
const nlohmann::json kSome = {"node_MatMul_47", "node_MatMul_5*", "node_MatMul_67",
                              "node_MatMul_101", "node_MatMul_103"};

TEST_CASE("blocks with feedback cost less than half of blocks by magnitude", "[large]") {
  test::Demo demo(40);
  const auto sparse = [&](const char* method) {
    return demo.After("sparsify", {{"sparsity", 0.5},
                                   {"of", kSome},
                                   {"quad_multiple", 1},
                                   {"method", method},
                                   {"distribute", "uniform"}});
  };
  const Model plain = sparse("magnitude"), repaired = sparse("sparsegpt");
  CHECK(ZeroBlocks(plain) == Approx(0.5));
  CHECK(ZeroBlocks(repaired) == Approx(0.5));
  CHECK(demo.Kl(repaired) < 0.5 * demo.Kl(plain));
}

TEST_CASE("zeros are the same bytes with one thread and two, in any order of units", "[large]") {
  test::Demo demo(12);
  const nlohmann::json settings = {
      {"sparsity", 0.3}, {"of", {"node_MatMul_5*"}}, {"permute", true}};
  CHECK(ModelSnapshot(demo.After("sparsify", settings, 1)) ==
        ModelSnapshot(demo.After("sparsify", settings, 2)));
}

}  // namespace
}  // namespace sparsefuse
