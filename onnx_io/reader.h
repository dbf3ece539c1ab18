// ONNX file → Model. External data is mapped, never copied; inline weights are moved out of the
// parsed message once.

#ifndef SPARSEFUSE_ONNX_IO_READER_H_
#define SPARSEFUSE_ONNX_IO_READER_H_

#include <filesystem>
#include <span>

#include "onnx_io/model.h"

namespace sparsefuse {

// UserErrors, all with the file's name: E_READ (missing, unreadable, a directory, a FIFO), E_MODEL
// (empty, truncated, a git-lfs pointer, HTML, gzip, zip, text … each named; not ONNX; an
// inconsistent graph), E_TENSOR, E_PATH (external data outside the model's directory), E_LIMIT.
Model ReadModel(const std::filesystem::path& path);

// The same from bytes; external data is looked for in `directory` (empty: refused).
Model ReadModelFromBytes(std::span<const std::byte> bytes,
                         const std::filesystem::path& directory = {});

// Throws E_CHANGED if a file that `model` was read from (the model file or its external data) is no
// longer the one that was opened (device, inode, size, mtime).
void CheckUnchanged(const Model& model);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_ONNX_IO_READER_H_
