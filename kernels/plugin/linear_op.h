// The linear operators of the domain sparsefuse, version 1, as ONNX Runtime registers them: names,
// inputs, types, shapes, for any execution provider. What they compute: kernels/linear/linear.h.
// Inputs and attributes: docs/formats.md.

#ifndef SPARSEFUSE_KERNELS_PLUGIN_LINEAR_OP_H_
#define SPARSEFUSE_KERNELS_PLUGIN_LINEAR_OP_H_

#include <onnxruntime_c_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <new>

#include "kernels/linear/linear.h"
#include "kernels/plugin/ort_api.h"

namespace sparsefuse::plugin {

// One of the family: (QuantizedLinear | BlockSparseLinear)(8 | 4 | Nested1 | Nested4)(activation).
struct LinearVariant {
  Encoding encoding = Encoding::kInt8;
  bool sparse = false;
  Activation activation = Activation::kNone;
};

// What an input may be, and which of an operator's inputs are what: the first five always, the gate
// of nested weights, the blocks of sparse ones.
enum Input : size_t {
  kX,
  kWeight,
  kScaleCode,
  kBias,
  kSmooth,
  kGate,
  kQuad,
  kGroupPtr,
  kInputKinds
};
inline constexpr std::array<const char*, kInputKinds> kInputNames = {
    "X", "weight", "scale_code", "bias", "smooth", "gate", "quad", "group_ptr"};

constexpr size_t InputCount(const LinearVariant& variant) noexcept {
  return 5 + (IsNested(variant.encoding) ? 1 : 0) + (variant.sparse ? 2 : 0);
}
constexpr Input KindOf(const LinearVariant& variant, size_t index) noexcept {
  return static_cast<Input>(index >= kGate && !IsNested(variant.encoding) ? index + 1 : index);
}

// What differs between execution providers.
struct LinearProvider {
  const char* type;  // as ONNX Runtime names it; null: its CPU provider
  OrtMemType (*memory)(Input) noexcept;
  // Kernels are made from a LinearOp.
  decltype(OrtCustomOp::CreateKernelV2) make;
  decltype(OrtCustomOp::KernelComputeV2) compute;
  decltype(OrtCustomOp::KernelDestroy) destroy;
};

// One object for each variant and element type of the activations, float32 and float16: ONNX
// Runtime merges ops of one name. Must outlive the sessions that use it; does not move.
struct LinearOp : OrtCustomOp {
  LinearOp(const OrtApi& ort, const LinearVariant& kind, ONNXTensorElementDataType activations,
           const LinearProvider& by) noexcept;
  LinearOp(const LinearOp&) = delete;
  LinearOp& operator=(const LinearOp&) = delete;

  const OrtApi& api;
  LinearVariant variant;
  ONNXTensorElementDataType type;
  LinearProvider provider;
  std::array<char, 40> name;
};

// How ONNX Runtime makes, runs and frees kernels of this class, which has
//   explicit Kernel(const LinearOp&) noexcept
//   OrtStatus* Init(const OrtKernelInfo&) noexcept
//   OrtStatus* Compute(OrtKernelContext&) noexcept
template <typename Kernel>
constexpr LinearProvider ProviderOf(const char* type, OrtMemType (*memory)(Input) noexcept) {
  return {
      .type = type,
      .memory = memory,
      .make = [](const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info,
                 void** kernel) noexcept -> OrtStatus* {
        *kernel = nullptr;
        std::unique_ptr<Kernel> made(new (std::nothrow) Kernel(*static_cast<const LinearOp*>(op)));
        if (!made) return Error(*api, ORT_FAIL, "no memory for a kernel");
        SPARSEFUSE_RETURN_IF_ERROR(made->Init(*info));
        *kernel = made.release();
        return nullptr;
      },
      .compute = [](void* kernel, OrtKernelContext* context) noexcept -> OrtStatus* {
        return static_cast<Kernel*>(kernel)->Compute(*context);
      },
      .destroy = [](void* kernel) noexcept { delete static_cast<Kernel*>(kernel); }};
}

// The whole family for one provider.
class LinearOps {
 public:
  LinearOps(const OrtApi& api, const LinearProvider& provider);

  // The domain must not outlive this.
  OrtStatus* AddTo(OrtCustomOpDomain* domain) const noexcept;

 private:
  const OrtApi& api_;
  std::deque<LinearOp> ops_;  // their addresses are given away
};

}  // namespace sparsefuse::plugin

#endif  // SPARSEFUSE_KERNELS_PLUGIN_LINEAR_OP_H_
