#include "tests/kernels/linear_case.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace sparsefuse::test {

LinearLayer::LinearLayer(LinearShape layer_shape, uint32_t seed, bool with_smooth, double density)
    : shape(layer_shape), scale_base(1e-6f) {
  std::mt19937 random(seed);
  const auto inputs = static_cast<size_t>(shape.inputs);
  const auto outputs = static_cast<size_t>(shape.outputs);
  const int most = shape.encoding == Encoding::kInt4 ? 7 : 127;
  std::uniform_int_distribution<int> code(IsNested(shape.encoding) ? -128 : -most, most);
  std::uniform_int_distribution<int> byte(0, 255);
  std::normal_distribution<float> normal;
  codes.resize(inputs * outputs);
  for (int8_t& c : codes) c = static_cast<int8_t>(code(random));
  if (shape.sparse) {
    std::vector<std::vector<int64_t>> kept(static_cast<size_t>(shape.panels()));
    std::bernoulli_distribution keep(density);
    for (auto& quads : kept) {
      for (int64_t q = 0; q < QuadCount(shape.inputs); ++q) {
        if (keep(random)) quads.push_back(q);
      }
    }
    SetQuads(*this, kept);
  }
  Pack();
  int64_t rows = 0;
  for (int64_t p = 0; p < shape.panels(); ++p) {
    rows += shape.ScaleRows(weights().FirstGroup(p + 1) - weights().FirstGroup(p));
  }
  scale_code.resize(static_cast<size_t>(rows * kPanelOutputs));
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
          .smooth = smooth.empty() ? nullptr : smooth.data(),
          .blocks = {.quad = shape.sparse ? quad.data() : nullptr,
                     .group_ptr = shape.sparse ? group_ptr.data() : nullptr},
          .gate = gate.empty() ? nullptr : gate.data()};
}

int64_t LinearLayer::groups() const {
  return shape.sparse ? group_ptr.back() : shape.panels() * GroupsPerPanel(shape.inputs);
}

void LinearLayer::Pack() {
  packed.assign(static_cast<size_t>(groups() * GroupBytes(shape.encoding)), std::byte{});
  PackWeights(shape.encoding, weights().blocks, codes, shape.inputs, shape.outputs, packed);
}

void SetQuads(LinearLayer& layer, const std::vector<std::vector<int64_t>>& kept) {
  layer.quad.clear();
  layer.quad.reserve(16);  // data() must not be null, even when nothing is kept
  layer.group_ptr = {0};
  for (const std::vector<int64_t>& quads : kept) {
    for (int64_t q : quads) layer.quad.push_back(static_cast<uint16_t>(q));
    while (layer.quad.size() % 16 != 0) {
      layer.quad.push_back(static_cast<uint16_t>(QuadCount(layer.shape.inputs)));
    }
    layer.group_ptr.push_back(static_cast<int32_t>(layer.quad.size() / 16));
  }
}

void BoundPairs(LinearLayer& layer) {
  for (int8_t& c : layer.codes) c = static_cast<int8_t>(c / 2);
  layer.Pack();
}

std::vector<float> RandomRows(int64_t rows, int64_t inputs, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(rows * inputs));
  for (float& v : x) v = normal(random);
  return x;
}

void MakeIntegral(LinearLayer& layer) {
  layer.scale_base = 1;
  std::fill(layer.scale_code.begin(), layer.scale_code.end(), uint8_t{0});
  std::fill(layer.bias.begin(), layer.bias.end(), 0.0f);
}

std::vector<float> IntegralRows(int64_t rows, int64_t inputs, float spread) {
  std::vector<float> x = RandomRows(rows, inputs, 10);
  for (float& v : x) v = std::clamp(v * spread, -127.0f, 127.0f);
  for (int64_t r = 0; r < rows; ++r) x[static_cast<size_t>(r * inputs)] = 127;
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

double WeightOf(Encoding encoding, int8_t code, bool easy) {
  const int high = (code - (code & 15)) / 16, low = code & 15;
  switch (encoding) {
    case Encoding::kInt8:
    case Encoding::kInt4:
      return code;
    case Encoding::kNested1:
      return easy ? 16 * high + 8 : 16 * high + low;
    case Encoding::kNested4:
      return easy ? 4 * high : 4 * high + (low >= 8 ? low - 16 : low);
  }
  return 0;
}

double Activated(Activation activation, double v) {
  switch (activation) {
    case Activation::kRelu:
      return std::max(v, 0.0);
    case Activation::kGelu:
      return 0.5 * v * (1 + std::erf(v / std::sqrt(2.0)));
    case Activation::kGeluTanh:
      return 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
    case Activation::kSilu:
      return v / (1 + std::exp(-v));
    case Activation::kNone:
      break;
  }
  return v;
}

// The kept quads of an output's panel, in order.
std::vector<int64_t> Quads(const LinearLayer& layer, int64_t panel) {
  std::vector<int64_t> quads(static_cast<size_t>(QuadCount(layer.shape.inputs)));
  std::iota(quads.begin(), quads.end(), 0);
  if (layer.shape.sparse) {
    const auto p = static_cast<size_t>(panel);
    quads.assign(layer.quad.begin() + layer.group_ptr[p] * 16,
                 layer.quad.begin() + layer.group_ptr[p + 1] * 16);
  }
  return quads;
}

}  // namespace

double GateEstimate(std::span<const float> gate, std::span<const float> smooth,
                    std::span<const float> row) {
  const std::span<const float> sketch = gate.subspan(4);
  const auto value = [&](size_t k) { return static_cast<double>(row[k]) * smooth[k]; };
  double square = 0;
  if (gate[3] == 0) {
    for (size_t k = 0; k < row.size(); ++k) square += value(k) * value(k);
  }
  for (size_t r = 0; r < static_cast<size_t>(gate[3]); ++r) {
    double sum = 0;
    for (size_t k = 0; k < row.size(); ++k) sum += value(k) * sketch[r * row.size() + k];
    square += sum * sum;
  }
  return gate[0] * std::sqrt(square) + gate[1];
}

Exact ExactLinear(const LinearLayer& layer, const std::vector<float>& x, int64_t rows,
                  const std::vector<bool>& easy, Activation activation) {
  const LinearShape& shape = layer.shape;
  const int64_t outputs = shape.outputs, inputs = shape.inputs;
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
    const bool is_easy = !easy.empty() && easy[static_cast<size_t>(m)];
    size_t first_scale = 0;
    for (int64_t panel = 0; panel < (outputs + 31) / 32; ++panel) {
      const std::vector<int64_t> quads = Quads(layer, panel);
      const size_t step = shape.scale_groups == 0 ? std::max<size_t>(quads.size(), 1)
                                                  : static_cast<size_t>(shape.scale_groups) * 16;
      const size_t scale_rows = shape.scale_groups == 0 ? 1 : (quads.size() + step - 1) / step;
      for (int64_t n = panel * 32; n < std::min(outputs, panel * 32 + 32); ++n) {
        double sum = 0, magnitude = 0;
        for (size_t g = 0; g < scale_rows; ++g) {
          double t = 0;
          for (size_t i = g * step; i < std::min(quads.size(), (g + 1) * step); ++i) {
            for (int64_t k = quads[i] * 4; k < std::min(quads[i] * 4 + 4, inputs); ++k) {
              t += q[static_cast<size_t>(k)] *
                   WeightOf(shape.encoding, layer.codes[static_cast<size_t>(n * inputs + k)],
                            is_easy);
            }
          }
          const uint8_t code =
              layer.scale_code[(first_scale + g) * 32 + static_cast<size_t>(n % 32)];
          const double product = layer.scale_base * std::exp2(code / 16.0) * t;
          sum += product;
          magnitude += std::fabs(product);
        }
        const auto i = static_cast<size_t>(m * outputs + n);
        const double v = s * sum + layer.bias[static_cast<size_t>(n)];
        const double bound =
            static_cast<double>(scale_rows + 4) * 0x1p-24 * (s * magnitude + std::fabs(v));
        result.y[i] = Activated(activation, v);
        // No activation is steeper than 1.13.
        result.bound[i] = activation == Activation::kNone
                              ? bound
                              : 1.13 * bound + kActivationError * std::fabs(v);
      }
      first_scale += scale_rows;
    }
  }
  return result;
}

}  // namespace sparsefuse::test
