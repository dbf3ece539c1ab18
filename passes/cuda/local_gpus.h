// The GPUs of this machine, as libsparsefuse_cuda.so sees them. The tool links nothing of CUDA's:
// the library is loaded when it is asked.

#ifndef SPARSEFUSE_PASSES_CUDA_LOCAL_GPUS_H_
#define SPARSEFUSE_PASSES_CUDA_LOCAL_GPUS_H_

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "passes/cuda/layers.h"

namespace sparsefuse {

struct LocalGpu {
  int32_t number;            // CUDA's
  std::string architecture;  // "sm_90a"
  std::string name;          // "NVIDIA H200"
};

class LocalGpus {
 public:
  // No library is no GPU. UserError E_ENGINE where it cannot be loaded or is of another build than
  // the tool, `build`.
  LocalGpus(const std::filesystem::path& library, std::string build);

  // The first of this architecture, or null.
  const LocalGpu* Find(std::string_view architecture) const;
  // Why that is null.
  std::string WhyNot(std::string_view architecture) const;

  // Microseconds for so many rows by tiles of so many panels: the median of runs of `code`, which
  // was compiled for the layer. UserError E_ENGINE at the layer's node.
  double Time(const LocalGpu& gpu, const CudaLayer& layer, int64_t rows, int32_t panels,
              const std::string& code) const;

 private:
  void* library_ = nullptr;  // never closed: CUDA's runtime cannot be
  std::string file_, build_;
  std::string why_none_;
  std::vector<LocalGpu> gpus_;
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_CUDA_LOCAL_GPUS_H_
