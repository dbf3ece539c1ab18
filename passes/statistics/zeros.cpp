#include "passes/statistics/zeros.h"

#include <algorithm>

namespace sparsefuse {

using Eigen::Index;

CellGrid Cells(Pattern pattern, Index inputs, Index outputs) {
  CellGrid grid{1, 1, inputs, outputs};
  if (pattern == Pattern::kBlock) grid = {4, 32, (inputs + 3) / 4, (outputs + 31) / 32};
  if (IsSquare(pattern)) {
    const Index side = pattern == Pattern::kBlock64 ? 64 : 128;
    grid = {side, side, (inputs + side - 1) / side, (outputs + side - 1) / side};
  }
  return grid;
}

ZeroMask ExistingZeros(const Eigen::MatrixXd& weight, Pattern pattern) {
  ZeroMask zeros = ZeroMask::Zero(weight.rows(), weight.cols());
  const CellGrid grid =
      Cells(IsSquare(pattern) ? Pattern::kBlock : pattern, weight.rows(), weight.cols());
  for (Index c = 0; c < grid.columns; ++c) {
    const Index left = c * grid.width, width = std::min(grid.width, weight.cols() - left);
    for (Index r = 0; r < grid.rows; ++r) {
      const Index top = r * grid.depth, depth = std::min(grid.depth, weight.rows() - top);
      if (weight.block(top, left, depth, width).isZero(0)) {
        zeros.block(top, left, depth, width).setOnes();
      }
    }
  }
  return zeros;
}

double ZeroShare(const ZeroMask& zeros) {
  if (zeros.size() == 0) return 0;
  return static_cast<double>((zeros.array() != 0).count()) / static_cast<double>(zeros.size());
}

}  // namespace sparsefuse
