// A linear layer's codes as they lie in the file.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_LINEAR_STORE_H_
#define SPARSEFUSE_PASSES_QUANTIZE_LINEAR_STORE_H_

#include <cstdint>
#include <vector>

#include "passes/lower/builder.h"
#include "passes/lower/linear.h"
#include "passes/lower/matmul_nbits.h"
#include "passes/quantize/embedding.h"
#include "passes/quantize/linear_forms.h"
#include "passes/quantize/linear_report.h"
#include "passes/quantize/linear_sequence.h"

namespace sparsefuse {

// Once for all that read the weight.
struct StoredLinear {
  QuantizedWeight weight;
  BlockedWeight blocked;                     // int4 in standard operators
  StoredWeight layout1;                      // custom form
  RowsAndScales unpacked{nullptr, nullptr};  // tied: what the embedding gathers from
  StoredBytes bytes;
  double stored_quads = 1;  // share of them
};

// Share of the quads that are stored when a panel leaves out its zero blocks, whole groups counted.
double StoredDensity(const std::vector<bool>& zero_blocks, int64_t inputs, int64_t outputs);

// Into `model`. `tied`: an embedding reads the same weight; what it gathers from is put at the
// front of the graph.
StoredLinear StoreLinear(Model& model, Builder& builder, const LinearLayer& layer,
                         const QuantizedLayer& quantized, const LinearChoice& choice, bool tied);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_LINEAR_STORE_H_
