// Every kernel against the format's own definition, and against the reference kernel bit for bit
// where floats are exact.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kernels/linear/linear.h"
#include "kernels/linear/quantize.h"
#include "tests/kernels/all_kernels.h"
#include "tests/kernels/emulated_vnni.h"
#include "tests/kernels/prepared_layer.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"

namespace sparsefuse::test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

LinearLayer IntegralLayer(LinearShape shape, uint32_t seed) {
  LinearLayer layer(shape, seed);
  MakeIntegral(layer);
  return layer;
}

TEST_CASE("kernels meet the definition for sizes around every tile") {
  for (const LinearKernel* kernel : Kernels()) {
    for (int64_t inputs : {1, 2, 5, 63, 64, 65, 100, 128, 191, 257}) {
      for (int64_t outputs : {1, 15, 16, 17, 31, 32, 33, 48, 97}) {
        const LinearLayer layer({inputs, outputs, 0}, static_cast<uint32_t>(inputs * 100 + outputs),
                                inputs % 2 == 1);
        const PreparedLayer prepared(*kernel, layer);
        for (int64_t rows : {0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 25}) {
          INFO(kernel->name << ", K " << inputs << ", N " << outputs << ", rows " << rows);
          const std::vector<float> x = RandomRows(rows, inputs, 5);
          CheckAgainst(ExactLinear(layer, x, rows), prepared.Run(x, rows));
        }
      }
    }
  }
}

TEST_CASE("kernels meet the definition with a row of scales for every few groups") {
  for (const LinearKernel* kernel : Kernels()) {
    for (int64_t scale_groups : {1, 2, 3, 8, 1024}) {
      for (int64_t inputs : {64, 65, 200, 600}) {
        const LinearLayer layer({inputs, 45, scale_groups}, 3, true);
        const PreparedLayer prepared(*kernel, layer);
        for (int64_t rows : {1, 4, 5, 13, 17}) {
          INFO(kernel->name << ", K " << inputs << ", groups " << scale_groups << ", rows "
                            << rows);
          const std::vector<float> x = RandomRows(rows, inputs, 6);
          CheckAgainst(ExactLinear(layer, x, rows), prepared.Run(x, rows));
        }
      }
    }
  }
}

TEST_CASE("integer sums are those of the reference") {
  for (const LinearKernel* kernel : Kernels()) {
    for (int64_t inputs : {1, 64, 130, 1000}) {
      INFO(kernel->name << ", K " << inputs);
      const LinearLayer layer = IntegralLayer({inputs, 70, 0}, 9);
      const int64_t rows = 29;
      const std::vector<float> x = IntegralRows(rows, inputs);
      const std::vector<float> y = PreparedLayer(*kernel, layer).Run(x, rows);
      REQUIRE(y == PreparedLayer(Reference(), layer).Run(x, rows));
      REQUIRE(std::all_of(y.begin(), y.end(), [](float v) { return v == std::rint(v); }));
    }
  }
}

// The largest sums that can occur: every pair of products at its bound, all of one sign.
TEST_CASE("extreme codes overflow nothing, up to the largest K") {
  for (const LinearKernel* kernel : Kernels()) {
    for (int64_t inputs : {64, 4096, 65536}) {
      if (kernel == &kEmulatedVnni && inputs > 4096) continue;         // slow, same code
      for (int8_t code : {int8_t{127}, int8_t{-127}, int8_t{-128}}) {  // −128 only in hostile files
        for (float value : {127.0f, -127.0f}) {
          INFO(kernel->name << ", K " << inputs << ", code " << int{code} << ", x " << value);
          LinearLayer layer = IntegralLayer({inputs, 17, 0}, 1);
          std::fill(layer.packed.begin(), layer.packed.end(), std::byte(code));  // padding included
          const std::vector<float> x(static_cast<size_t>(6 * inputs), value);
          for (float y : PreparedLayer(*kernel, layer).Run(x, 6)) {
            REQUIRE(y == static_cast<float>(static_cast<double>(inputs) * code * value));
          }
        }
      }
    }
  }
}

TEST_CASE("activations round half to even, by division") {
  // Identity weights show the codes: y[n] = s·q[n] with s = 1.
  const int64_t size = 64;
  LinearLayer layer = IntegralLayer({size, size, 0}, 1);
  std::fill(layer.codes.begin(), layer.codes.end(), int8_t{0});
  for (int64_t i = 0; i < size; ++i) layer.codes[static_cast<size_t>(i * size + i)] = 1;
  layer.Pack();
  std::vector<float> x(static_cast<size_t>(size));
  x[0] = 127;
  for (int i = 1; i < size; ++i) {
    x[static_cast<size_t>(i)] = (i % 2 ? 1.0f : -1.0f) * (static_cast<float>(i) + 0.5f);
  }
  for (const LinearKernel* kernel : Kernels()) {
    INFO(kernel->name);
    const std::vector<float> y = PreparedLayer(*kernel, layer).Run(x, 1);
    REQUIRE(y[0] == 127);
    for (size_t i = 1; i < y.size(); ++i) {
      const auto magnitude = static_cast<float>(i + i % 2);  // 1.5 → 2, 2.5 → 2, 3.5 → 4
      REQUIRE(y[i] == (i % 2 ? magnitude : -magnitude));
    }
  }
  // Quotients that a multiplication by the rounded reciprocal gets wrong: x/s is a tie or just
  // beside one.
  std::mt19937 random(4);
  std::uniform_real_distribution<float> scale(0.5f, 2);
  std::uniform_int_distribution<int> code(-126, 126);
  for (int round = 0; round < 300; ++round) {
    const float a = 127 * scale(random), s = a / 127;
    x[0] = a;
    for (size_t i = 1; i < x.size(); ++i) {
      const float tie = s * (static_cast<float>(code(random)) + 0.5f);
      x[i] = i % 3 == 0 ? tie : std::nextafter(tie, i % 3 == 1 ? 1e9f : -1e9f);
    }
    std::vector<int8_t> codes(x.size());
    REQUIRE(QuantizeRow(x, {}, codes) == s);
    for (size_t i = 0; i < x.size(); ++i) {
      // std::rint of the correctly rounded quotient, taken in double through float.
      REQUIRE(codes[i] == std::rint(static_cast<double>(static_cast<float>(
                              static_cast<double>(x[i]) / static_cast<double>(s)))));
    }
    for (const LinearKernel* kernel : Kernels()) {
      const std::vector<float> y = PreparedLayer(*kernel, layer).Run(x, 1);
      for (size_t i = 0; i < y.size(); ++i) REQUIRE(y[i] == s * static_cast<float>(codes[i]));
    }
  }
}

TEST_CASE("a row with NaN or Inf is all NaN and touches no other row") {
  const LinearLayer layer({70, 40, 0}, 2);
  for (const LinearKernel* kernel : Kernels()) {
    const PreparedLayer prepared(*kernel, layer);
    for (int64_t rows : {1, 5, 14}) {
      const std::vector<float> clean = RandomRows(rows, 70, 8);
      const std::vector<float> expected = prepared.Run(clean, rows);
      for (float poison : {kNan, kInf, -kInf, -kNan}) {
        for (int64_t place : {0, 37, 69}) {
          INFO(kernel->name << ", rows " << rows << ", " << poison << " at " << place);
          std::vector<float> x = clean;
          const int64_t bad = rows / 2;
          x[static_cast<size_t>(bad * 70 + place)] = poison;
          const std::vector<float> y = prepared.Run(x, rows);
          for (int64_t i = 0; i < rows * 40; ++i) {
            const auto at = static_cast<size_t>(i);
            if (i / 40 == bad) {
              REQUIRE(std::isnan(y[at]));
            } else {
              REQUIRE(y[at] == expected[at]);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("an overflow in x times smooth counts as Inf, a NaN in smooth as NaN") {
  LinearLayer layer({70, 40, 0}, 2, true);
  layer.smooth[69] = 1e30f;
  std::vector<float> x = RandomRows(2, 70, 8);
  x[69] = 1e20f;
  x[139] = 0;
  for (const LinearKernel* kernel : Kernels()) {
    INFO(kernel->name);
    const std::vector<float> y = PreparedLayer(*kernel, layer).Run(x, 2);
    REQUIRE(std::all_of(y.begin(), y.begin() + 40, [](float v) { return std::isnan(v); }));
    REQUIRE(std::none_of(y.begin() + 40, y.end(), [](float v) { return std::isnan(v); }));
  }
  layer.smooth[3] = kNan;
  for (const LinearKernel* kernel : Kernels()) {
    for (float v : PreparedLayer(*kernel, layer).Run(x, 2)) REQUIRE(std::isnan(v));
  }
}

TEST_CASE("rows of zeros and denormals give the bias, huge rows keep their precision") {
  LinearLayer layer({100, 40, 0}, 2);
  layer.scale_base = 1e-12f;  // outputs that fit a float
  for (const LinearKernel* kernel : Kernels()) {
    INFO(kernel->name);
    const PreparedLayer prepared(*kernel, layer);
    std::vector<float> x(300);
    for (size_t i = 100; i < 200; ++i) x[i] = (i % 2 ? 1e-40f : -1e-39f);
    const std::vector<float> random = RandomRows(1, 100, 3);
    for (size_t i = 200; i < 300; ++i) x[i] = random[i - 200] * 1e37f;
    x[250] = std::numeric_limits<float>::max();
    const std::vector<float> y = prepared.Run(x, 3);
    for (size_t n = 0; n < 40; ++n) {
      REQUIRE(y[n] == layer.bias[n]);
      REQUIRE(y[40 + n] == layer.bias[n]);
    }
    CheckAgainst(ExactLinear(layer, x, 3), y);
  }
}

TEST_CASE("a row's scale is never below the smallest normal number") {
  LinearLayer layer({100, 40, 0}, 2);
  layer.scale_base = 1e28f;  // makes the difference visible
  std::fill(layer.bias.begin(), layer.bias.end(), 0.0f);
  std::vector<float> x = RandomRows(3, 100, 3);
  for (float& v : x) v *= 2e-38f;  // codes of a few units only
  for (const LinearKernel* kernel : Kernels()) {
    INFO(kernel->name);
    CheckAgainst(ExactLinear(layer, x, 3), PreparedLayer(*kernel, layer).Run(x, 3));
  }
}

TEST_CASE("a NaN in one output's bias stays there") {
  LinearLayer layer({100, 40, 0}, 2);
  layer.bias[33] = kNan;
  const std::vector<float> x = RandomRows(7, 100, 3);
  for (const LinearKernel* kernel : Kernels()) {
    const std::vector<float> y = PreparedLayer(*kernel, layer).Run(x, 7);
    for (size_t i = 0; i < y.size(); ++i) REQUIRE(std::isnan(y[i]) == (i % 40 == 33));
  }
}

// --- Threads
// ---------------------------------------------------------------------------------------

struct Shuffled {
  uint32_t seed;
};

// Runs the bodies in a shuffled order, dealt to three threads.
void RunShuffled(void* pool, size_t count, void (*body)(void*, size_t), void* context) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  std::shuffle(order.begin(), order.end(), std::mt19937(static_cast<Shuffled*>(pool)->seed));
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = t; i < count; i += 3) body(context, order[i]);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_CASE("the same bits for any number of threads") {
  // Large enough to be split by rows, by panels, and by both.
  const struct {
    int64_t rows, inputs, outputs, scale_groups;
  } cases[] = {{1, 2048, 3000, 0}, {3, 1000, 2000, 0}, {40, 500, 900, 0}, {41, 500, 901, 3},
               {300, 300, 300, 0}, {601, 128, 64, 1},  {7, 65536, 40, 0}, {37, 4100, 33, 0}};
  for (const LinearKernel* kernel : Kernels()) {
    if (kernel == &kEmulatedVnni) continue;  // slow; its split is that of the others
    for (const auto& c : cases) {
      INFO(kernel->name << ", " << c.rows << " x " << c.inputs << " x " << c.outputs);
      const LinearLayer layer({c.inputs, c.outputs, c.scale_groups}, 4);
      const PreparedLayer prepared(*kernel, layer);
      const std::vector<float> x = RandomRows(c.rows, c.inputs, 2);
      const std::vector<float> expected = prepared.Run(x, c.rows);
      for (int threads : {1, 2, 3, 16, 100}) {
        Shuffled pool{static_cast<uint32_t>(threads)};
        const std::vector<float> y = prepared.Run(
            x, c.rows, {.parallel = {.run = RunShuffled, .pool = &pool, .threads = threads}});
        REQUIRE(y == expected);
      }
    }
  }
}

TEST_CASE("a row's result does not depend on the rows beside it") {
  const LinearLayer layer({200, 77, 2}, 4, true);
  for (const LinearKernel* kernel : Kernels()) {
    const PreparedLayer prepared(*kernel, layer);
    const std::vector<float> x = RandomRows(26, 200, 2);
    const std::vector<float> together = prepared.Run(x, 26);
    for (int64_t r = 0; r < 26; ++r) {
      INFO(kernel->name << ", row " << r);
      const std::vector<float> alone =
          prepared.Run({x.begin() + r * 200, x.begin() + (r + 1) * 200}, 1);
      REQUIRE(std::equal(alone.begin(), alone.end(), together.begin() + r * 77));
    }
  }
}

// --- Choice
// ----------------------------------------------------------------------------------------

std::string Explain(const LinearKernel* kernel) {
  std::vector<char> text(200);
  ExplainLinearChoice(kernel, text);
  return text.data();
}

TEST_CASE("the best kernel that runs is chosen, or the one that is named") {
  REQUIRE(std::string(Reference().name) == "ref");
  REQUIRE(Reference().needs.empty());
  {
    const EnvironmentVariable none("SPARSEFUSE_ISA", nullptr);
    const LinearKernel* chosen = SelectLinearKernel();
    REQUIRE(Explain(chosen) == "used");
    for (const LinearKernel* kernel : AllLinearKernels()) {
      if (kernel == chosen) break;
      REQUIRE(Explain(kernel).find("the CPU lacks") != std::string::npos);
    }
    if (chosen != &Reference()) {
      REQUIRE(Explain(&Reference()) == std::string(chosen->name) + " is faster");
    }
  }
  {
    const EnvironmentVariable forced("SPARSEFUSE_ISA", "ref");
    REQUIRE(SelectLinearKernel() == &Reference());
    REQUIRE(Explain(&Reference()) == "used");
  }
  {
    const EnvironmentVariable wrong("SPARSEFUSE_ISA", "sse9");
    REQUIRE(SelectLinearKernel() == nullptr);
    REQUIRE(Explain(nullptr).find("SPARSEFUSE_ISA=sse9 is none of") == 0);
  }
  for (const LinearKernel* kernel : AllLinearKernels()) {
    const EnvironmentVariable named("SPARSEFUSE_ISA", kernel->name);
    const bool runs = DetectCpuFeatures().Contains(kernel->needs);
    REQUIRE(SelectLinearKernel() == (runs ? kernel : nullptr));
    if (!runs) REQUIRE(Explain(nullptr).find("lacks") != std::string::npos);
  }
}

}  // namespace
}  // namespace sparsefuse::test
