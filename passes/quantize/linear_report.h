// What the report says about a quantised linear layer, and about all of them.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_LINEAR_REPORT_H_
#define SPARSEFUSE_PASSES_QUANTIZE_LINEAR_REPORT_H_

#include <cstdint>
#include <string>

#include "passes/framework/pass.h"
#include "passes/quantize/linear_forms.h"
#include "passes/quantize/linear_sequence.h"

namespace sparsefuse {

std::string_view EncodingText(Encoding encoding);  // "int8", "int4", "nested1", "nested4"

// Bytes of what the file stores for one weight.
struct StoredBytes {
  int64_t weights = 0, scales = 0, index = 0;
  int64_t parameters = 0;  // K·N

  void Add(const StoredBytes& other);
};

struct LayerReport {
  const LinearLayer* layer;
  const LinearChoice* choice;
  const QuantizedLayer* quantized;  // of the layer whose weight it is
  StoredBytes bytes;
  double stored_quads = 1;  // share of them, of sparse weights
  double zero_inputs = 0;   // share of the codes of its inputs that are 0, where counted
  std::string int8_reason;  // why int8 where less was asked for
};

// "int4 linear 256→1024 (custom, ×1.77 over fp32), 21 fusion clusters, scales 0.39 % of its bytes,
// error feedback, block error 41 % of plain rounding's"
std::string Describe(const LayerReport& report);

// From this share of zeros on a layer's inputs are worth a word, and its operator is told.
inline constexpr double kFewestZeroInputs = 0.5;

// Of all weights together: "5.2 bits a weight; scales 1,234 bytes, 0.21 %".
Finding Totals(const StoredBytes& bytes);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_LINEAR_REPORT_H_
