#include <string>

#include "kernels/cuda/code.h"

namespace sparsefuse::cuda {

Code::~Code() {
  if (library_) cudaLibraryUnload(library_);
}

cudaError_t Code::Load(const void* image) noexcept {
  Device device{};
  cudaError_t error = FindDevice(&device);
  if (error != cudaSuccess) return error;
  is_sm90_ = device.is_sm90();
  room_ = device.share.room;
  error = cudaLibraryLoadData(&library_, image, nullptr, nullptr, 0, nullptr, nullptr, 0);
  if (error != cudaSuccess) return error;
  cudaKernel_t mark = nullptr;
  if (cudaLibraryGetKernel(&mark, library_, MarkName().c_str()) == cudaSuccess) return cudaSuccess;
  cudaLibraryUnload(library_);
  library_ = nullptr;
  return cudaErrorInvalidKernelImage;
}

cudaKernel_t Code::Kernel(const Instance& instance, Step step) const {
  cudaKernel_t kernel = nullptr;
  const cudaError_t error =
      cudaLibraryGetKernel(&kernel, library_, KernelName(instance, step).c_str());
  if (error != cudaSuccess) cudaGetLastError();  // none of that name: no error of the caller's
  return error == cudaSuccess ? kernel : nullptr;
}

Code::Found Code::Find(const LinearShape& shape, const Plan& plan, Activation activation,
                       bool half) const {
  Found found = {.made = {}, .tile_panels = plan.shared_panels};
  if (!library_) return found;
  Instance instance = {.shape = shape,
                       .pattern = PatternOf(shape, plan),
                       .tile_panels = plan.shared_panels,
                       .activation = activation,
                       .half = half,
                       .room = room_};
  found.made.decode8 = Kernel(instance, Step::kDecode8);
  found.made.decode16 = Kernel(instance, Step::kDecode16);
  for (; instance.tile_panels > 0; instance.tile_panels /= 2) {
    const bool sm90 = is_sm90_ && instance.tile_panels > 1;
    found.made.prefill = Kernel(instance, sm90 ? Step::kPrefillSm90 : Step::kPrefill);
    if (!found.made.prefill) continue;
    found.tile_panels = instance.tile_panels;
    break;
  }
  return found;
}

}  // namespace sparsefuse::cuda
