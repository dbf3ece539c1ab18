#include "tests/kernels/plugin_session.h"

#include <cmath>
#include <string>

#include "kernels/base/float16.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {

Ort::Session Load(const NodeModel& model, const Ort::SessionOptions& options) {
  const std::string bytes = model.Bytes();
  return {Environment(), bytes.data(), bytes.size(), options};
}

Ort::Session Load(const NodeModel& model, int threads) {
  return Load(model, Options(threads, SPARSEFUSE_OPS_LIBRARY));
}

Output Run(Ort::Session& session, std::vector<float> x, const std::vector<int64_t>& dims) {
  const Ort::Value input = Tensor(x, dims);
  const char *in = "X", *out = "Y";
  std::vector<Ort::Value> y = session.Run({}, &in, &input, 1, &out, 1);
  const auto info = y[0].GetTensorTypeAndShapeInfo();
  const float* data = y[0].GetTensorData<float>();
  return {{data, data + info.GetElementCount()}, info.GetShape()};
}

Output RunHalf(Ort::Session& session, std::vector<float>& x, const std::vector<int64_t>& dims) {
  std::vector<Ort::Float16_t> half(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    half[i] = Ort::Float16_t::FromBits(FloatToFloat16(x[i]));
    x[i] = Float16ToFloat(half[i].val);
  }
  const Ort::Value input = Tensor(half, dims);
  const char *in = "X", *out = "Y";
  const std::vector<Ort::Value> y = session.Run({}, &in, &input, 1, &out, 1);
  const auto info = y[0].GetTensorTypeAndShapeInfo();
  REQUIRE(info.GetElementType() == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16);
  Output output{{}, info.GetShape()};
  for (size_t i = 0; i < info.GetElementCount(); ++i) {
    output.values.push_back(Float16ToFloat(y[0].GetTensorData<Ort::Float16_t>()[i].val));
  }
  return output;
}

void CheckAgainst(const Exact& exact, const std::vector<float>& y, bool half) {
  REQUIRE(y.size() == exact.y.size());
  for (size_t i = 0; i < y.size(); ++i) {
    INFO("element " << i);
    const double rounding = half ? std::fabs(exact.y[i]) * 0x1p-11 + 0x1p-25 : 0;
    REQUIRE(std::fabs(y[i] - exact.y[i]) <= exact.bound[i] + rounding);
  }
}

}  // namespace sparsefuse::test
