#include <array>
#include <cstdio>

#include "generated/cli/commit.h"  // made by cli/commit.cmake
#include "kernels/plugin/cuda_library.h"

namespace sparsefuse::plugin {

const char* Build() noexcept {
  static const auto text = [] {
    std::array<char, 64> buffer{};
    std::snprintf(buffer.data(), buffer.size(), "%s (%s)", SPARSEFUSE_VERSION, kCommit);
    return buffer;
  }();
  return text.data();
}

}  // namespace sparsefuse::plugin
