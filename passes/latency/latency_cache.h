// The file in which measured times outlive a run. JSON:
//
//   {"version": 1, "machines": {"AMD EPYC …": {"768x3072+bias, 128 rows": {
//       "float_ms": 6.1, "ratio": {"standard int8": 0.62, "MatMulNBits": null}}}}}
//
// null: the form cannot run there. The machines written last come last; the oldest of more than
// kMostMachines go.

#ifndef SPARSEFUSE_PASSES_LATENCY_LATENCY_CACHE_H_
#define SPARSEFUSE_PASSES_LATENCY_LATENCY_CACHE_H_

#include <filesystem>
#include <map>
#include <string>

namespace sparsefuse {

inline constexpr size_t kMostMachines = 16;

struct LatencyPoint {
  double float_ms = 0;                  // > 0
  std::map<std::string, double> ratio;  // a form's time over float's, > 0; may be infinite
};
using LatencyPoints = std::map<std::string, LatencyPoint>;

// Those of `machine` (UTF-8). A file that is not there has none. One that cannot be read, or holds
// anything but what is described above, has none and is why `problem` is set to a line.
LatencyPoints ReadLatencyCache(const std::filesystem::path& file, const std::string& machine,
                               std::string& problem);

// Adds to what the file holds by now, in one rename. Sets `problem` where that fails.
void WriteLatencyCache(const std::filesystem::path& file, const std::string& machine,
                       const LatencyPoints& points, std::string& problem);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_LATENCY_LATENCY_CACHE_H_
