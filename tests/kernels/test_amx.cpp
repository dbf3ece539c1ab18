// What only the tile kernel has: blocks of 32, 16 and few rows, decoded weights that several blocks
// share in spans, runs of neighbouring quads, its own way of splitting work.

#include <algorithm>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "tests/kernels/emulated_amx.h"
#include "tests/kernels/prepared_layer.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

constexpr Encoding kEncodings[] = {Encoding::kInt8, Encoding::kInt4, Encoding::kNested1,
                                   Encoding::kNested4};

constexpr float kSpread = 3;  // small codes, so that sums are exact in float

TEST_CASE("blocks of rows that share decoded weights, over several spans and scale rows") {
  for (const Encoding encoding : kEncodings) {
    for (const bool sparse : {false, true}) {
      for (const int64_t scale_groups : {0, 7, 35}) {  // 33 … 40 groups: beyond one span
        const int64_t inputs = sparse ? 4700 : 2500;
        LinearLayer layer({inputs, 40, scale_groups, encoding, sparse}, 5, false, 0.5);
        MakeIntegral(layer);
        const PreparedLayer prepared(kEmulatedAmx, layer), reference(Reference(), layer);
        const std::vector<float> all = IntegralRows(131, inputs, kSpread);
        const std::vector<float> expected = reference.Run(all, 131);
        for (const int64_t rows : {4, 16, 17, 33, 36, 37, 49, 64, 131}) {
          INFO("encoding " << static_cast<int>(encoding) << ", sparse " << sparse << ", G "
                           << scale_groups << ", rows " << rows);
          const std::vector<float> y =
              prepared.Run({all.begin(), all.begin() + rows * inputs}, rows);
          REQUIRE(std::equal(y.begin(), y.end(), expected.begin()));
        }
      }
    }
  }
}

TEST_CASE("runs of quads, runs that end in padding, and what only looks like one") {
  const int64_t inputs = 400;  // 100 quads; 100 is the padding
  const auto run = [](int64_t first, int64_t count) {
    std::vector<int64_t> quads(static_cast<size_t>(count));
    std::iota(quads.begin(), quads.end(), first);
    return quads;
  };
  std::vector<int64_t> looks = run(85, 14);  // 85 … 98, then two of padding: 100 − 85 = 15
  std::vector<int64_t> gap = run(0, 17);
  gap.erase(gap.begin() + 5);
  const std::vector<std::vector<int64_t>> kept = {run(0, 16), run(84, 16), run(85, 15), looks,
                                                  run(3, 40), gap,         run(99, 1)};
  for (const Encoding encoding : kEncodings) {
    const auto outputs = static_cast<int64_t>(kept.size()) * kPanelOutputs;
    LinearLayer layer({inputs, outputs, 0, encoding, true}, 3);
    SetQuads(layer, kept);
    layer.Pack();
    MakeIntegral(layer);
    for (const int64_t rows : {3, 9, 25, 70}) {
      INFO("encoding " << static_cast<int>(encoding) << ", rows " << rows);
      const std::vector<float> x = IntegralRows(rows, inputs, kSpread);
      REQUIRE(PreparedLayer(kEmulatedAmx, layer).Run(x, rows) ==
              PreparedLayer(Reference(), layer).Run(x, rows));
    }
  }
}

// Every other row, and some more, is a hundred times smaller: easy.
std::vector<float> MixedRows(int64_t rows, int64_t inputs, int64_t easy) {
  std::vector<float> x = RandomRows(rows, inputs, 6);
  std::vector<int64_t> order(static_cast<size_t>(rows));
  std::iota(order.begin(), order.end(), int64_t{0});
  std::shuffle(order.begin(), order.end(), std::mt19937(1));
  for (int64_t i = 0; i < easy; ++i) {
    const auto first = x.begin() + order[static_cast<size_t>(i)] * inputs;
    std::transform(first, first + inputs, first, [](float v) { return v * 0.01f; });
  }
  return x;
}

TEST_CASE("blocks of easy rows beside blocks of others") {
  const int64_t inputs = 2200;
  for (const Encoding encoding : {Encoding::kNested1, Encoding::kNested4}) {
    LinearLayer layer({inputs, 40, 0, encoding, true}, 7, false, 0.5);
    layer.gate = {1, 0, 10, 0};  // norms are about 47 and 0.47
    const PreparedLayer prepared(kEmulatedAmx, layer);
    const struct {
      int64_t rows, easy;
    } cases[] = {{4, 1}, {4, 4}, {8, 3}, {20, 10}, {36, 32}, {40, 37}, {100, 50}, {100, 3}};
    for (const auto& c : cases) {
      INFO("encoding " << static_cast<int>(encoding) << ", rows " << c.rows << ", easy " << c.easy);
      const std::vector<float> x = MixedRows(c.rows, inputs, c.easy);
      int64_t count = -1;
      const std::vector<float> y = prepared.Run(x, c.rows, {.gate = GateMode::kAlways}, &count);
      REQUIRE(count == c.easy);
      for (int64_t r = 0; r < c.rows; ++r) {  // the same bits alone
        const auto first = x.begin() + r * inputs;
        const std::vector<float> alone =
            prepared.Run({first, first + inputs}, 1, {.gate = GateMode::kAlways});
        REQUIRE(std::equal(alone.begin(), alone.end(), y.begin() + r * 40));
      }
    }
  }
}

void RunOnThreads(void*, size_t count, void (*body)(void*, size_t), void* context) {
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 3; ++t) {
    threads.emplace_back([=] {
      for (size_t i = count; i-- > 0;) {
        if (i % 3 == t) body(context, i);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_CASE("the same bits however the tiles' work is split") {
  const struct {
    LinearShape shape;
    int64_t rows, easy;
  } cases[] = {
      {{512, 256, 0, Encoding::kInt8, true}, 700, 0},      // whole rows
      {{1024, 320, 3, Encoding::kInt4}, 290, 0},           // rows first, then panels
      {{16384, 30, 0, Encoding::kInt8}, 130, 0},           // more tasks than panels
      {{4096, 1000, 0, Encoding::kNested4, true}, 3, 1},   // few rows
      {{1000, 700, 4, Encoding::kNested1, true}, 99, 40},  // both readings
  };
  for (const auto& c : cases) {
    INFO("K " << c.shape.inputs << ", N " << c.shape.outputs << ", rows " << c.rows);
    LinearLayer layer(c.shape, 8);
    if (c.easy > 0) layer.gate = {1, 0, 5, 0};
    const PreparedLayer prepared(kEmulatedAmx, layer);
    const std::vector<float> x = MixedRows(c.rows, c.shape.inputs, c.easy);
    const std::vector<float> expected = prepared.Run(x, c.rows, {.gate = GateMode::kAlways});
    for (const int threads : {2, 3, 50}) {
      int64_t easy = -1;
      const std::vector<float> y =
          prepared.Run(x, c.rows,
                       {.gate = GateMode::kAlways,
                        .parallel = {.run = RunOnThreads, .pool = nullptr, .threads = threads}},
                       &easy);
      REQUIRE(easy == c.easy);
      REQUIRE(y == expected);
    }
  }
}

TEST_CASE("weights at any address") {
  for (const bool sparse : {false, true}) {
    for (const Encoding encoding : kEncodings) {
      const LinearLayer layer({300, 70, 2, encoding, sparse}, 4);
      const PreparedLayer prepared(kEmulatedAmx, layer);
      for (const int64_t rows : {2, 40}) {
        const std::vector<float> x = RandomRows(rows, 300, 1);
        const std::vector<float> expected = prepared.Run(x, rows);
        LinearWeights weights = layer.weights();
        std::vector<std::byte> moved(layer.packed.size() + 3);
        std::copy(layer.packed.begin(), layer.packed.end(), moved.begin() + 3);
        weights.weight = moved.data() + 3;
        const Guarded<std::byte> constants(kEmulatedAmx.prepared_bytes(weights), kLinearAlignment);
        const Guarded<std::byte> workspace(kEmulatedAmx.workspace_bytes(layer.shape, rows),
                                           kLinearAlignment);
        std::vector<float> y(expected.size());
        kEmulatedAmx.prepare(weights, constants.data());
        kEmulatedAmx.run(weights, constants.data(),
                         {.rows = rows,
                          .x = x.data(),
                          .y = y.data(),
                          .workspace = workspace.data(),
                          .parallel = SerialLoop()});
        REQUIRE(y == expected);
      }
    }
  }
}

}  // namespace
}  // namespace sparsefuse::test
