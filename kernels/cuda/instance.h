// Kernels that are compiled for one layer: what of it is constant in them, and their names, by
// which the library finds in compiled code what was made for a layer.

#ifndef SPARSEFUSE_KERNELS_CUDA_INSTANCE_H_
#define SPARSEFUSE_KERNELS_CUDA_INSTANCE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/cuda/plan.h"
#include "kernels/linear/linear.h"

namespace sparsefuse::cuda {

enum class Step : uint8_t {
  kDecode8,      // at most 8 rows
  kDecode16,     // at most 16
  kPrefill,      // any number, by mma
  kPrefillSm90,  // by wgmma, on compute capability 9.0 alone
};

// Which inputs a panel's groups hold.
enum class Pattern : uint8_t {
  kDense,  // all
  kRuns,   // 64 neighbours each, from a multiple of 64 on
  kQuads,  // any quads: activations are gathered
};

Pattern PatternOf(const LinearShape& shape, const Plan& plan);

// As reports and kernels' names call them: "int8", "nested4"; "dense", "quads".
const char* EncodingName(Encoding encoding);
const char* PatternName(Pattern pattern);

// Layers with equal members share their kernels.
struct Instance {
  LinearShape shape;
  Pattern pattern = Pattern::kDense;
  int32_t tile_panels = 1;  // of a tile of many rows: 4, 2 or 1
  Activation activation = Activation::kNone;
  bool half = false;  // x and y are float16
  Room room = Room::kLarge;
};

// A valid identifier. Equal for instances whose kernels of this step are equal.
std::string KernelName(const Instance& instance, Step step);
// The kernel that code made from this build's headers (headers.h) has, and no other.
std::string MarkName();
// What the code for an architecture ("sm_90a") is called beside its model.
std::string CodeFileName(std::string_view architecture);

}  // namespace sparsefuse::cuda

#endif  // SPARSEFUSE_KERNELS_CUDA_INSTANCE_H_
