// Private to onnx_io: protobuf messages ⇄ the model in memory.

#ifndef SPARSEFUSE_ONNX_IO_CODEC_H_
#define SPARSEFUSE_ONNX_IO_CODEC_H_

#include <functional>
#include <memory>
#include <string_view>

#include "onnx/onnx-ml.pb.h"
#include "onnx_io/external_data.h"
#include "onnx_io/model.h"

namespace sparsefuse {

// "ai.onnx" is a spelling of the default domain.
inline std::string_view NormalDomain(std::string_view domain) {
  return domain == "ai.onnx" ? std::string_view() : domain;
}

// --- One tensor (tensor_codec.cpp)
// ------------------------------------------------------------------

// Takes the payload out of `proto`, which keeps everything else. Throws E_TENSOR, E_PATH, E_READ,
// E_LIMIT, E_UNSUPPORTED without a place (the caller knows the tensor's name).
Tensor DecodeTensor(onnx::TensorProto& proto, ExternalFiles& files);

// Where a tensor's bytes go; `proto` has everything but the payload. Returns false to have them put
// into `proto`. `name`: the initializer's, empty for attributes.
using PlaceTensor =
    std::function<bool(const Tensor& tensor, std::string_view name, onnx::TensorProto& proto)>;

// The opposite: `proto` holds the shell, or nothing.
void EncodeTensor(const Tensor& tensor, std::string_view name, const PlaceTensor& place,
                  onnx::TensorProto& proto);

// Tensors that stay in shells: checks each like DecodeTensor and moves external bytes inside, so
// that the message needs no file any more. E_LIMIT above 64 MiB of such bytes in a model.
class ShellTensors {
 public:
  explicit ShellTensors(ExternalFiles& files) : files_(files) {}
  Tensor Settle(onnx::TensorProto& tensor);
  void Settle(onnx::SparseTensorProto& sparse);
  void Settle(onnx::AttributeProto& attribute);
  void Settle(onnx::GraphProto& graph);

 private:
  ExternalFiles& files_;
  uint64_t moved_bytes_ = 0;
};

// --- The whole model (decode.cpp, encode.cpp)
// -------------------------------------------------------

struct ModelCodec {
  // Structure only; Verify does the rest.
  static Model Decode(onnx::ModelProto&& proto, ExternalFiles& files);
  static void Encode(const Model& model, const PlaceTensor& place, onnx::ModelProto& proto);

  static void SetFiles(Model& model, std::vector<FileIdentity> files) {
    model.files_ = std::move(files);
  }
  static const std::vector<FileIdentity>& Files(const Model& model) { return model.files_; }

 private:
  class Decoder;
  class Encoder;
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_ONNX_IO_CODEC_H_
