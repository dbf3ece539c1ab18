#include "passes/quantize/equalization.h"

#include <cmath>

#include "passes/engine/engine.h"
#include "passes/quantize/activation_ranges.h"
#include "tests/support/catch.h"
#include "tests/support/dataset.h"
#include "tests/support/models.h"
#include "tests/support/random.h"

namespace sparsefuse {
namespace {

using test::NormalTensor;

// Deviation of filter m: spread^m, so that channels differ.
Tensor Weights(const Dims& dims, uint32_t seed, double spread) {
  std::vector<float> values = test::NormalValues(*ElementCount(dims), seed);
  const size_t filter = values.size() / static_cast<size_t>(dims[0]);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] *= static_cast<float>(std::pow(spread, static_cast<double>(i / filter)));
  }
  return Tensor::Of(dims, values);
}

// A dense, a depthwise, a grouped and a dense convolution, and a tensor that is given out.
Model FourConvolutions() {
  return test::ModelWith(17, R"(g (float[N,3,6,6] x) => (float[N,4,6,6] y, float[N,4,6,6] given) <
      float[1] w0 = {0}, float[1] b0 = {0}, float[1] wd = {0}, float[1] bd = {0},
      float[1] wg = {0}, float[1] w1 = {0}> {
      c0 = Conv(x, w0, b0)
      r0 = Relu(c0)
      d = Conv<group = 4>(r0, wd, bd)
      rd = Relu(d)
      e = Conv<group = 2>(rd, wg)
      given = Relu(e)
      y = Conv(given, w1)
    })",
                         {{"w0", Weights({4, 3, 1, 1}, 1, 2)},
                          {"b0", Tensor::Of({4}, std::vector<float>(4, 1.0f))},
                          {"wd", Weights({4, 1, 1, 1}, 3, 2)},
                          {"bd", Tensor::Of({4}, std::vector<float>(4, 1.0f))},
                          {"wg", Weights({4, 2, 1, 1}, 5, 1)},
                          {"w1", Weights({4, 4, 1, 1}, 6, 1)}});
}

Feeds Samples() { return {{"x", NormalTensor({5, 3, 6, 6}, 9)}}; }

float ChannelRatio(const Model& model, const std::string& tensor, const Feeds& feeds) {
  const std::vector<std::string> names = {tensor};
  const Tensor value = Session(WithOutputs(model, names), {}).Run(feeds, names).front();
  const std::vector<float> values = value.ToFloats();
  const auto channels = static_cast<size_t>(value.dims()[1]);
  std::vector<float> largest(channels);
  for (size_t i = 0; i < values.size(); ++i) {
    float& m = largest[i / 36 % channels];
    m = std::max(m, std::fabs(values[i]));
  }
  return *std::max_element(largest.begin(), largest.end()) /
         *std::min_element(largest.begin(), largest.end());
}

TEST_CASE("equalised channels are alike and the outputs the same") {
  const Model original = FourConvolutions();
  test::Calibration calibration(original, Samples());
  Model model = original.Clone();
  CHECK(EqualizeChannels(model, {}, calibration.context) == 2);  // not the tensor that is given out
  Verify(model);
  const Feeds feeds = calibration.data.Gather(calibration.context.splits.fit);
  const std::vector<Tensor> a = Session(original, {.optimize = false}).Run(feeds);
  const std::vector<Tensor> b = Session(model, {.optimize = false}).Run(feeds);
  for (size_t i = 0; i < 2; ++i) {
    const std::vector<float> was = a[i].ToFloats(), is = b[i].ToFloats();
    REQUIRE(was.size() == is.size());
    float largest = 0;
    for (float v : was) largest = std::max(largest, std::fabs(v));
    for (size_t k = 0; k < was.size(); ++k) CHECK(std::fabs(is[k] - was[k]) <= 1e-5f * largest);
  }
  CHECK(ChannelRatio(original, "r0", feeds) > 2);
  CHECK(ChannelRatio(model, "r0", feeds) < 1.01f);  // its reader is depthwise
  CHECK(ChannelRatio(model, "rd", feeds) ==
        Approx(std::sqrt(ChannelRatio(original, "rd", feeds))).epsilon(1e-3));
}

TEST_CASE("untouched nodes keep their weights") {
  const Model original = FourConvolutions();
  test::Calibration calibration(original, Samples());
  Model model = original.Clone();
  CHECK(EqualizeChannels(model, {"d"}, calibration.context) == 0);
  CHECK(model.graph().FindValue("w0")->constant()->SharesBytesWith(
      *original.graph().FindValue("w0")->constant()));
}

TEST_CASE("factors bring channels to the largest one, within limits") {
  const std::vector<float> magnitudes = {8, 4, 2, 0.001f, 0};
  CHECK(EqualizingFactors(magnitudes, 1) == std::vector<float>{1, 0.5f, 0.25f, 1 / 32.f, 1 / 32.f});
  const std::vector<float> half = EqualizingFactors(magnitudes, 0.5);
  CHECK(half[1] == Approx(std::sqrt(0.5)));
  CHECK(half[2] == 0.5f);
  CHECK(half[3] == 1 / 32.f);
  CHECK(EqualizingFactors(std::vector<float>{0, 0}, 1) == std::vector<float>{1 / 32.f, 1 / 32.f});
}

}  // namespace
}  // namespace sparsefuse
