#include "cli/output_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <regex>

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;

// In the names of this run's temporaries, StagedModel's too.
std::string OwnMark() { return fmt::format(".sparsefuse-{}-", getpid()); }

bool IsTemporaryName(const std::string& name) {
  static const std::regex pattern("\\..+\\.sparsefuse-[0-9]+-[0-9]+(\\.onnx|\\.data)?");
  return std::regex_match(name, pattern);
}

[[noreturn]] void CannotWrite(const fs::path& path, int error) {
  throw UserError(ErrorCode::kWrite, fmt::format("cannot be written: {}", std::strerror(error)))
      .InFile(path.string());
}

bool SameFile(const fs::path& a, const fs::path& b) {
  std::error_code ignored;
  return fs::equivalent(a, b, ignored);
}

// The nearest folder on the way to `folder` that exists; "." for a relative path without one.
fs::path NearestExisting(fs::path folder) {
  std::error_code ignored;
  while (!folder.empty() && !fs::exists(fs::symlink_status(folder, ignored))) {
    folder = folder.parent_path();
  }
  return folder.empty() ? fs::path(".") : folder;
}

// Data files that StagedModel names: <stem>-<16 hexadecimal digits>.data.
bool IsDataFileName(const std::string& name) {
  static const std::regex pattern("model-[0-9a-f]{16}\\.data");
  return std::regex_match(name, pattern);
}

std::vector<std::string> Entries(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (fs::directory_iterator at(folder, ignored), end; at != end; at.increment(ignored)) {
    names.push_back(at->path().filename().string());
  }
  return names;
}

// Whether the folder holds an .onnx file other than `own`.
bool HasOtherModel(const fs::path& folder, std::string_view own) {
  for (const std::string& name : Entries(folder)) {
    if (name.ends_with(".onnx") && !name.starts_with('.') && name != own) return true;
  }
  return false;
}

}  // namespace

void CheckOutputFolder(const fs::path& folder, std::span<const std::string_view> results,
                       Existing existing, const std::vector<fs::path>& inputs) {
  std::error_code ignored;
  const fs::path nearest = NearestExisting(folder);
  if (!fs::is_directory(nearest, ignored)) {
    throw UserError(ErrorCode::kWrite, "is not a folder", "name another output folder")
        .InFile(nearest.string());
  }
  for (std::string_view name : results) {
    const fs::path target = folder / name;
    if (!fs::exists(fs::symlink_status(target, ignored))) continue;
    for (const fs::path& input : inputs) {
      if (name == kModelName && SameFile(input, target)) {
        throw UserError(ErrorCode::kUsage, "the output would replace the input",
                        "name another output folder")
            .InFile(target.string());
      }
    }
    if (existing == Existing::kRefuse) {
      throw UserError(ErrorCode::kOutputExists, "exists already", "replace it with --overwrite")
          .InFile(target.string());
    }
    if (fs::is_directory(target, ignored)) CannotWrite(target, EISDIR);
  }
  if (access(nearest.c_str(), W_OK | X_OK) != 0) CannotWrite(nearest, errno);
}

OutputFolder::OutputFolder(fs::path folder, std::span<const std::string_view> results,
                           Existing existing, const std::vector<fs::path>& inputs)
    : folder_(fs::absolute(std::move(folder)).lexically_normal()) {
  if (!folder_.has_filename()) folder_ = folder_.parent_path();  // "out/"
  std::error_code error;
  for (fs::path at = folder_; !fs::exists(at, error); at = at.parent_path()) ++made_;
  cleanup_ = std::make_unique<CleanupOnSignal>(folder_, OwnMark(), made_);
  try {
    fs::create_directories(folder_, error);
    if (error) CannotWrite(folder_, error.value());
    Lock();
    CheckOutputFolder(folder_, results, existing, inputs);
    RemoveLeftovers();
  } catch (...) {
    Abandon();
    throw;
  }
}

OutputFolder::~OutputFolder() {
  model_.reset();
  Abandon();
}

void OutputFolder::Lock() {
  directory_ = open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory_ < 0) CannotWrite(folder_, errno);
  // Some network file systems cannot lock a folder; then two runs are the user's to keep apart.
  if (flock(directory_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    made_ = 0;  // the other run's now
    throw UserError(ErrorCode::kBusy, "another run is writing to this folder",
                    "wait for it, or name another")
        .InFile(folder_.string());
  }
}

// The lock is ours, so temporaries were left by a run that is no more. A data file is
// known to be such a leftover only where no model is.
void OutputFolder::RemoveLeftovers() {
  const bool has_model = HasOtherModel(folder_, "");
  for (const std::string& name : Entries(folder_)) {
    if (IsTemporaryName(name) || (IsDataFileName(name) && !has_model)) {
      unlinkat(directory_, name.c_str(), 0);
    }
  }
}

const StagedModel& OutputFolder::StageModel(const Model& model, ExternalData external) {
  SF_CHECK(!model_);
  return model_.emplace(model, folder_ / kModelName, external);
}

void OutputFolder::StageBytes(std::string_view name, std::string_view bytes, unsigned mode) {
  const fs::path target = folder_ / name;
  // StagedModel counts from 1.
  const fs::path temporary = folder_ / fmt::format(".{}{}0", name, OwnMark());
  const int file =
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
  if (file < 0) CannotWrite(target, errno);
  staged_.push_back({temporary, target});
  int error = 0;
  while (!bytes.empty() && error == 0) {
    const ssize_t n = write(file, bytes.data(), bytes.size());
    if (n > 0) bytes.remove_prefix(static_cast<size_t>(n));
    if (n < 0 && errno != EINTR) error = errno;
  }
  if (error == 0 && fsync(file) != 0) error = errno;
  if (close(file) != 0 && error == 0) error = errno;
  if (error != 0) CannotWrite(target, error);
}

void OutputFolder::Stage(std::string_view name, std::string_view bytes) {
  StageBytes(name, bytes, 0666);
}

void OutputFolder::StageCopy(std::string_view name, const fs::path& source) {
  std::ifstream in(source, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  struct stat status {};
  if (!in || stat(source.c_str(), &status) != 0) {
    throw UserError(ErrorCode::kRead, "cannot be read").InFile(source.string());
  }
  StageBytes(name, bytes, status.st_mode & 0777);
}

void OutputFolder::Publish() {
  const SignalsDeferred together;
  while (!staged_.empty()) {
    const File& file = staged_.back();
    if (rename(file.temporary.c_str(), file.target.c_str()) != 0) CannotWrite(file.target, errno);
    staged_.pop_back();
  }
  if (model_) model_->Publish();
  made_ = 0;
  cleanup_.reset();  // what is there now stays, whatever signal waits
  if (!model_ || HasOtherModel(folder_, kModelName)) return;
  for (const std::string& name : Entries(folder_)) {
    if (IsDataFileName(name) && name != model_->data_path().filename()) {
      unlinkat(directory_, name.c_str(), 0);
    }
  }
}

void OutputFolder::Abandon() noexcept {
  for (const File& file : staged_) unlink(file.temporary.c_str());
  fs::path folder = folder_;
  for (int level = 0; level < made_ && rmdir(folder.c_str()) == 0; ++level) {
    folder = folder.parent_path();
  }
  if (directory_ >= 0) close(directory_);
  directory_ = -1;
}

}  // namespace sparsefuse
