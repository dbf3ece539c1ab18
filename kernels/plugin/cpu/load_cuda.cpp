#include "kernels/plugin/cpu/load_cuda.h"

#include <dlfcn.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <climits>
#include <cstdio>
#include <cstring>

#include "kernels/plugin/cuda_library.h"
#include "kernels/plugin/ort_api.h"

namespace sparsefuse::plugin {
namespace {

std::atomic<CudaGateCounts*> gate_counts{nullptr};

OrtStatus* HasCudaProvider(const OrtApi& api, bool& has) noexcept {
  char** names = nullptr;
  int count = 0;
  SPARSEFUSE_RETURN_IF_ERROR(api.GetAvailableProviders(&names, &count));
  has = false;
  for (int i = 0; i < count; ++i) has = has || std::strcmp(names[i], kCudaProvider) == 0;
  return api.ReleaseAvailableProviders(names, count);
}

using Path = std::array<char, PATH_MAX>;

// The file in this library's folder; false where there is none.
bool FindBeside(const char* name, Path& path) noexcept {
  Dl_info self{};
  if (!dladdr(reinterpret_cast<const void*>(&FindBeside), &self) || !self.dli_fname) return false;
  const char* slash = std::strrchr(self.dli_fname, '/');
  // A name without a folder would be looked for elsewhere.
  const int folder = slash ? static_cast<int>(slash - self.dli_fname) : 1;
  const int length = std::snprintf(path.data(), path.size(), "%.*s/%s", folder,
                                   slash ? self.dli_fname : ".", name);
  return length > 0 && static_cast<size_t>(length) < path.size() && access(path.data(), F_OK) == 0;
}

}  // namespace

OrtStatus* AddCudaOpsTo(OrtCustomOpDomain* domain, const OrtApi& api) noexcept {
  bool has_provider = false;
  SPARSEFUSE_RETURN_IF_ERROR(HasCudaProvider(api, has_provider));
  Path path;
  if (!has_provider || !FindBeside(kCudaLibrary, path)) return nullptr;
  // Never closed: it stays until the process ends (-z nodelete).
  void* library = dlopen(path.data(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* reason = dlerror();
    return Error(api, ORT_FAIL, "%.200s cannot be loaded: %.250s", path.data(),
                 reason ? reason : "no reason given");
  }
  auto* add = reinterpret_cast<AddCudaOps*>(dlsym(library, kAddCudaOps));
  auto* counts = reinterpret_cast<CudaGateCounts*>(dlsym(library, kCudaGateCounts));
  if (!add || !counts) {
    return Error(api, ORT_FAIL, "%.200s is no library of build %.60s: it lacks %s", path.data(),
                 Build(), add ? kCudaGateCounts : kAddCudaOps);
  }
  if (OrtStatus* status = add(Build(), &api, domain)) {
    OrtStatus* named = Error(api, api.GetErrorCode(status), "%.200s: %.300s", path.data(),
                             api.GetErrorMessage(status));
    api.ReleaseStatus(status);
    return named;
  }
  gate_counts = counts;
  return nullptr;
}

void AddCudaGateCounts(int64_t& rows, int64_t& easy) noexcept {
  CudaGateCounts* counts = gate_counts;
  if (!counts) return;
  int64_t cuda_rows = 0, cuda_easy = 0;
  counts(&cuda_rows, &cuda_easy);
  rows += cuda_rows;
  easy += cuda_easy;
}

}  // namespace sparsefuse::plugin
