// The whole family: every kernel, encoding, dense and sparse, against the format's own definition.

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/base/float16.h"
#include "kernels/linear/gate.h"
#include "tests/kernels/all_kernels.h"
#include "tests/kernels/emulated_vnni.h"
#include "tests/kernels/prepared_layer.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

constexpr Encoding kEncodings[] = {Encoding::kInt8, Encoding::kInt4, Encoding::kNested1,
                                   Encoding::kNested4};
const char* Name(Encoding encoding) {
  constexpr const char* kNames[] = {"int8", "int4", "nested1", "nested4"};
  return kNames[static_cast<size_t>(encoding)];
}

template <typename Visit>
void ForEachVariant(const Visit& visit) {
  for (const Encoding encoding : kEncodings) {
    for (const bool sparse : {false, true}) {
      INFO(Name(encoding) << (sparse ? " sparse" : " dense"));
      visit(encoding, sparse);
    }
  }
}

TEST_CASE("every variant meets the definition for sizes around every tile") {
  ForEachVariant([](Encoding encoding, bool sparse) {
    for (const LinearKernel* kernel : Kernels()) {
      uint32_t seed = 0;
      for (const int64_t inputs : {1, 4, 5, 64, 67, 130, 300}) {
        for (const int64_t outputs : {1, 16, 31, 33, 70}) {
          for (const int64_t scale_groups : {0, 1, 2, 8}) {
            const LinearShape shape = {inputs, outputs, scale_groups, encoding, sparse};
            ++seed;
            LinearLayer layer(shape, seed, seed % 3 == 0, seed % 5 * 0.25);
            if (seed % 2 == 0 && encoding == Encoding::kInt8) BoundPairs(layer);
            const PreparedLayer prepared(*kernel, layer);
            for (const int64_t rows : {1, 2, 5, 6, 7, 13}) {
              INFO(kernel->name << ", K " << inputs << ", N " << outputs << ", G " << scale_groups
                                << ", rows " << rows << ", seed " << seed);
              const std::vector<float> x = RandomRows(rows, inputs, seed);
              CheckAgainst(ExactLinear(layer, x, rows), prepared.Run(x, rows));
            }
          }
        }
      }
    }
  });
}

TEST_CASE("integer sums of every variant are those of the reference") {
  ForEachVariant([](Encoding encoding, bool sparse) {
    for (const LinearKernel* kernel : Kernels()) {
      for (const int64_t inputs : {3, 200, 2500}) {
        LinearLayer layer({inputs, 70, 0, encoding, sparse}, 9);
        MakeIntegral(layer);
        const int64_t rows = 29;
        const std::vector<float> x = IntegralRows(rows, inputs);
        INFO(kernel->name << ", K " << inputs);
        REQUIRE(PreparedLayer(*kernel, layer).Run(x, rows) ==
                PreparedLayer(Reference(), layer).Run(x, rows));
      }
    }
  });
}

// Weights whose pairs are just within or just beyond what an instruction may take for granted.
TEST_CASE("pairs of weights at the bound and beyond it give exact sums") {
  const int8_t pairs[][2] = {{64, 64}, {127, 1},   {-64, -64}, {-127, -1},
                             {64, 65}, {127, 127}, {-65, -64}, {127, -127}};
  for (const auto& pair : pairs) {
    LinearLayer layer({256, 33, 0}, 1);
    MakeIntegral(layer);
    for (size_t i = 0; i < layer.codes.size(); ++i) layer.codes[i] = pair[i % 2];
    layer.Pack();
    for (const float sign : {1.0f, -1.0f}) {
      const std::vector<float> x(256 * 7, sign * 127);
      for (const LinearKernel* kernel : Kernels()) {
        INFO(kernel->name << ", " << int{pair[0]} << " " << int{pair[1]} << ", sign " << sign);
        for (const float y : PreparedLayer(*kernel, layer).Run(x, 7)) {
          REQUIRE(y == sign * 127 * 128 * static_cast<float>(pair[0] + pair[1]));
        }
      }
    }
  }
}

TEST_CASE("extreme codes of every encoding overflow nothing, up to the largest K") {
  ForEachVariant([](Encoding encoding, bool sparse) {
    for (const LinearKernel* kernel : Kernels()) {
      const int64_t inputs = kernel->needs.empty() ? 4096 : 65536;  // the portable ones are slow
      for (const int code : {0x77, 0x78, 0x87, 0x88, 0x7f, 0x80}) {
        LinearLayer layer({inputs, 3, 0, encoding, sparse}, 1, false, 1.0);
        MakeIntegral(layer);
        const int value4 = ((code & 15) ^ 8) - 8;
        std::fill(layer.codes.begin(), layer.codes.end(),
                  static_cast<int8_t>(encoding == Encoding::kInt4 ? value4 : code));
        layer.Pack();
        for (const float value : {127.0f, -127.0f}) {
          INFO(kernel->name << ", code " << code << ", x " << value);
          const std::vector<float> x(static_cast<size_t>(inputs), value);
          CheckAgainst(ExactLinear(layer, x, 1), PreparedLayer(*kernel, layer).Run(x, 1));
          if (!IsNested(encoding)) continue;
          layer.gate = {0, 0, 1, 0};  // all rows are easy
          CheckAgainst(ExactLinear(layer, x, 1, {true}),
                       PreparedLayer(*kernel, layer).Run(x, 1, {.gate = GateMode::kAlways}));
        }
      }
    }
  });
}

// --- Sparse panels
// --------------------------------------------------------------------------------

TEST_CASE("panels that are empty, full, uneven, or of one quad") {
  const int64_t inputs = 203, outputs = 170;
  std::vector<std::vector<int64_t>> kept(6);
  for (int64_t q = 0; q < QuadCount(inputs); ++q) kept[1].push_back(q);
  kept[2] = {QuadCount(inputs) - 1};  // the quad that is not whole
  for (int64_t q = 0; q < 17; ++q) kept[3].push_back(3 * q);
  kept[5] = {0, 50};
  for (const Encoding encoding : kEncodings) {
    for (const int64_t scale_groups : {0, 1, 2}) {
      LinearLayer layer({inputs, outputs, scale_groups, encoding, true}, 5, true);
      SetQuads(layer, kept);
      layer.Pack();
      std::vector<char> wrong(100);
      REQUIRE(CheckBlocks(layer.weights().blocks, inputs, outputs, layer.groups(), wrong));
      layer.scale_code.resize(static_cast<size_t>(ScaleRowCount(layer.weights()) * 32), 40);
      REQUIRE(ScaleRowCount(layer.weights()) == (scale_groups == 0   ? 6
                                                 : scale_groups == 1 ? 4 + 1 + 2 + 1
                                                                     : 2 + 1 + 1 + 1));
      const std::vector<float> x = RandomRows(9, inputs, 3);
      for (const LinearKernel* kernel : Kernels()) {
        INFO(kernel->name << ", " << Name(encoding) << ", G " << scale_groups);
        CheckAgainst(ExactLinear(layer, x, 9), PreparedLayer(*kernel, layer).Run(x, 9));
      }
    }
  }
}

TEST_CASE("a layer without any block gives the bias, and NaN rows stay NaN") {
  LinearLayer layer({100, 70, 0, Encoding::kInt8, true}, 1, false, 0.0);
  REQUIRE(layer.packed.empty());
  std::vector<float> x = RandomRows(3, 100, 1);
  x[150] = std::numeric_limits<float>::quiet_NaN();
  for (const LinearKernel* kernel : Kernels()) {
    INFO(kernel->name);
    const std::vector<float> y = PreparedLayer(*kernel, layer).Run(x, 3);
    for (size_t i = 0; i < y.size(); ++i) {
      if (i / 70 == 1) {
        REQUIRE(std::isnan(y[i]));
      } else {
        REQUIRE(y[i] == layer.bias[i % 70]);
      }
    }
  }
}

TEST_CASE("lists of blocks that lie are told apart from those that do not") {
  const int64_t inputs = 200, outputs = 64;  // 50 quads, padding 50
  const auto check = [&](std::vector<uint16_t> quad, std::vector<int32_t> ptr, int64_t groups) {
    std::vector<char> text(200);
    const bool good = CheckBlocks({quad.data(), ptr.data()}, inputs, outputs, groups, text);
    return good ? std::string("good") : std::string(text.data());
  };
  std::vector<uint16_t> quad(32);
  for (size_t i = 0; i < 32; ++i) quad[i] = static_cast<uint16_t>(i);
  CHECK(check(quad, {0, 1, 2}, 2) == "good");
  CHECK(check(quad, {0, 2, 2}, 2) == "good");
  CHECK(check({}, {0, 0, 0}, 0) == "good");
  CHECK(check(quad, {1, 1, 2}, 2) == "group_ptr does not start at 0: [0] is 1");
  CHECK(check(quad, {0, 2, 1}, 2).find("group_ptr falls: [2]") == 0);
  CHECK(check(quad, {0, 1, 1}, 2).find("group_ptr does not end at the groups") == 0);
  CHECK(check(quad, {0, 1, 3}, 2).find("group_ptr does not end at the groups") == 0);
  CHECK(check(quad, {0, -1, 2}, 2).find("group_ptr falls") == 0);
  const auto changed = [&](size_t i, uint16_t value) {
    std::vector<uint16_t> other = quad;
    other[i] = value;
    return other;
  };
  CHECK(check(changed(31, 50), {0, 1, 2}, 2) == "good");  // padding
  CHECK(check(changed(31, 51), {0, 1, 2}, 2) == "quad beyond the inputs: [31] is 51");
  CHECK(check(changed(31, 65535), {0, 1, 2}, 2).find("quad beyond the inputs") == 0);
  CHECK(check(changed(30, 50), {0, 1, 2}, 2).find("quads of a panel do not ascend: [31]") == 0);
  CHECK(check(changed(15, 50), {0, 2, 2}, 2).find("padding inside a panel") == 0);
  CHECK(check(changed(5, 4), {0, 1, 2}, 2).find("quads of a panel do not ascend: [5]") == 0);
  CHECK(check(changed(5, 7), {0, 1, 2}, 2).find("quads of a panel do not ascend: [6]") == 0);
  CHECK(check(std::vector<uint16_t>(32, 50), {0, 1, 2}, 2).find("a group of padding only") == 0);
}

TEST_CASE("sparse weights pack where the format says, and unpack to what was kept") {
  for (const Encoding encoding : kEncodings) {
    const LinearLayer layer({90, 70, 0, encoding, true}, 3);
    const int64_t groups = layer.groups();
    const int64_t plane = groups * PlaneBytes(encoding);
    std::vector<int8_t> kept(layer.codes.size(), 0);
    for (int64_t p = 0; p < 3; ++p) {
      for (int64_t slot = layer.group_ptr[static_cast<size_t>(p)] * 16;
           slot < layer.group_ptr[static_cast<size_t>(p) + 1] * 16; ++slot) {
        for (int64_t r = 0; r < 32; ++r) {
          for (int64_t k = 0; k < 4; ++k) {
            const int64_t n = p * 32 + r, input = layer.quad[static_cast<size_t>(slot)] * 4 + k;
            const bool real = n < 70 && input < 90;
            const int8_t code = real ? layer.codes[static_cast<size_t>(n * 90 + input)] : int8_t{0};
            if (real) kept[static_cast<size_t>(n * 90 + input)] = code;
            const auto at = [&](int64_t i) {
              return static_cast<uint8_t>(layer.packed[static_cast<size_t>(i)]);
            };
            if (encoding == Encoding::kInt8) {
              REQUIRE(at(slot / 16 * 2048 + 64 * r + slot % 16 * 4 + k) ==
                      static_cast<uint8_t>(code));
              continue;
            }
            const int64_t byte = slot / 16 * 1024 + 64 * (r % 16) + slot % 16 * 4 + k;
            const int shift = r < 16 ? 0 : 4;
            const auto bits = static_cast<uint8_t>(code);
            if (encoding == Encoding::kInt4) {
              REQUIRE((at(byte) >> shift & 15) == (bits & 15));
            } else {
              REQUIRE((at(byte) >> shift & 15) == bits >> 4);
              REQUIRE((at(plane + byte) >> shift & 15) == (bits & 15));
            }
          }
        }
      }
    }
    std::vector<int8_t> back(layer.codes.size(), 99);
    UnpackWeights(encoding, layer.weights().blocks, layer.packed, 90, 70, back);
    REQUIRE(back == kept);
  }
}

// --- float16 and activations
// ----------------------------------------------------------------------

TEST_CASE("float16 in and out is float32 on the same numbers, rounded") {
  ForEachVariant([](Encoding encoding, bool sparse) {
    LinearLayer layer({130, 45, 0, encoding, sparse}, 2, true);
    layer.scale_base = 1e-9f;
    std::vector<float> x = RoundToHalf(RandomRows(8, 130, 4));
    x[0] = std::numeric_limits<float>::infinity();
    x[140] = 6e-8f;  // the smallest float16
    for (const LinearKernel* kernel : Kernels()) {
      INFO(kernel->name);
      const PreparedLayer prepared(*kernel, layer);
      const std::vector<float> half = prepared.Run(x, 8, {.half = true});
      const std::vector<float> wide = RoundToHalf(prepared.Run(x, 8));
      for (size_t i = 0; i < half.size(); ++i) {
        REQUIRE((half[i] == wide[i] || (std::isnan(half[i]) && std::isnan(wide[i]))));
      }
    }
  });
}

TEST_CASE("activations behind the layer") {
  // One output a value: the weight is 0, the bias is what the activation sees.
  const int64_t outputs = 4001;
  LinearLayer layer({4, outputs, 0}, 1);
  std::fill(layer.codes.begin(), layer.codes.end(), int8_t{0});
  layer.Pack();
  for (int64_t n = 0; n < outputs; ++n) {
    layer.bias[static_cast<size_t>(n)] = static_cast<float>(n - 2000) * 0.01f;
  }
  const float extremes[] = {1e-30f, -1e-30f, 88.5f,  -88.5f, 1e4f,
                            -1e4f,  1e30f,   -1e30f, 0.0f,   -0.0f};
  std::copy(std::begin(extremes), std::end(extremes), layer.bias.begin());
  const std::vector<float> x(4, 1.0f);
  for (const Activation activation : kActivations) {
    for (const LinearKernel* kernel : Kernels()) {
      INFO(kernel->name << " " << ActivationName(activation));
      const std::vector<float> y =
          PreparedLayer(*kernel, layer).Run(x, 1, {.activation = activation});
      for (size_t i = 0; i < y.size(); ++i) {
        const float v = layer.bias[i];
        INFO("at " << v);
        const double exact = Activate(activation, v);
        REQUIRE(std::fabs(y[i] - exact) <= kActivationError * std::fabs(v));
      }
    }
  }
  layer.bias[7] = std::numeric_limits<float>::quiet_NaN();
  for (const Activation activation : kActivations) {
    for (const LinearKernel* kernel : Kernels()) {
      REQUIRE(std::isnan(PreparedLayer(*kernel, layer).Run(x, 1, {.activation = activation})[7]));
    }
  }
}

TEST_CASE("activations are what mathematics says") {
  for (const float v : {-30.0f, -5.0f, -1.0f, -0.1f, 0.0f, 0.3f, 2.0f, 7.0f}) {
    const double x = v;
    CHECK(Activate(Activation::kNone, v) == v);
    CHECK(Activate(Activation::kRelu, v) == std::max(v, 0.0f));
    CHECK(Activate(Activation::kGelu, v) ==
          Approx(0.5 * x * (1 + std::erf(x / std::sqrt(2.0)))).margin(1e-9));
    CHECK(Activate(Activation::kGeluTanh, v) ==
          Approx(0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))))
              .margin(1e-9));
    CHECK(Activate(Activation::kSilu, v) == Approx(x / (1 + std::exp(-x))).margin(1e-9));
  }
}

TEST_CASE("a layer with its activation is the layer, then the activation") {
  const LinearLayer layer({150, 77, 0}, 3);
  const std::vector<float> x = RandomRows(11, 150, 1);
  for (const Activation activation : kActivations) {
    for (const LinearKernel* kernel : Kernels()) {
      INFO(kernel->name << " " << ActivationName(activation));
      CheckAgainst(ExactLinear(layer, x, 11, {}, activation),
                   PreparedLayer(*kernel, layer).Run(x, 11, {.activation = activation}));
    }
  }
}

// --- The gate
// -------------------------------------------------------------------------------------

// Rows whose norms are 1, 10, 100, … times a common one, in a given order.
std::vector<float> RowsOfNorms(const std::vector<int>& exponents, int64_t inputs) {
  std::vector<float> x = RandomRows(static_cast<int64_t>(exponents.size()), inputs, 7);
  for (size_t r = 0; r < exponents.size(); ++r) {
    for (int64_t k = 0; k < inputs; ++k) {
      x[r * static_cast<size_t>(inputs) + static_cast<size_t>(k)] *=
          std::pow(10.0f, static_cast<float>(exponents[r]));
    }
  }
  return x;
}

TEST_CASE("easy rows are read in 4 bits, the others in 8, row by row") {
  const int64_t inputs = 150;
  for (const Encoding encoding : {Encoding::kNested1, Encoding::kNested4}) {
    for (const bool sparse : {false, true}) {
      for (const bool sketch : {false, true}) {
        LinearLayer layer({inputs, 50, 0, encoding, sparse}, 2, sketch);
        const std::vector<int> exponents = {0, 3, 1, 3, 0, 4, -2};
        const std::vector<bool> easy = {true, false, true, false, true, false, true};
        const std::vector<float> x = RowsOfNorms(exponents, inputs);
        layer.gate = {2, 1, 2000, sketch ? 5.0f : 0.0f};  // norms are about 12, 120, 12,000
        if (sketch) {
          for (const float v : RandomRows(5, inputs, 8)) layer.gate.push_back(v * 0.2f);
        }
        for (const LinearKernel* kernel : Kernels()) {
          INFO(kernel->name << " " << Name(encoding) << (sparse ? " sparse" : " dense")
                            << (sketch ? " sketch" : ""));
          const PreparedLayer prepared(*kernel, layer);
          int64_t count = -1;
          const std::vector<float> y = prepared.Run(x, 7, {.gate = GateMode::kFewRows}, &count);
          CHECK(count == 4);
          CheckAgainst(ExactLinear(layer, x, 7, easy), y);
          // Alone, in another order, in halves: the same bits for each row.
          for (size_t r = 0; r < 7; ++r) {
            const auto first = x.begin() + static_cast<int64_t>(r) * inputs;
            const std::vector<float> alone =
                prepared.Run({first, first + inputs}, 1, {.gate = GateMode::kFewRows}, &count);
            REQUIRE(count == (easy[r] ? 1 : 0));
            REQUIRE(
                std::equal(alone.begin(), alone.end(), y.begin() + static_cast<int64_t>(r) * 50));
          }
        }
      }
    }
  }
}

TEST_CASE("the gate's modes") {
  const int64_t inputs = 100;
  LinearLayer layer({inputs, 40, 0, Encoding::kNested4}, 2);
  layer.gate = {1, 0, 1e9f, 0};  // every row is easy
  const std::vector<float> x = RandomRows(40, inputs, 3);
  const std::vector<float> few(x.begin(), x.begin() + 8 * inputs);
  for (const LinearKernel* kernel : Kernels()) {
    INFO(kernel->name);
    const PreparedLayer prepared(*kernel, layer);
    const auto easy = [&](const std::vector<float>& rows, GateMode mode) {
      int64_t count = -1;
      const auto n = static_cast<int64_t>(rows.size()) / inputs;
      const std::vector<float> y = prepared.Run(rows, n, {.gate = mode}, &count);
      CheckAgainst(ExactLinear(layer, rows, n, std::vector<bool>(rows.size(), count > 0)), y);
      return count;
    };
    CHECK(easy(few, GateMode::kOff) == 0);
    CHECK(easy(few, GateMode::kFewRows) == 8);
    CHECK(easy(x, GateMode::kFewRows) == 0);
    CHECK(easy(x, GateMode::kAlways) == 40);
  }
  layer.gate.clear();
  for (const LinearKernel* kernel : Kernels()) {
    int64_t count = -1;
    PreparedLayer(*kernel, layer).Run(few, 8, {.gate = GateMode::kAlways}, &count);
    CHECK(count == 0);
  }
}

TEST_CASE("no row with NaN or Inf is easy, whatever the gate's numbers are") {
  const float kNan = std::numeric_limits<float>::quiet_NaN();
  const float kInf = std::numeric_limits<float>::infinity();
  std::vector<float> x(20, 1.0f);
  for (const float a : {1.0f, -1.0f, 0.0f}) {
    const float gate[] = {a, 0, kInf, 0};
    CHECK(IsEasyRow(gate, x.data(), false, nullptr, 20));
    for (const float poison : {kNan, kInf, -kInf}) {
      x[19] = poison;
      CHECK_FALSE(IsEasyRow(gate, x.data(), false, nullptr, 20));
    }
    x[19] = 1;
  }
  const float never[] = {kNan, 0, 1, 0};
  CHECK_FALSE(IsEasyRow(never, x.data(), false, nullptr, 20));
}

TEST_CASE("the estimate is a·‖S·(x ⊙ smooth)‖ + b") {
  for (const int64_t inputs : {1, 7, 1023, 1024, 1025, 5000}) {
    for (const int64_t rows : {0, 1, 3}) {
      std::vector<float> x = RoundToHalf(RandomRows(1, inputs, 1));
      const std::vector<float> smooth = RandomRows(1, inputs, 2);
      const std::vector<float> sketch = RandomRows(rows, inputs, 3);
      std::vector<float> gate = {0.5f, 3, 0, static_cast<float>(rows)};
      gate.insert(gate.end(), sketch.begin(), sketch.end());
      const double estimate = GateEstimate(gate, smooth, x);
      std::vector<uint16_t> half(x.size());
      std::transform(x.begin(), x.end(), half.begin(), FloatToFloat16);
      for (const double factor : {0.999, 1.001}) {
        gate[2] = static_cast<float>(estimate * factor);
        INFO("K " << inputs << ", rows " << rows);
        REQUIRE(IsEasyRow(gate.data(), x.data(), false, smooth.data(), inputs) == (factor > 1));
        REQUIRE(IsEasyRow(gate.data(), half.data(), true, smooth.data(), inputs) == (factor > 1));
      }
    }
  }
}

}  // namespace
}  // namespace sparsefuse::test
