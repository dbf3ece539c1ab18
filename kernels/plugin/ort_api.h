// What the operators share of ONNX Runtime's C interface: errors as OrtStatus, nothing thrown.

#ifndef SPARSEFUSE_KERNELS_PLUGIN_ORT_API_H_
#define SPARSEFUSE_KERNELS_PLUGIN_ORT_API_H_

#include <onnxruntime_c_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace sparsefuse::plugin {

// Runs `call` (an OrtStatus*) and returns it from the enclosing function if it is an error.
#define SPARSEFUSE_RETURN_IF_ERROR(call) \
  if (OrtStatus* status_of_call = (call)) return status_of_call

// A status with a formatted message, cut at 511 bytes. Control characters, which may come from a
// hostile model's names, become '?'.
[[gnu::format(printf, 3, 4)]] OrtStatus* Error(const OrtApi& api, OrtErrorCode code,
                                               const char* format, ...) noexcept;

// Element type and dimensions of a tensor.
struct TensorShape {
  static constexpr size_t kMaxRank = 32;
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  size_t rank = 0;
  std::array<int64_t, kMaxRank> dims{};
};

// `what` names the tensor in messages. A null value (absent optional input) is an error.
OrtStatus* ReadShape(const OrtApi& api, const OrtValue* value, const char* what,
                     TensorShape& shape) noexcept;

// That the tensor has exactly this type and these dimensions.
OrtStatus* CheckTensor(const OrtApi& api, const OrtValue* value, const char* what,
                       ONNXTensorElementDataType type, std::span<const int64_t> dims) noexcept;

// An attribute that must be there and lie in [least, most].
OrtStatus* ReadInt(const OrtApi& api, const OrtKernelInfo& info, const char* name, int64_t least,
                   int64_t most, int64_t& value) noexcept;
// An attribute that may be missing, then 0; else a float in [0, 1].
OrtStatus* ReadOptionalShare(const OrtApi& api, const OrtKernelInfo& info, const char* name,
                             float& value) noexcept;
// An attribute that must be there, finite and > 0.
OrtStatus* ReadPositiveFloat(const OrtApi& api, const OrtKernelInfo& info, const char* name,
                             float& value) noexcept;

}  // namespace sparsefuse::plugin

#endif  // SPARSEFUSE_KERNELS_PLUGIN_ORT_API_H_
