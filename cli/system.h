// What the program runs on, for reports and defaults.

#ifndef SPARSEFUSE_CLI_SYSTEM_H_
#define SPARSEFUSE_CLI_SYSTEM_H_

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace sparsefuse {

std::string ToolVersion();  // "0.1.0"
std::string BuildText();    // "0.1.0 (87ac9a6)": what the libraries call their build
std::string CpuText();      // "avx2 fma f16c"

// `wanted`, or one for each core that this process may use.
int ThreadCount(std::optional<int64_t> wanted);

// From here on freed blocks of 4 MiB and more go back to the system at once, and so does the heap's
// free end beyond 32 MiB; there is one heap, for each thread's own would keep as much. glibc would
// let the bound grow, and keep freed tensors between small blocks that live longer; a lower bound
// spends a third of a run on memory that comes and goes (docs/performance.md, "Memory that comes
// and goes").
void GiveFreedMemoryBack();

// $XDG_CACHE_HOME/sparsefuse or ~/.cache/sparsefuse, which may not exist; empty where the
// environment has neither.
std::filesystem::path CacheFolder();

// {version, commit, onnxruntime, protobuf, cpu}
nlohmann::ordered_json DescribeTool();

}  // namespace sparsefuse

#endif  // SPARSEFUSE_CLI_SYSTEM_H_
