// NumPy's .npy array format, versions 1 to 3: a magic string, a header that is a Python dictionary
// literal, raw elements. The header is parsed as data, never evaluated; pickled arrays are refused.
// Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html

#ifndef SPARSEFUSE_PASSES_DATA_NPY_H_
#define SPARSEFUSE_PASSES_DATA_NPY_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "onnx_io/tensor.h"

namespace sparsefuse {

// Fills the span from the source's next bytes; returns how many, fewer only at the source's end.
using ByteReader = std::function<size_t(std::span<std::byte>)>;

struct NpyHeader {
  DType dtype = DType::kUndefined;
  Dims dims;
  bool big_endian = false;
  bool fortran_order = false;
  int64_t bytes = 0;  // of all elements
};

// Both throw UserError E_DATA without file and array name: the caller adds them.
NpyHeader ReadNpyHeader(const ByteReader& read);
// From a reader that stands behind the header, to its end: too few or too many bytes are errors.
// Little-endian, C order, bool elements 0 or 1. Allocates header.bytes (twice that for a Fortran
// order array): compare it with what the source can hold first.
Tensor ReadNpyElements(const NpyHeader& header, const ByteReader& read);

// The dictionary literal alone, for tests.
NpyHeader ParseNpyDictionary(std::string_view text);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_DATA_NPY_H_
