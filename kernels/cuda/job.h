// One run of a prepared layer, as its kernels see it.

#ifndef SPARSEFUSE_KERNELS_CUDA_JOB_H_
#define SPARSEFUSE_KERNELS_CUDA_JOB_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/linear.h"

namespace sparsefuse::cuda {

inline constexpr int64_t kArrivals = 2;                              // counters a panel
inline constexpr int64_t kSlotValues = kDecodeRows * kPanelOutputs;  // of 4 bytes

struct Job {
  const uint8_t* weight;
  int64_t plane_bytes;
  const uint16_t* quad;  // null: dense
  const float *scale, *bias;
  const Worker* worker;
  const int32_t *group_ptr, *slot_ptr, *scale_ptr, *row_ptr, *tile_order;
  int64_t outputs;
  int32_t panels, groups_per_panel;  // the latter of a dense layer
  int32_t groups_per_scale;          // that share a row of scales; 0: all of a panel

  const int8_t* codes;  // [rows, codes_stride]: q, then zeros; or tiles (quantize.h)
  int64_t codes_stride;
  const float* row_scale;  // [rows]: s
  const int32_t* easy;     // [rows]: not 0 for rows that are read in 4 bits; null: none is
  int32_t* arrived;        // [panels, kArrivals], 0 before
  int32_t* slot;           // [slots, kSlotValues]
  int64_t rows;
  void* y;
  bool half;
  Activation activation;
};

// What a run has besides where it skips zeros.
struct Skip {
  SkipShape shape;
  const uint32_t* input_words;  // [strips, inputs, 32]: the weights, input by input
  int32_t* sum;                 // [scale_rows, rows, strips · strip_outputs], 0 before
};

struct Launch {
  Encoding encoding;
  bool gathers;  // groups hold any quads; else 64 neighbours
  int32_t workers, shared_panels;
  Room room;  // of a block at few rows
  MadeKernels made;
  bool overlaps;  // starts while the launch before it still runs
  cudaStream_t stream;
};

// run.operator()<kEncoding>(): the encoding is a constant to what it calls.
template <typename Run>
cudaError_t WithEncoding(Encoding encoding, const Run& run) {
  switch (encoding) {
    case Encoding::kInt8:
      return run.template operator()<Encoding::kInt8>();
    case Encoding::kInt4:
      return run.template operator()<Encoding::kInt4>();
    case Encoding::kNested1:
      return run.template operator()<Encoding::kNested1>();
    case Encoding::kNested4:
      return run.template operator()<Encoding::kNested4>();
  }
  return cudaErrorInvalidValue;
}

// rows ≤ kDecodeRows.
cudaError_t LaunchDecode(const Job& job, const Launch& launch) noexcept;
// The same, of a layer with Layer::input_words. job.arrived: [strips], 0 before.
cudaError_t LaunchSkip(const Job& job, const Skip& skip, const Launch& launch) noexcept;
// Any number of rows; reads in 8 bits only.
cudaError_t LaunchPrefill(const Job& job, const Launch& launch) noexcept;
// The same on compute capability 9.0, of layers whose panels share inputs by fours or, with one row
// of scales each, by twos; wants tiled codes.
cudaError_t LaunchPrefillSm90(const Job& job, const Launch& launch) noexcept;

// Fills Layer::input_words.
cudaError_t LaunchCopyWeights(const LinearShape& shape, const uint8_t* weight,
                              uint32_t* input_words, cudaStream_t stream) noexcept;

}  // namespace sparsefuse::cuda

#endif  // SPARSEFUSE_KERNELS_CUDA_JOB_H_
