#include "onnx_io/text.h"

#include <sstream>
#include <utility>

#include "onnx/defs/parser.h"
#include "onnx/defs/printer.h"
#include "onnx_io/codec.h"
#include "onnx_io/digest.h"

namespace sparsefuse {
namespace {

// Types whose elements the syntax can express.
bool HasSyntax(DType dtype) {
  return dtype == DType::kString ||
         (DTypeBits(dtype) >= 8 && dtype != DType::kComplex64 && dtype != DType::kComplex128);
}

std::string Digest(const Tensor& tensor) {
  Sha256 digest;
  digest.Add(tensor.bytes());
  if (tensor.dtype() == DType::kString) {
    for (const std::string& text : tensor.strings()) {
      digest.Add(std::as_bytes(std::span(text.c_str(), text.size() + 1)));
    }
  }
  return digest.Hex().substr(0, 16);
}

// The parser's message has three lines: position, context, reason.
UserError SyntaxError(const std::string& message) {
  const size_t line = message.find("line: "), column = message.find("column: ");
  const size_t reason = message.rfind('\n');
  if (line == std::string::npos || column == std::string::npos || reason == std::string::npos) {
    return UserError(ErrorCode::kModel, message);
  }
  return UserError(
      ErrorCode::kModel,
      fmt::format("line {}, column {}: {}", std::atoi(message.c_str() + line + 6),
                  std::atoi(message.c_str() + column + 8), message.substr(reason + 1)));
}

}  // namespace

std::string ToText(const Model& model, const TextOptions& options) {
  const auto elide = [&](const Tensor& tensor, std::string_view, onnx::TensorProto& proto) {
    if (tensor.size() <= options.max_elements && HasSyntax(tensor.dtype())) return false;
    for (auto& [key, value] : {std::pair{"elements", std::to_string(tensor.size())},
                               std::pair{"sha256", Digest(tensor)}}) {
      onnx::StringStringEntryProto* entry = proto.add_external_data();
      entry->set_key(key);
      entry->set_value(value);
    }
    return true;
  };
  onnx::ModelProto proto;
  ModelCodec::Encode(model, elide, proto);
  std::ostringstream out;
  out << proto << '\n';
  return out.str();
}

Model ModelFromText(std::string_view text) {
  onnx::ModelProto proto;
  const std::string copy(text);
  try {
    const auto status = onnx::OnnxParser(copy.c_str()).Parse(proto);
    if (!status.IsOK()) throw SyntaxError(status.ErrorMessage());
  } catch (const std::logic_error& error) {  // numbers out of range
    throw UserError(ErrorCode::kModel, fmt::format("syntax error: {}", error.what()));
  }
  if (!proto.has_ir_version()) proto.set_ir_version(kTextIrVersion);
  if (proto.opset_import_size() == 0) {
    onnx::OperatorSetIdProto* import = proto.add_opset_import();
    import->set_domain("");
    import->set_version(kTextOpset);
  }
  ExternalFiles none({});
  Model model = ModelCodec::Decode(std::move(proto), none);
  Verify(model);
  return model;
}

}  // namespace sparsefuse
