// Random layers for tests and benchmarks of the linear kernels.

#ifndef SPARSEFUSE_TESTS_KERNELS_LINEAR_CASE_H_
#define SPARSEFUSE_TESTS_KERNELS_LINEAR_CASE_H_

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "kernels/linear/linear.h"

namespace sparsefuse::test {

// A layer with codes over the whole range, scales over a wide one, and its constants as in a file.
// Of a sparse layer every panel keeps about `density` of its quads, chosen at random.
struct LinearLayer {
  LinearLayer(LinearShape shape, uint32_t seed, bool with_smooth = false, double density = 0.4);

  LinearWeights weights() const;
  int64_t groups() const;
  int64_t scale_rows() const { return static_cast<int64_t>(scale_code.size()) / kPanelOutputs; }
  void Pack();  // after a change of codes

  LinearShape shape;
  std::vector<int8_t> codes;  // [N, K], as pack.h means them
  std::vector<uint16_t> quad;
  std::vector<int32_t> group_ptr;
  std::vector<std::byte> packed;
  std::vector<uint8_t> scale_code;
  float scale_base;
  std::vector<float> bias;
  std::vector<float> smooth;  // empty for ones
  std::vector<float> gate;    // empty: none
};

// The lists of kept quads, a list a panel, as a file has them: filled up to whole groups.
void SetQuads(LinearLayer& layer, const std::vector<std::vector<int64_t>>& kept);

// Codes of which two neighbours stay within 128, so that no product of bytes saturates.
void BoundPairs(LinearLayer& layer);

// rows·inputs normally distributed values.
std::vector<float> RandomRows(int64_t rows, int64_t inputs, uint32_t seed);

// Scales of 1 and no bias: outputs are integer sums where the rows' scales are 1, too.
void MakeIntegral(LinearLayer& layer);
// Such rows: random values times `spread` within ±127, each row's first 127.
std::vector<float> IntegralRows(int64_t rows, int64_t inputs, float spread = 50);

// A gate's estimate of a row, a·‖S·(x ⊙ smooth)‖ + b (without S where it has no rows), from the
// format alone and in double precision. gate: a, b, threshold, rows of S, S [rows, K].
double GateEstimate(std::span<const float> gate, std::span<const float> smooth,
                    std::span<const float> row);

// The operator written down once more, from the format alone and in double precision. `easy`: rows
// read in 4 bits; empty: none.
struct Exact {
  std::vector<double> y;      // [rows, N]; NaN where it must be NaN
  std::vector<double> bound;  // allowed |y − exact|, linear.h
};
Exact ExactLinear(const LinearLayer& layer, const std::vector<float>& x, int64_t rows,
                  const std::vector<bool>& easy = {}, Activation activation = Activation::kNone);

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_KERNELS_LINEAR_CASE_H_
