// A file that holds one serialized onnx.TensorProto, as in ONNX's test_data_set_* folders.

#ifndef SPARSEFUSE_ONNX_IO_TENSOR_PROTO_H_
#define SPARSEFUSE_ONNX_IO_TENSOR_PROTO_H_

#include <filesystem>

#include "onnx_io/tensor.h"

namespace sparsefuse {

// UserErrors with the file's name: E_READ (missing, no regular file), E_DATA (not a TensorProto),
// E_TENSOR (payload that does not fit), E_PATH (external data: refused), E_LIMIT (2 GiB or more).
Tensor ReadTensorProto(const std::filesystem::path& path);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_ONNX_IO_TENSOR_PROTO_H_
