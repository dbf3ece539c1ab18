#include "onnx_io/text.h"

#include <sstream>
#include <utility>

#include "onnx/defs/parser.h"
#include "onnx/defs/printer.h"
#include "onnx_io/codec.h"
#include "onnx_io/digest.h"

namespace sparsefuse {

std::string ToText(const Model& model, const TextOptions& options) {
  onnx::ModelProto proto;
  ModelCodec::Encode(
      model,
      [&](const Tensor& tensor, std::string_view, onnx::TensorProto& written) {
        if (tensor.size() <= options.max_elements && DTypeBits(tensor.dtype()) >= 8) return false;
        const auto add = [&](const char* key, std::string value) {
          onnx::StringStringEntryProto* entry = written.add_external_data();
          entry->set_key(key);
          entry->set_value(std::move(value));
        };
        add("elements", std::to_string(tensor.size()));
        add("sha256", Sha256Hex(tensor.bytes()).substr(0, 16));
        return true;
      },
      proto);
  std::ostringstream out;
  out << proto;
  return out.str();
}

Model ModelFromText(std::string_view text) {
  onnx::ModelProto proto;
  const std::string copy(text);
  onnx::OnnxParser parser(copy.c_str());
  const auto status = parser.Parse(proto);
  if (!status.IsOK()) throw UserError(ErrorCode::kModel, status.ErrorMessage());
  ExternalFiles none({});
  Model model = ModelCodec::Decode(std::move(proto), none);
  Verify(model);
  return model;
}

}  // namespace sparsefuse
