#include "kernels/base/parallel.h"

namespace sparsefuse {

ParallelFor SerialLoop() noexcept {
  return {.run =
              [](void*, size_t count, void (*body)(void*, size_t), void* context) {
                for (size_t i = 0; i < count; ++i) body(context, i);
              },
          .pool = nullptr,
          .threads = 1};
}

}  // namespace sparsefuse
