#include "cli/system.h"

#include <malloc.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <thread>

#include "cli/commands.h"
#include "cli/console.h"
#include "generated/cli/commit.h"  // made by cli/commit.cmake
#include "kernels/base/cpu_features.h"
#include "passes/engine/engine.h"

namespace sparsefuse {

std::string ToolVersion() { return SPARSEFUSE_VERSION; }

std::string BuildText() { return fmt::format("{} ({})", ToolVersion(), kCommit); }

std::string CpuText() {
  std::array<char, 256> text{};
  DescribeCpuFeatures(DetectCpuFeatures(), text);
  return text.data();
}

int ThreadCount(std::optional<int64_t> wanted) {
  if (wanted && *wanted > 0) return static_cast<int>(*wanted);
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

void GiveFreedMemoryBack() {
#ifdef M_MMAP_THRESHOLD
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
  mallopt(M_TRIM_THRESHOLD, 32 << 20);
  mallopt(M_ARENA_MAX, 1);
#endif
}

std::filesystem::path CacheFolder() {
  const auto absolute = [](const char* variable) -> std::filesystem::path {
    const char* value = std::getenv(variable);
    if (!value || *value != '/') return {};  // the XDG specification wants others ignored
    return value;
  };
  if (const auto cache = absolute("XDG_CACHE_HOME"); !cache.empty()) return cache / "sparsefuse";
  if (const auto home = absolute("HOME"); !home.empty()) return home / ".cache" / "sparsefuse";
  return {};
}

nlohmann::ordered_json DescribeTool() {
  return {{"version", ToolVersion()},
          {"commit", kCommit},
          {"onnxruntime", EngineVersion()},
          {"protobuf", SPARSEFUSE_PROTOBUF_VERSION},
          {"cpu", CpuText()}};
}

void Run(const VersionOptions& options) {
  const nlohmann::ordered_json tool = DescribeTool();
  if (options.common.format == Format::kJson) return PrintJson(tool);
  Print(fmt::format("sparsefuse {}\nONNX Runtime {}\nprotobuf {}\ncpu {}\n", BuildText(),
                    tool["onnxruntime"].get<std::string>(), tool["protobuf"].get<std::string>(),
                    tool["cpu"].get<std::string>()));
}

void Run(const HelpOptions& options) { Print(options.text); }

}  // namespace sparsefuse
