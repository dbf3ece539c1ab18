// Memory that ends at a page that must not be touched.

#ifndef SPARSEFUSE_TESTS_KERNELS_GUARDED_H_
#define SPARSEFUSE_TESTS_KERNELS_GUARDED_H_

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <vector>

namespace sparsefuse::test {

// `count` objects between two forbidden pages: reading or writing beyond either end of the mapping
// ends the program. The last object ends at the page when `alignment` allows; what is left after
// it, less than `alignment` bytes, and everything before the first object holds a pattern
// that Intact() checks.
template <typename T>
class Guarded {
 public:
  explicit Guarded(size_t count, size_t alignment = alignof(T)) : count_(count) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t bytes = count * sizeof(T);
    const size_t padded = (bytes + alignment - 1) / alignment * alignment;
    inner_ = (padded + page - 1) / page * page;
    length_ = inner_ + 2 * page;
    void* map = mmap(nullptr, length_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) throw std::runtime_error("mmap failed");
    map_ = static_cast<std::byte*>(map);
    first_ = map_ + page;
    if (inner_ > 0 && mprotect(first_, inner_, PROT_READ | PROT_WRITE) != 0) {
      throw std::runtime_error("mprotect failed");
    }
    data_ = first_ + inner_ - padded;
    std::memset(first_, kPattern, inner_);
  }
  explicit Guarded(const std::vector<T>& values) : Guarded(values.size()) {
    if (!values.empty()) std::memcpy(data_, values.data(), values.size() * sizeof(T));
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { munmap(map_, length_); }

  T* data() const { return reinterpret_cast<T*>(data_); }
  std::span<T> values() const { return {data(), count_}; }

  bool Intact() const {
    const std::byte* end = data_ + count_ * sizeof(T);
    for (const std::byte* p = first_; p < first_ + inner_; ++p) {
      if ((p < data_ || p >= end) && *p != std::byte{kPattern}) return false;
    }
    return true;
  }

 private:
  static constexpr uint8_t kPattern = 0xa5;
  size_t count_, inner_, length_;
  std::byte *map_, *first_, *data_;
};

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_KERNELS_GUARDED_H_
