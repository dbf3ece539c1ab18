// Storage that is filled once and then given to tensors, so that data is not copied after reading.

#ifndef SPARSEFUSE_PASSES_DATA_BLOCK_H_
#define SPARSEFUSE_PASSES_DATA_BLOCK_H_

#include <cstddef>
#include <memory>
#include <new>
#include <span>

#include "onnx_io/tensor.h"

namespace sparsefuse {

// `size` bytes aligned to 64, uninitialised. Write before the first Tensor views it, never after.
class Block final : public Storage {
 public:
  explicit Block(size_t size)
      : size_(size), data_(static_cast<std::byte*>(operator new(size, kAlignment))) {}
  std::span<const std::byte> bytes() const noexcept override { return {data_.get(), size_}; }
  std::span<std::byte> writable() noexcept { return {data_.get(), size_}; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(std::byte* data) const noexcept { operator delete(data, kAlignment); }
  };
  size_t size_;
  std::unique_ptr<std::byte, Free> data_;
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_DATA_BLOCK_H_
