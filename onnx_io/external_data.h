// Files beside a model that hold tensors' bytes: confined to the model's directory.

#ifndef SPARSEFUSE_ONNX_IO_EXTERNAL_DATA_H_
#define SPARSEFUSE_ONNX_IO_EXTERNAL_DATA_H_

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "onnx_io/mapped_file.h"

namespace sparsefuse {

class ExternalFiles {
 public:
  // `directory`: the folder that the model's path names, symbolic links unresolved; empty: every
  // request is refused. `model`: the model file, which may not be its own data file; may be null.
  explicit ExternalFiles(std::filesystem::path directory, const FileIdentity* model = nullptr);

  // The file at `location`, mapped; the same object for the same location. A location is a relative
  // path without "..", whose real path lies in the directory of the model, in that of the file that
  // the model's path links to, or in the same `models--*` folder of a Hugging Face cache. E_PATH
  // otherwise, and for hard links (ONNX refuses them too: they can name a file outside) and for
  // what is no regular file; E_READ if missing.
  std::shared_ptr<const MappedFile> Open(const std::string& location);

  // Of all files opened so far.
  std::vector<FileIdentity> Identities() const;

 private:
  std::filesystem::path directory_;
  std::vector<std::filesystem::path> roots_;  // real paths that data may lie under
  dev_t model_device_ = 0;
  ino_t model_inode_ = 0;
  std::map<std::string, std::shared_ptr<const MappedFile>> files_;
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_ONNX_IO_EXTERNAL_DATA_H_
