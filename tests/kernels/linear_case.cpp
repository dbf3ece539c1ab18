#include "tests/kernels/linear_case.h"

#include <cmath>
#include <limits>

namespace sparsefuse::test {

LinearLayer::LinearLayer(LinearShape layer_shape, uint32_t seed, bool with_smooth)
    : shape(layer_shape), scale_base(1e-6f) {
  std::mt19937 random(seed);
  const auto inputs = static_cast<size_t>(shape.inputs);
  const auto outputs = static_cast<size_t>(shape.outputs);
  std::uniform_int_distribution<int> code(-127, 127), byte(0, 255);
  std::normal_distribution<float> normal;
  codes.resize(inputs * outputs);
  for (int8_t& c : codes) c = static_cast<int8_t>(code(random));
  packed.resize(static_cast<size_t>(shape.panels() * shape.groups() * kGroupBytes8));
  PackDense8(codes, shape.inputs, shape.outputs, packed);
  scale_code.resize(
      static_cast<size_t>(shape.panels() * shape.scale_rows_per_panel() * kPanelOutputs));
  for (uint8_t& c : scale_code) c = static_cast<uint8_t>(byte(random));
  bias.resize(outputs);
  for (float& b : bias) b = normal(random);
  if (with_smooth) {
    smooth.resize(inputs);
    for (float& s : smooth) s = std::exp(normal(random));
  }
}

LinearWeights LinearLayer::weights() const {
  return {.shape = shape,
          .weight = packed.data(),
          .scale_code = scale_code.data(),
          .scale_base = scale_base,
          .bias = bias.data(),
          .smooth = smooth.empty() ? nullptr : smooth.data()};
}

std::vector<float> RandomRows(int64_t rows, int64_t inputs, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(rows * inputs));
  for (float& v : x) v = normal(random);
  return x;
}

namespace {

// q and s of one row.
double QuantizeExactly(const std::vector<float>& x, std::vector<double>& q) {
  double largest = 0;
  bool finite = true;
  for (float v : x) {
    finite = finite && std::isfinite(v);
    largest = std::max(largest, std::fabs(static_cast<double>(v)));
  }
  if (!finite) return std::numeric_limits<double>::quiet_NaN();
  // The scale and the quotient are float32 numbers by definition: they decide ties.
  const float a = static_cast<float>(largest);
  const float s = std::fmax(a / 127.0f, std::ldexp(1.0f, -126));
  for (size_t k = 0; k < x.size(); ++k) {
    const double quotient = x[k] / s;
    double rounded = std::floor(quotient + 0.5);
    if (rounded - quotient == 0.5 && std::fmod(rounded, 2.0) != 0) rounded -= 1;  // tie to even
    q[k] = std::fmin(std::fmax(rounded, -127.0), 127.0);
  }
  return s;
}

}  // namespace

Exact ExactLinear(const LinearLayer& layer, const std::vector<float>& x, int64_t rows) {
  const LinearShape& shape = layer.shape;
  const int64_t outputs = shape.outputs, inputs = shape.inputs;
  const int64_t group_inputs = shape.scale_groups == 0 ? inputs : shape.scale_groups * 64;
  const int64_t scale_rows = (inputs + group_inputs - 1) / group_inputs;
  Exact result{std::vector<double>(static_cast<size_t>(rows * outputs)), {}};
  result.bound = result.y;
  std::vector<float> row(static_cast<size_t>(inputs));
  std::vector<double> q(row.size());
  for (int64_t m = 0; m < rows; ++m) {
    for (int64_t k = 0; k < inputs; ++k) {
      const auto i = static_cast<size_t>(k);
      row[i] = x[static_cast<size_t>(m * inputs + k)];
      if (!layer.smooth.empty()) row[i] *= layer.smooth[i];
    }
    const double s = QuantizeExactly(row, q);
    for (int64_t n = 0; n < outputs; ++n) {
      double sum = 0, magnitude = 0;
      for (int64_t g = 0; g < scale_rows; ++g) {
        double t = 0;
        for (int64_t k = g * group_inputs; k < std::min(inputs, (g + 1) * group_inputs); ++k) {
          t += q[static_cast<size_t>(k)] * layer.codes[static_cast<size_t>(n * inputs + k)];
        }
        const auto code =
            layer.scale_code[static_cast<size_t>((n / 32 * scale_rows + g) * 32 + n % 32)];
        const double product = layer.scale_base * std::exp2(code / 16.0) * t;
        sum += product;
        magnitude += std::fabs(product);
      }
      const auto i = static_cast<size_t>(m * outputs + n);
      result.y[i] = s * sum + layer.bias[static_cast<size_t>(n)];
      result.bound[i] =
          static_cast<double>(scale_rows + 4) * 0x1p-24 * (s * magnitude + std::fabs(result.y[i]));
    }
  }
  return result;
}

}  // namespace sparsefuse::test
