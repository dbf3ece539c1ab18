// The three containers of named arrays: .npz archives, folders of .npy, ONNX test_data_set_*
// folders.

#ifndef SPARSEFUSE_PASSES_DATA_ARRAY_FILES_H_
#define SPARSEFUSE_PASSES_DATA_ARRAY_FILES_H_

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "onnx_io/tensor.h"
#include "passes/data/npy.h"

namespace sparsefuse {

struct NamedArray {
  std::string name;
  Tensor tensor;
};

// Sees each array's name, type and shape before its elements are read; throws to refuse it.
using AcceptArray = std::function<void(const std::string& name, const NpyHeader& header)>;

// All throw UserErrors with the file and, inside it, the array: E_READ, E_DATA (corrupt, truncated,
// encrypted, duplicate, not an array), E_LIMIT when the arrays together need more than 64 GiB or
// than this machine's memory. Sizes are compared with what the file can hold before anything is
// allocated.
std::vector<NamedArray> ReadNpz(const std::filesystem::path& path, const AcceptArray& accept);

// Every *.npy in `folder`, in order of name; the array's name is the file's without suffix.
std::vector<NamedArray> ReadNpyFolder(const std::filesystem::path& folder,
                                      const AcceptArray& accept);

// Folders test_data_set_<n> directly below `folder`, or `folder` itself if it holds input_0.pb; in
// order of n. Empty if there are none.
std::vector<std::filesystem::path> FindTestDataSets(const std::filesystem::path& folder);

// input_0.pb, input_1.pb, … of one such folder.
std::vector<Tensor> ReadTestDataSet(const std::filesystem::path& folder);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_DATA_ARRAY_FILES_H_
