#include "tests/cuda/kernel_checks.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <span>

#include "tests/kernels/prepared_layer.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {

void CheckDefinition(const LinearLayer& layer, std::initializer_list<const DeviceLayer*> devices,
                     int64_t rows) {
  INFO("encoding " << static_cast<int>(layer.shape.encoding) << ", sparse " << layer.shape.sparse
                   << ", K " << layer.shape.inputs << ", N " << layer.shape.outputs << ", groups "
                   << layer.shape.scale_groups << ", rows " << rows);
  const std::vector<float> x = RandomRows(rows, layer.shape.inputs, 5);
  const Exact exact = ExactLinear(layer, x, rows);
  for (const DeviceLayer* device : devices) CheckAgainst(exact, device->Run(x, rows));
}

void CheckActivations(const LinearShape& shape, int64_t rows) {
  const LinearLayer layer(shape, 12);
  const DeviceLayer device(layer);
  const std::vector<float> x = RandomRows(rows, shape.inputs, 8);
  for (const Activation activation : kActivations) {
    INFO(ActivationName(activation) << ", rows " << rows);
    CheckAgainst(ExactLinear(layer, x, rows, {}, activation),
                 device.Run(x, rows, false, activation));
    Exact exact = ExactLinear(layer, RoundToHalf(x), rows, {}, activation);
    for (size_t i = 0; i < exact.y.size(); ++i) {
      exact.bound[i] += std::fabs(exact.y[i]) * 0x1p-11 + 0x1p-25;
    }
    CheckAgainst(exact, device.Run(x, rows, true, activation));
  }
}

void CheckSpecialRows(const LinearShape& shape, int64_t rows) {
  const LinearLayer layer(shape, 2);
  const DeviceLayer device(layer);
  std::vector<float> x = RandomRows(rows, shape.inputs, 3);
  const std::vector<float> before = device.Run(x, rows);
  const auto row = [&](int64_t r) { return x.begin() + r * shape.inputs; };
  row(1)[shape.inputs / 2] = std::numeric_limits<float>::quiet_NaN();
  row(2)[shape.inputs - 1] = -std::numeric_limits<float>::infinity();
  std::fill(row(3), row(3) + shape.inputs, 0.0f);
  const std::vector<float> y = device.Run(x, rows);
  const auto outputs = static_cast<size_t>(shape.outputs);
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t r = i / outputs, n = i % outputs;
    INFO("rows " << rows << ", row " << r << ", output " << n);
    if (r == 1 || r == 2) {
      REQUIRE(std::isnan(y[i]));
    } else {
      REQUIRE(y[i] == (r == 3 ? layer.bias[n] : before[i]));
    }
  }
}

LinearLayer GatedLayer(Encoding encoding, bool sparse, int64_t sketch_rows, float easy_below) {
  LinearLayer layer({200, 70, 0, encoding, sparse}, 21, true, 0.5);
  layer.gate = {2, 0.25f, easy_below, static_cast<float>(sketch_rows)};
  const std::vector<float> sketch = RandomRows(sketch_rows, layer.shape.inputs, 22);
  layer.gate.insert(layer.gate.end(), sketch.begin(), sketch.end());
  return layer;
}

void CheckEasyRows(const LinearLayer& gated, const DeviceLayer& device, int64_t rows) {
  const LinearShape& shape = gated.shape;
  std::vector<float> x = RandomRows(rows, shape.inputs, 23);
  std::vector<bool> easy;
  for (int64_t r = 0; r < rows; ++r) {
    easy.push_back(r % 3 != 1);
    // So near to the gate's threshold that whatever is wrong in the norm decides otherwise.
    const std::span row = std::span(x).subspan(static_cast<size_t>(r * shape.inputs),
                                               static_cast<size_t>(shape.inputs));
    const double wanted = gated.gate[2] * (easy.back() ? 0.999 : 1.001), b = gated.gate[1];
    const double factor = (wanted - b) / (GateEstimate(gated.gate, gated.smooth, row) - b);
    for (float& v : row) v *= static_cast<float>(factor);
  }
  INFO("encoding " << static_cast<int>(shape.encoding) << ", sparse " << shape.sparse << ", sketch "
                   << gated.gate[3] << ", rows " << rows);
  int64_t counted = 0;
  CheckAgainst(ExactLinear(gated, x, rows, easy),
               device.Run(x, rows, false, Activation::kNone, GateMode::kAlways, &counted));
  REQUIRE(counted == std::count(easy.begin(), easy.end(), true));
  CheckAgainst(ExactLinear(gated, x, rows), device.Run(x, rows));
}

std::vector<float> SparseRows(int64_t rows, int64_t inputs, double zeros, uint32_t seed) {
  std::vector<float> x = RandomRows(rows, inputs, seed);
  std::mt19937 random(seed);
  std::bernoulli_distribution everywhere(zeros), here(zeros / 2);
  for (int64_t k = 0; k < inputs; ++k) {
    const bool in_all = everywhere(random);
    for (int64_t r = 0; r < rows; ++r) {
      if (in_all || here(random)) x[static_cast<size_t>(r * inputs + k)] = 0;
    }
  }
  return x;
}

LinearLayer SkippingLayer(LinearShape shape, bool smooth) {
  shape.zero_inputs = 1;
  return LinearLayer(shape, 7, smooth);
}

void CheckSkippingSums(LinearShape shape, int64_t rows) {
  LinearLayer layer = SkippingLayer(shape);
  MakeIntegral(layer);
  const DeviceLayer device(layer);
  REQUIRE(device.layer().input_words);
  std::vector<float> x = IntegralRows(rows, shape.inputs);
  for (size_t i = 0; i < x.size(); ++i) {
    const bool first = static_cast<int64_t>(i) % shape.inputs == 0;  // makes the row's scale 1
    if (i % 7 != 0 && !first) x[i] = 0;
  }
  INFO("encoding " << static_cast<int>(shape.encoding) << ", rows " << rows);
  REQUIRE((device.Run(x, rows) == PreparedLayer(Reference(), layer).Run(x, rows)));
}

}  // namespace sparsefuse::test
