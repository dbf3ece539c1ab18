// The kernels' own headers as text, part of the program: what code for one model is compiled from.

#ifndef SPARSEFUSE_KERNELS_CUDA_HEADERS_H_
#define SPARSEFUSE_KERNELS_CUDA_HEADERS_H_

#include <span>
#include <string_view>

namespace sparsefuse::cuda {

struct Header {
  std::string_view path, text;  // as it is included
};
std::span<const Header> Headers();

// Of them all, 16 hexadecimal digits: code that was made from other headers takes jobs of another
// shape, and is refused.
std::string_view HeadersDigest();

}  // namespace sparsefuse::cuda

#endif  // SPARSEFUSE_KERNELS_CUDA_HEADERS_H_
