// Model ⇄ ONNX's own textual syntax, through the ONNX project's parser and printer: for dumps and
// golden tests. The syntax has no room for everything: documentation strings of graphs and nodes,
// metadata of nodes, sparse initializers, training information and quantisation annotations are not
// printed.

#ifndef SPARSEFUSE_ONNX_IO_TEXT_H_
#define SPARSEFUSE_ONNX_IO_TEXT_H_

#include <string>
#include <string_view>

#include "onnx_io/model.h"

namespace sparsefuse {

struct TextOptions {
  // Larger tensors, and types that the syntax cannot express (4-bit, complex …), print as
  //   float[64,64] W = ["elements": "4096", "sha256": "0123456789abcdef"]
  // that is, as external data without a location, which ModelFromText refuses.
  int64_t max_elements = 16;
};

std::string ToText(const Model& model, const TextOptions& options = {});

// What a text without the `<ir_version: …, opset_import: […]>` header gets.
inline constexpr int64_t kTextIrVersion = 10;
inline constexpr int64_t kTextOpset = 18;

// UserError E_MODEL with line and column for what the parser refuses; otherwise like ReadModel.
Model ModelFromText(std::string_view text);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_ONNX_IO_TEXT_H_
