#include "kernels/plugin/cuda/compiled_code.h"

#include <cstdlib>
#include <exception>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "kernels/plugin/ort_api.h"

namespace sparsefuse::plugin {
namespace {

constexpr const char* kVariable = "SPARSEFUSE_CUDA_CODE";

std::mutex mutex;

// By device and file. Never freed: the driver may be gone before this library.
std::map<std::string, std::unique_ptr<cuda::Code>>& Loaded() {
  static auto* loaded = new std::map<std::string, std::unique_ptr<cuda::Code>>;
  return *loaded;
}

OrtStatus* Find(const OrtApi& api, const std::string& folder, const cuda::Code** code) {
  cuda::Device device{};
  int number = 0;
  cudaError_t error = cudaGetDevice(&number);
  if (error == cudaSuccess) error = cuda::FindDevice(&device);
  if (error != cudaSuccess) {
    return Error(api, ORT_FAIL, "reading the device's size: %s (%s)", cudaGetErrorString(error),
                 cudaGetErrorName(error));
  }
  const std::string path = folder + '/' + cuda::CodeFileName(ArchitectureOf(device));
  const std::lock_guard lock(mutex);
  std::unique_ptr<cuda::Code>& known = Loaded()[std::to_string(number) + path];
  if (!known) {
    std::ifstream file(path, std::ios::binary);
    const std::string image{std::istreambuf_iterator<char>(file), {}};
    if (!file || image.empty()) {
      return Error(api, ORT_FAIL,
                   "%s: %.300s cannot be read: compile the model for this device, or unset the "
                   "variable",
                   kVariable, path.c_str());
    }
    auto loaded = std::make_unique<cuda::Code>();
    error = loaded->Load(image.data());
    if (error != cudaSuccess) {
      return Error(api, ORT_FAIL, "%s: %.300s cannot be used: %s (%s)%s", kVariable, path.c_str(),
                   cudaGetErrorString(error), cudaGetErrorName(error),
                   error == cudaErrorInvalidKernelImage
                       ? ": it was compiled by another build of sparsefuse"
                       : "");
    }
    known = std::move(loaded);
  }
  *code = known.get();
  return nullptr;
}

}  // namespace

std::string ArchitectureOf(const cuda::Device& device) {
  return "sm_" + std::to_string(device.major) + std::to_string(device.minor) +
         (device.is_sm90() ? "a" : "");  // code for 9.0 uses what only that has
}

OrtStatus* FindCompiledCode(const OrtApi& api, const cuda::Code** code) noexcept {
  *code = nullptr;
  const char* folder = std::getenv(kVariable);
  if (!folder || !*folder) return nullptr;
  try {
    return Find(api, folder, code);
  } catch (const std::exception& e) {
    return Error(api, ORT_FAIL, "%s: %.300s", kVariable, e.what());
  }
}

}  // namespace sparsefuse::plugin
