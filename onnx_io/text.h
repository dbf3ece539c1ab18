// Model ⇄ ONNX's own textual syntax, through the ONNX project's parser and printer: for dumps and
// golden tests.

#ifndef SPARSEFUSE_ONNX_IO_TEXT_H_
#define SPARSEFUSE_ONNX_IO_TEXT_H_

#include <string>
#include <string_view>

#include "onnx_io/model.h"

namespace sparsefuse {

struct TextOptions {
  int64_t max_elements = 16;  // larger tensors print as `…` with a count and a digest
};

std::string ToText(const Model& model, const TextOptions& options = {});

// UserError E_MODEL with line and column.
Model ModelFromText(std::string_view text);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_ONNX_IO_TEXT_H_
