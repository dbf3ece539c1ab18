// A prepared layer and one run of it, as the vector kernels see them.
//
// Included by files compiled for one instruction set: nothing here may be an inline function that
// such a file would emit.

#ifndef SPARSEFUSE_KERNELS_LINEAR_JOB_H_
#define SPARSEFUSE_KERNELS_LINEAR_JOB_H_

#include <cstddef>
#include <cstdint>

#include "kernels/linear/linear.h"

namespace sparsefuse {

struct LinearPanel {
  int64_t group, scale_row;    // the first ones
  int64_t groups, scale_rows;  // how many
};

// Rows are counted in the order in which they are worked on, which is `order` where there is one:
// rows read in 4 bits first.
struct LinearJob {
  Encoding encoding;
  int64_t inputs, outputs;
  int64_t quads;             // of a row's codes: inputs padded, and for sparse layers 64 zeros more
  int64_t groups_per_scale;  // that share a row of scales
  const LinearPanel* panel;
  const uint16_t* quad;     // [16·groups], or null: dense
  const float* smooth;      // [4·quads], or null for ones
  const float* scale;       // [S, 32], of the integer sums
  const float* bias;        // [panels, 32]
  const std::byte* weight;  // panels in order, each in the order that the kernel reads; per plane
  int64_t plane_bytes;      // to the plane of low parts

  int64_t rows;
  int64_t easy;          // the first rows, read in 4 bits
  const int64_t* order;  // [rows]: index in x and y; or null: as they come
  const void* x;
  void* y;
  bool half;
  Activation activation;
  float* row_scale;  // [rows]: s
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_LINEAR_JOB_H_
