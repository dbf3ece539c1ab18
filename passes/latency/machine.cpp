#include "passes/latency/machine.h"

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "kernels/base/cpu_features.h"
#include "onnx_io/digest.h"
#include "onnx_io/error.h"

namespace sparsefuse {
namespace {

// Enough of the file's SHA-256 to tell builds apart.
std::string LibraryName(const std::filesystem::path& library) {
  if (library.empty()) return "no operators";
  std::ifstream in(library, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  return fmt::format("operators {}", Sha256Hex(std::as_bytes(std::span(bytes))).substr(0, 16));
}

}  // namespace

std::string CpuModelName() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) {
      return Printable(line.substr(colon + 2));
    }
  }
  return "unknown CPU";
}

std::string DescribeMachine(const SessionOptions& options) {
  std::array<char, 256> features{};
  DescribeCpuFeatures(DetectCpuFeatures(), features);
  std::string text = fmt::format("{}; {}; {} thread{}; {}; ONNX Runtime {}", CpuModelName(),
                                 features.data(), options.threads, options.threads == 1 ? "" : "s",
                                 LibraryName(options.operator_library), EngineVersion());
  for (const char* variable : {"SPARSEFUSE_ISA", "SPARSEFUSE_GATE"}) {
    const char* value = std::getenv(variable);
    if (value && *value) text += fmt::format("; {}={}", variable, Printable(value));
  }
  return text;
}

}  // namespace sparsefuse
