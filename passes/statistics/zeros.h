// Where zeros may stand in a matrix W [n inputs, m outputs], and which of its zeros already do.

#ifndef SPARSEFUSE_PASSES_STATISTICS_ZEROS_H_
#define SPARSEFUSE_PASSES_STATISTICS_ZEROS_H_

#include <Eigen/Core>
#include <cstdint>

namespace sparsefuse {

enum class Pattern {
  kBlock,         // 4 inputs × 32 outputs: a quad of a panel (docs/formats.md)
  kBlock64,       // 64 × 64
  kBlock128,      // 128 × 128
  kTwoOfFour,     // two of four consecutive inputs, each output for itself
  kUnstructured,  // anywhere
};

// Which weights compete for the zeros when they may stand anywhere.
enum class Scope { kLayer, kOutput };

// Of square blocks, each made of whole blocks of 4 × 32.
inline bool IsSquare(Pattern pattern) {
  return pattern == Pattern::kBlock64 || pattern == Pattern::kBlock128;
}
// Of blocks, so that many outputs have the same zeros.
inline bool IsWide(Pattern pattern) { return pattern == Pattern::kBlock || IsSquare(pattern); }

struct ZeroPattern {
  Pattern pattern = Pattern::kBlock;
  Scope scope = Scope::kLayer;  // kUnstructured
  // kBlock: each panel keeps all its quads or a multiple of this, so that no group of 16 is padded;
  // with fewer than twice as many there is nothing to choose from, and any number may stay.
  int64_t quad_multiple = 1;
};

// The smallest things that become zero together; those at the right and lower edge may be cut off.
struct CellGrid {
  Eigen::Index depth, width;   // inputs, outputs of a cell
  Eigen::Index rows, columns;  // cells
};
CellGrid Cells(Pattern pattern, Eigen::Index inputs, Eigen::Index outputs);

// [n, m], 1: zero.
using ZeroMask = Eigen::Matrix<uint8_t, Eigen::Dynamic, Eigen::Dynamic>;

// Zeros of W that are worth keeping: whole blocks of 4 × 32; with kTwoOfFour and kUnstructured
// every one.
ZeroMask ExistingZeros(const Eigen::MatrixXd& weight, Pattern pattern);

double ZeroShare(const ZeroMask& zeros);  // of all weights; 0 of none

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_STATISTICS_ZEROS_H_
