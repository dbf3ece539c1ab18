// Writers of .npy and .npz files for tests, well-formed and not.

#ifndef SPARSEFUSE_TESTS_SUPPORT_NPY_FILES_H_
#define SPARSEFUSE_TESTS_SUPPORT_NPY_FILES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "onnx_io/tensor.h"

namespace sparsefuse::test {

// Version 1 with this header dictionary, padded as NumPy does.
std::string NpyBytes(std::string_view dictionary, std::string_view elements);
// Little-endian, C order.
std::string NpyBytes(const Tensor& tensor);

struct ZipMember {
  std::string name;
  std::string bytes;                     // as stored in the archive
  uint16_t method = 0;                   // 0 stored, 8 deflated
  std::optional<uint32_t> claimed_size;  // unpacked, instead of bytes.size()
  std::optional<uint32_t> claimed_crc;   // of the unpacked bytes, instead of that of `bytes`
};
std::string ZipBytes(const std::vector<ZipMember>& members);

// An .npz of these arrays.
std::string NpzBytes(const std::vector<std::pair<std::string, Tensor>>& arrays);

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_SUPPORT_NPY_FILES_H_
