#include "passes/cuda/local_gpus.h"

#include <dlfcn.h>

#include <algorithm>

#include "kernels/plugin/cuda_measure.h"

namespace sparsefuse {
namespace {

constexpr const char* kHint =
    "compile --no-measure, or \"measure\": false in a configuration, chooses tiles without a GPU";

template <typename Function>
Function* Symbol(void* library, const std::string& file, const char* name) {
  if (void* found = dlsym(library, name)) return reinterpret_cast<Function*>(found);
  throw UserError(ErrorCode::kEngine, fmt::format("it lacks {}", name), kHint).InFile(file);
}

}  // namespace

LocalGpus::LocalGpus(const std::filesystem::path& library, std::string build)
    : file_(library.string()), build_(std::move(build)) {
  if (file_.empty()) {
    why_none_ = "libsparsefuse_cuda.so is not beside the operator library";
    return;
  }
  library_ = dlopen(file_.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library_) {
    const char* reason = dlerror();
    throw UserError(ErrorCode::kEngine,
                    fmt::format("cannot be loaded: {}", reason ? reason : "no reason given"), kHint)
        .InFile(file_);
  }
  plugin::CudaDevices devices{};
  plugin::CudaFault fault{};
  switch (Symbol<plugin::FindCudaDevices>(library_, file_, plugin::kFindCudaDevices)(
      build_.c_str(), &devices, &fault)) {
    case plugin::CudaOutcome::kDone:
      break;
    case plugin::CudaOutcome::kNoDevice:
      why_none_ = fmt::format("no GPU here: {}", fault.data());
      return;
    case plugin::CudaOutcome::kFailed:
      throw UserError(ErrorCode::kEngine, fault.data(), kHint).InFile(file_);
  }
  for (int32_t i = 0; i < devices.count; ++i) {
    const auto& device = devices.device[i];
    gpus_.push_back({i, device.architecture, device.name});
  }
}

const LocalGpu* LocalGpus::Find(std::string_view architecture) const {
  const auto found = std::find_if(gpus_.begin(), gpus_.end(), [&](const LocalGpu& gpu) {
    return gpu.architecture == architecture;
  });
  return found == gpus_.end() ? nullptr : &*found;
}

std::string LocalGpus::WhyNot(std::string_view architecture) const {
  if (gpus_.empty()) return why_none_;
  std::vector<std::string> here;
  for (const LocalGpu& gpu : gpus_) {
    std::string text = fmt::format("{} ({})", gpu.name, gpu.architecture);
    if (std::find(here.begin(), here.end(), text) == here.end()) here.push_back(std::move(text));
  }
  return fmt::format("no GPU here is {}: {}", architecture, fmt::join(here, ", "));
}

double LocalGpus::Time(const LocalGpu& gpu, const CudaLayer& layer, int64_t rows, int32_t panels,
                       const std::string& code) const {
  const plugin::CudaMeasurement what = {.device = gpu.number,
                                        .shape = layer.shape,
                                        .blocks = layer.blocks(),
                                        .activation = layer.activation,
                                        .half = layer.half,
                                        .rows = rows,
                                        .tile_panels = panels,
                                        .code = code.data()};
  double microseconds = 0;
  plugin::CudaFault fault{};
  const auto outcome = Symbol<plugin::MeasureCudaLayer>(library_, file_, plugin::kMeasureCudaLayer)(
      build_.c_str(), &what, &microseconds, &fault);
  if (outcome == plugin::CudaOutcome::kDone) return microseconds;
  throw UserError(ErrorCode::kEngine,
                  fmt::format("tiles of {} outputs cannot be timed on {}: {}",
                              panels * kPanelOutputs, gpu.name, fault.data()),
                  kHint)
      .At(layer.node);
}

}  // namespace sparsefuse
