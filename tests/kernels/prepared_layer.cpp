#include "tests/kernels/prepared_layer.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "kernels/base/float16.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {

const LinearKernel& Reference() { return *AllLinearKernels().back(); }

PreparedLayer::PreparedLayer(const LinearKernel& kernel, const LinearLayer& layer)
    : kernel_(kernel),
      prepared_(kernel.prepared_bytes(layer.weights()), kLinearAlignment),
      constants_(std::make_unique<Constants>(layer)) {
  weights_ = layer.weights();
  weights_.weight = constants_->packed.data();
  weights_.scale_code = constants_->scale_code.data();
  weights_.bias = constants_->bias.data();
  if (weights_.smooth) weights_.smooth = constants_->smooth.data();
  if (weights_.gate) weights_.gate = constants_->gate.data();
  if (layer.shape.sparse) {
    weights_.blocks = {constants_->quad.data(), constants_->group_ptr.data()};
  }
  kernel.prepare(weights_, prepared_.data());
  REQUIRE(prepared_.Intact());
  if (!kernel.reads_weights) {
    constants_ = nullptr;
    weights_ = LinearWeights{.shape = layer.shape};
  }
}

template <typename Element>
std::vector<Element> PreparedLayer::RunElements(const std::vector<Element>& x, int64_t rows,
                                                const Trial& trial, int64_t* easy_rows) const {
  const Guarded<Element> in(x);
  const Guarded<Element> out(static_cast<size_t>(rows * weights_.shape.outputs));
  const Guarded<std::byte> workspace(kernel_.workspace_bytes(weights_.shape, rows),
                                     kLinearAlignment);
  kernel_.run(weights_, prepared_.data(),
              {.rows = rows,
               .x = in.data(),
               .y = out.data(),
               .half = std::is_same_v<Element, uint16_t>,
               .activation = trial.activation,
               .gate = trial.gate,
               .easy_rows = easy_rows,
               .workspace = workspace.data(),
               .parallel = trial.parallel});
  REQUIRE(out.Intact());
  REQUIRE(workspace.Intact());
  return {out.values().begin(), out.values().end()};
}

std::vector<float> PreparedLayer::Run(const std::vector<float>& x, int64_t rows, const Trial& trial,
                                      int64_t* easy_rows) const {
  if (!trial.half) return RunElements(x, rows, trial, easy_rows);
  std::vector<uint16_t> narrow(x.size());
  std::transform(x.begin(), x.end(), narrow.begin(), FloatToFloat16);
  const std::vector<uint16_t> y = RunElements(narrow, rows, trial, easy_rows);
  std::vector<float> wide(y.size());
  std::transform(y.begin(), y.end(), wide.begin(), Float16ToFloat);
  return wide;
}

std::vector<float> RoundToHalf(std::vector<float> values) {
  for (float& v : values) v = Float16ToFloat(FloatToFloat16(v));
  return values;
}

void CheckAgainst(const Exact& exact, const std::vector<float>& y) {
  REQUIRE(y.size() == exact.y.size());
  for (size_t i = 0; i < y.size(); ++i) {
    INFO("element " << i);
    if (std::isnan(exact.y[i])) {
      REQUIRE(std::isnan(y[i]));
    } else {
      REQUIRE(std::fabs(y[i] - exact.y[i]) <= exact.bound[i]);
    }
  }
}

}  // namespace sparsefuse::test
