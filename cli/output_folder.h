// The folder that a command writes its results to. All or nothing: everything is written under
// temporary names first and verified; then come the renames, the model last.

#ifndef SPARSEFUSE_CLI_OUTPUT_FOLDER_H_
#define SPARSEFUSE_CLI_OUTPUT_FOLDER_H_

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/signals.h"
#include "onnx_io/writer.h"

namespace sparsefuse {

inline constexpr std::string_view kModelName = "model.onnx";
inline constexpr std::string_view kConfigName = "resolved_config.json";
inline constexpr std::string_view kMetricsName = "metrics.json";
inline constexpr std::string_view kSensitivityName = "sensitivity.json";

// What makes a folder one that holds a result.
inline constexpr std::string_view kCompressResults[] = {kModelName, kConfigName, kMetricsName};

enum class Existing { kRefuse, kReplace };

// What can be known before anything is computed. Makes and changes nothing. `results`: files that
// are going to be written. E_USAGE: the model in `folder` would be one of `inputs` (also through
// links); E_OUTPUT_EXISTS: there is a result and `existing` is kRefuse; E_WRITE: not a folder, not
// writable.
void CheckOutputFolder(const std::filesystem::path& folder,
                       std::span<const std::string_view> results, Existing existing,
                       const std::vector<std::filesystem::path>& inputs);

class OutputFolder {
 public:
  // Makes the folder where it is missing, and keeps other runs out while the object lives (E_BUSY);
  // then checks once more as above. Removes what runs that were killed left in it.
  OutputFolder(std::filesystem::path folder, std::span<const std::string_view> results,
               Existing existing, const std::vector<std::filesystem::path>& inputs);
  // Removes what was not published, and the folders it made if nothing is in them.
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  // Writes the model under a temporary name, to the disk; at most once.
  const StagedModel& StageModel(const Model& model, ExternalData external);
  // The same for a small file. UserError E_WRITE.
  void Stage(std::string_view name, std::string_view bytes);
  // With the bytes and the permissions of `source`. UserError E_READ.
  void StageCopy(std::string_view name, const std::filesystem::path& source);

  // Renames what was staged, the model (if there is one) last, and removes the data file of the
  // model that this replaces unless another model in the folder may need it.
  void Publish();

 private:
  struct File {
    std::filesystem::path temporary, target;
  };

  void Lock();
  void RemoveLeftovers();
  void StageBytes(std::string_view name, std::string_view bytes, unsigned mode);
  void Abandon() noexcept;

  std::filesystem::path folder_;
  int made_ = 0;        // how many folders, innermost last, did not exist
  int directory_ = -1;  // descriptor that holds the lock
  std::unique_ptr<CleanupOnSignal> cleanup_;
  std::vector<File> staged_;
  std::optional<StagedModel> model_;
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_CLI_OUTPUT_FOLDER_H_
