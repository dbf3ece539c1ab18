// Model → ONNX file, all or nothing.

#ifndef SPARSEFUSE_ONNX_IO_WRITER_H_
#define SPARSEFUSE_ONNX_IO_WRITER_H_

#include <filesystem>
#include <string>
#include <vector>

#include "onnx_io/model.h"

namespace sparsefuse {

enum class ExternalData {
  kAuto,    // inline while the whole file stays under kInlineLimit
  kAlways,  // every tensor of 1 KiB or more goes to the data file
  kNever,   // E_UNSUPPORTED if that needs a file of 2 GiB or more
};
inline constexpr uint64_t kInlineLimit = 64ull << 20;

// A model written beside its final place and not yet visible there. The destructor removes what was
// not published.
class StagedModel {
 public:
  // Writes `model` to a temporary in target's directory (and, with external data, one data file
  // named <stem>-<digest>.data with tensors of 4 KiB or more aligned to 4,096 bytes), fsynced.
  // UserError E_WRITE naming the path and the reason (no space: bytes needed).
  StagedModel(const Model& model, std::filesystem::path target,
              ExternalData external = ExternalData::kAuto);
  ~StagedModel();
  StagedModel(const StagedModel&) = delete;
  StagedModel& operator=(const StagedModel&) = delete;

  const std::filesystem::path& staged_path() const { return staged_; }  // loadable by ONNX Runtime
  const std::filesystem::path& data_path() const { return data_; }      // empty: all inline
  uint64_t bytes() const { return bytes_; }  // .onnx and data file together

  // One rename of the .onnx, then the directory is fsynced. Call once.
  void Publish();

 private:
  std::filesystem::path target_, staged_, data_;
  uint64_t bytes_ = 0;
  bool data_is_new_ = false, published_ = false;
};

// Stage and publish at once, for dumps and tests.
void WriteModel(const Model& model, const std::filesystem::path& path,
                ExternalData external = ExternalData::kAuto);

// The serialized model with all tensors inline. E_LIMIT at 2 GiB.
std::string SerializeModel(const Model& model);

// The serialized model with each main-graph initializer of `min_bytes` or more left out, marked as
// external data, and listed in `left_out`: an engine is given those bytes from memory, uncopied.
struct LeftOutTensor {
  std::string name;
  Tensor tensor;
};
std::string SerializeModelWithoutWeights(const Model& model, uint64_t min_bytes,
                                         std::vector<LeftOutTensor>& left_out);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_ONNX_IO_WRITER_H_
