#include "onnx_io/external_data.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;

UserError PathError(const std::string& location, std::string_view reason) {
  return UserError(ErrorCode::kPath,
                   fmt::format("external data location \"{}\" {}", Printable(location), reason),
                   "external data must be a file in the model's directory");
}

// What the text alone shows to be wrong. Backslashes and URLs: other tools resolve them.
void CheckSpelling(const std::string& location) {
  if (location.empty()) throw PathError(location, "is empty");
  if (location.find('\0') != std::string::npos) throw PathError(location, "has a NUL in it");
  if (location.starts_with("*/")) throw PathError(location, "is a memory address, not a file");
  if (location.find("://") != std::string::npos) throw PathError(location, "is a URL");
  std::string unified = location;
  std::replace(unified.begin(), unified.end(), '\\', '/');
  if (unified.front() == '/' || (unified.size() > 1 && unified[1] == ':')) {
    throw PathError(location, "is an absolute path");
  }
  for (const fs::path& part : fs::path(unified)) {
    if (part == "..") throw PathError(location, "leaves the model's directory");
  }
}

// The path of an open file without any symbolic link.
fs::path RealPath(int fd) {
  char buffer[PATH_MAX];
  const ssize_t length =
      readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), buffer, sizeof buffer);
  if (length <= 0 || static_cast<size_t>(length) == sizeof buffer) {
    throw UserError(ErrorCode::kRead, "external data needs /proc to check where a file lies");
  }
  return fs::path(std::string(buffer, static_cast<size_t>(length)));
}

bool LiesUnder(const fs::path& path, const fs::path& root) {
  const auto mismatch = std::mismatch(root.begin(), root.end(), path.begin(), path.end());
  return mismatch.first == root.end() && mismatch.second != path.end();
}

// The `models--*` folder that `path` lies under, or nothing.
fs::path CacheRoot(const fs::path& path) {
  fs::path root;
  for (const fs::path& part : path) {
    root /= part;
    if (part.string().starts_with("models--")) return root;
  }
  return {};
}

}  // namespace

ExternalFiles::ExternalFiles(fs::path directory, const FileIdentity* model)
    : directory_(std::move(directory)) {
  if (model) {
    model_device_ = model->device;
    model_inode_ = model->inode;
  }
  if (directory_.empty()) return;
  std::error_code error;
  const fs::path real = fs::canonical(directory_, error);
  if (error) return;  // no roots: every request is refused
  roots_.push_back(real);
  if (fs::path cache = CacheRoot(real); !cache.empty()) roots_.push_back(std::move(cache));
  // A model reached through a link: its data may be linked to from beside the link likewise.
  if (model) {
    const fs::path target = fs::canonical(model->path, error);
    if (!error) roots_.push_back(target.parent_path());
  }
}

std::shared_ptr<const MappedFile> ExternalFiles::Open(const std::string& location) {
  if (const auto found = files_.find(location); found != files_.end()) return found->second;
  CheckSpelling(location);
  if (roots_.empty()) throw PathError(location, "cannot be looked up: the model has no directory");

  // O_PATH opens nothing yet (a FIFO does not block), but pins the file: what is checked below is
  // what is mapped, however often somebody swaps a link meanwhile.
  const fs::path path = directory_ / location;
  const FileHandle pin(open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!pin) {
    throw UserError(ErrorCode::kRead, fmt::format("external data file \"{}\": {}",
                                                  Printable(location), std::strerror(errno)));
  }
  const fs::path real = RealPath(pin.get());
  if (std::none_of(roots_.begin(), roots_.end(),
                   [&](const fs::path& root) { return LiesUnder(real, root); })) {
    throw PathError(location, "leads outside the model's directory");
  }
  FileIdentity identity;
  try {
    identity = IdentityOf(pin.get(), path);
  } catch (const UserError&) {
    throw PathError(location, "is no regular file");
  }
  if (identity.links != 1) throw PathError(location, "is a hard link");
  if (identity.device == model_device_ && identity.inode == model_inode_) {
    throw PathError(location, "is the model file itself");
  }
  const FileHandle file(open(fmt::format("/proc/self/fd/{}", pin.get()).c_str(),
                             O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file) {
    throw UserError(ErrorCode::kRead, fmt::format("external data file \"{}\": {}",
                                                  Printable(location), std::strerror(errno)));
  }
  auto mapped = std::make_shared<const MappedFile>(file.get(), identity);
  files_.emplace(location, mapped);
  return mapped;
}

std::vector<FileIdentity> ExternalFiles::Identities() const {
  std::vector<FileIdentity> identities;
  for (const auto& [location, file] : files_) identities.push_back(file->identity());
  return identities;
}

}  // namespace sparsefuse
