#include "kernels/plugin/ort_api.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>

namespace sparsefuse::plugin {
namespace {

using Text = std::array<char, 512>;

// "[2,3,4]", cut where the text ends.
Text Format(std::span<const int64_t> dims) noexcept {
  Text text;
  size_t used = static_cast<size_t>(std::snprintf(text.data(), text.size(), "["));
  for (size_t i = 0; i < dims.size() && used + 24 < text.size(); ++i) {
    used += static_cast<size_t>(std::snprintf(text.data() + used, text.size() - used, "%s%lld",
                                              i == 0 ? "" : ",", static_cast<long long>(dims[i])));
  }
  std::snprintf(text.data() + used, text.size() - used, "]");
  return text;
}

}  // namespace

OrtStatus* Error(const OrtApi& api, OrtErrorCode code, const char* format, ...) noexcept {
  Text text;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text.data(), text.size(), format, arguments);
  va_end(arguments);
  for (char* c = text.data(); *c; ++c) {
    if (static_cast<unsigned char>(*c) < 0x20 || *c == 0x7f) *c = '?';
  }
  return api.CreateStatus(code, text.data());
}

OrtStatus* ReadShape(const OrtApi& api, const OrtValue* value, const char* what,
                     TensorShape& shape) noexcept {
  if (!value) return Error(api, ORT_INVALID_ARGUMENT, "input %s is absent", what);
  OrtTensorTypeAndShapeInfo* info = nullptr;
  SPARSEFUSE_RETURN_IF_ERROR(api.GetTensorTypeAndShape(value, &info));
  OrtStatus* status = api.GetTensorElementType(info, &shape.type);
  if (!status) status = api.GetDimensionsCount(info, &shape.rank);
  if (!status && shape.rank > TensorShape::kMaxRank) {
    status = Error(api, ORT_INVALID_ARGUMENT, "input %s has rank %zu, at most %zu is supported",
                   what, shape.rank, TensorShape::kMaxRank);
  }
  if (!status) status = api.GetDimensions(info, shape.dims.data(), shape.rank);
  api.ReleaseTensorTypeAndShapeInfo(info);
  return status;
}

OrtStatus* CheckTensor(const OrtApi& api, const OrtValue* value, const char* what,
                       ONNXTensorElementDataType type, std::span<const int64_t> dims) noexcept {
  TensorShape shape;
  SPARSEFUSE_RETURN_IF_ERROR(ReadShape(api, value, what, shape));
  if (shape.type != type) {
    return Error(api, ORT_INVALID_ARGUMENT, "input %s has element type %d, expected %d", what,
                 static_cast<int>(shape.type), static_cast<int>(type));
  }
  const std::span<const int64_t> got(shape.dims.data(), shape.rank);
  if (!std::equal(got.begin(), got.end(), dims.begin(), dims.end())) {
    return Error(api, ORT_INVALID_ARGUMENT, "input %s has shape %.160s, the attributes need %.160s",
                 what, Format(got).data(), Format(dims).data());
  }
  return nullptr;
}

OrtStatus* ReadInt(const OrtApi& api, const OrtKernelInfo& info, const char* name, int64_t least,
                   int64_t most, int64_t& value) noexcept {
  if (OrtStatus* status = api.KernelInfoGetAttribute_int64(&info, name, &value)) {
    api.ReleaseStatus(status);
    return Error(api, ORT_INVALID_ARGUMENT, "attribute %s (an integer) is missing", name);
  }
  if (value < least || value > most) {
    return Error(api, ORT_INVALID_ARGUMENT, "attribute %s is %lld, must lie in %lld to %lld", name,
                 static_cast<long long>(value), static_cast<long long>(least),
                 static_cast<long long>(most));
  }
  return nullptr;
}

OrtStatus* ReadOptionalShare(const OrtApi& api, const OrtKernelInfo& info, const char* name,
                             float& value) noexcept {
  value = 0;
  if (OrtStatus* status = api.KernelInfoGetAttribute_float(&info, name, &value)) {
    api.ReleaseStatus(status);
    value = 0;
    // Missing, or of another type: the interface tells them apart by message alone.
    int64_t integer = 0;
    size_t length = 0;
    OrtStatus* const no_integer = api.KernelInfoGetAttribute_int64(&info, name, &integer);
    OrtStatus* const no_text = api.KernelInfoGetAttribute_string(&info, name, nullptr, &length);
    const bool missing = no_integer && no_text;
    if (no_integer) api.ReleaseStatus(no_integer);
    if (no_text) api.ReleaseStatus(no_text);
    if (missing) return nullptr;
    return Error(api, ORT_INVALID_ARGUMENT, "attribute %s is no float", name);
  }
  if (!(value >= 0 && value <= 1)) {
    return Error(api, ORT_INVALID_ARGUMENT, "attribute %s is %g, must lie in 0 to 1", name,
                 static_cast<double>(value));
  }
  return nullptr;
}

OrtStatus* ReadPositiveFloat(const OrtApi& api, const OrtKernelInfo& info, const char* name,
                             float& value) noexcept {
  if (OrtStatus* status = api.KernelInfoGetAttribute_float(&info, name, &value)) {
    api.ReleaseStatus(status);
    return Error(api, ORT_INVALID_ARGUMENT, "attribute %s (a float) is missing", name);
  }
  if (!std::isfinite(value) || !(value > 0)) {
    return Error(api, ORT_INVALID_ARGUMENT, "attribute %s is %g, must be finite and > 0", name,
                 static_cast<double>(value));
  }
  return nullptr;
}

}  // namespace sparsefuse::plugin
