#include "onnx_io/tensor_proto.h"

#include <climits>

#include "onnx_io/codec.h"
#include "onnx_io/mapped_file.h"

namespace sparsefuse {

Tensor ReadTensorProto(const std::filesystem::path& path) {
  try {
    const FileHandle handle = OpenRegularFile(path);
    const MappedFile file(handle.get(), IdentityOf(handle.get(), path));
    if (file.bytes().empty()) throw UserError(ErrorCode::kData, "the file is empty");
    if (file.bytes().size() > INT_MAX) {
      throw UserError(ErrorCode::kLimit, "tensor files of 2 GiB or more are not supported");
    }
    onnx::TensorProto proto;
    if (!proto.ParseFromArray(file.bytes().data(), static_cast<int>(file.bytes().size()))) {
      throw UserError(ErrorCode::kData, "not a serialized onnx.TensorProto",
                      "sequences and optional values are not supported");
    }
    ExternalFiles none{{}};
    return DecodeTensor(proto, none);
  } catch (UserError& error) {
    throw error.InFile(path.string());
  }
}

}  // namespace sparsefuse
