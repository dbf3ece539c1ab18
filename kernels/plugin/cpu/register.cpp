// The library's exported symbols: RegisterCustomOps, which ONNX Runtime looks for, and
// SparsefuseGateCounts for whoever wants to know what gates did.

#include <onnxruntime_c_api.h>

#include "kernels/plugin/cpu/linear_kernel.h"
#include "kernels/plugin/cpu/load_cuda.h"
#include "kernels/plugin/ort_api.h"

namespace sparsefuse::plugin {
namespace {

constexpr const char* kDomainName = "sparsefuse";

// The domain must outlive every session that uses it, so it lives as long as the library, which
// ONNX Runtime keeps loaded while a session needs it.
class Domain {
 public:
  explicit Domain(const OrtApi& api) : api_(api), ops_(api, kCpuLinear) {
    status_ = api.CreateCustomOpDomain(kDomainName, &domain_);
    if (!status_) status_ = ops_.AddTo(domain_);
    if (!status_) status_ = AddCudaOpsTo(domain_, api);
  }
  Domain(const Domain&) = delete;
  Domain& operator=(const Domain&) = delete;
  ~Domain() {
    if (domain_) api_.ReleaseCustomOpDomain(domain_);
    if (status_) api_.ReleaseStatus(status_);
  }

  OrtStatus* AddTo(OrtSessionOptions* options) const noexcept {
    if (status_) return Error(api_, ORT_FAIL, "%s", api_.GetErrorMessage(status_));
    return api_.AddCustomOpDomain(options, domain_);
  }

 private:
  const OrtApi& api_;
  LinearOps ops_;
  OrtCustomOpDomain* domain_ = nullptr;
  OrtStatus* status_ = nullptr;
};

}  // namespace
}  // namespace sparsefuse::plugin

extern "C" __attribute__((visibility("default"))) OrtStatus* ORT_API_CALL
RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  using namespace sparsefuse::plugin;
  const OrtApi* api = base->GetApi(ORT_API_VERSION);
  if (!api) {
    const OrtApi* oldest = base->GetApi(1);
    return oldest ? Error(*oldest, ORT_NOT_IMPLEMENTED,
                          "the sparsefuse operators need ONNX Runtime 1.%d or newer, this is %s",
                          ORT_API_VERSION, base->GetVersionString())
                  : nullptr;
  }
  static const Domain domain(*api);
  return domain.AddTo(options);
}

// Rows of nested layers that could be gated since the library was loaded, and how many of them were
// read in 4 bits.
extern "C" __attribute__((visibility("default"))) void SparsefuseGateCounts(
    int64_t* rows, int64_t* easy) noexcept {
  const auto counts = sparsefuse::plugin::CountedGatedRows();
  *rows = counts.rows;
  *easy = counts.easy;
  sparsefuse::plugin::AddCudaGateCounts(*rows, *easy);
}
