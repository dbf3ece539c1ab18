// Code for GPUs beside a model: compiled, written and shown; for compress and compile.

#ifndef SPARSEFUSE_CLI_CUDA_CODE_H_
#define SPARSEFUSE_CLI_CUDA_CODE_H_

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/output_folder.h"
#include "cli/text.h"
#include "passes/cuda/code.h"

namespace sparsefuse {

inline constexpr std::string_view kCudaReportName = "cuda.json";

struct CudaCode {
  int64_t rows = kManyRows;
  std::vector<CudaLayer> layers;
  struct Compiled {
    CudaPlan plan;
    std::string measured_on;  // the GPU; empty: the cost model chose the tiles
    std::string why_model;    // then
    std::string code;
    double seconds = 0;
  };
  std::vector<Compiled> targets;
};

struct CudaSettings {
  std::vector<const CudaTarget*> targets;
  int64_t rows = kManyRows;            // that tiles are chosen for
  bool measure = true;                 // them, where there is a GPU of the target
  std::filesystem::path library = {};  // libsparsefuse_cuda.so, which measures
};

// Empty where the model has no layer with kernels for GPUs. Signals wait until the compiler ends.
// decisions: by target, what was measured; given, it is not measured again, else it is written.
CudaCode CompileCudaCode(const Model& model, const CudaSettings& settings,
                         nlohmann::json& decisions, const Progress& progress);

// The files it consists of, in the order of Stage.
std::vector<std::string> CudaFileNames(const std::vector<const CudaTarget*>& targets);
void Stage(const CudaCode& code, OutputFolder& folder);

std::string CudaText(const CudaCode& code, Detail detail);
nlohmann::ordered_json ToJson(const CudaCode& code);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_CLI_CUDA_CODE_H_
