// The ways in which a linear layer can be computed, as far as their speed is concerned.

#ifndef SPARSEFUSE_PASSES_LATENCY_LAYER_FORM_H_
#define SPARSEFUSE_PASSES_LATENCY_LAYER_FORM_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "kernels/linear/pack.h"

namespace sparsefuse {

// Y[rows, N] = X[rows, K] · W (+ bias)
struct LayerShape {
  int64_t inputs, outputs;  // K, N
  bool bias = true;         // of the float layer; the other forms always have one
};

struct LayerForm {
  enum class Kind : uint8_t {
    kFloat,         // MatMul, Add
    kStandardInt8,  // dynamic int8 in standard operators, as this tool spells it
    kMatMulNBits,   // ONNX Runtime's own 4-bit operator, the faster of blocks of 32 and 128
    kOperator,      // this tool's
  };
  Kind kind = Kind::kFloat;
  Encoding encoding = Encoding::kInt8;  // of kOperator
  double density = 1;  // of kOperator: share of quads that are stored, in (0, 1]; 1: dense
};

// "float", "standard int8", "MatMulNBits", "QuantizedLinear4", "BlockSparseLinear8 0.25".
std::string FormName(const LayerForm& form);

// Milliseconds of one run of the layer in each form, all measured side by side; infinity where the
// engine cannot run a form here.
using MeasureLayer = std::function<std::vector<double>(const LayerShape& shape, int64_t rows,
                                                       std::span<const LayerForm> forms)>;

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_LATENCY_LAYER_FORM_H_
