// A regular file mapped read-only, and its identity.

#ifndef SPARSEFUSE_ONNX_IO_MAPPED_FILE_H_
#define SPARSEFUSE_ONNX_IO_MAPPED_FILE_H_

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "onnx_io/tensor.h"

namespace sparsefuse {

// Owner of a file descriptor.
class FileHandle {
 public:
  explicit FileHandle(int fd = -1) : fd_(fd) {}
  ~FileHandle();
  FileHandle(FileHandle&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  FileHandle& operator=(FileHandle&& other) noexcept;
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  // Closes now; false if the kernel reports an error (late write errors).
  bool Close();

 private:
  int fd_;
};

// What a file was when it was opened.
struct FileIdentity {
  std::filesystem::path path;
  dev_t device = 0;
  ino_t inode = 0;
  uint64_t size = 0;
  int64_t modified_ns = 0;  // mtime, since the epoch
  uint64_t links = 1;

  // The same file with the same content, as far as that shows.
  bool operator==(const FileIdentity& other) const {
    return device == other.device && inode == other.inode && size == other.size &&
           modified_ns == other.modified_ns;
  }
};

// Opens a regular file for reading without ever blocking on a FIFO or a device. UserError E_READ
// with the reason: missing, no permission, a directory, not a regular file.
FileHandle OpenRegularFile(const std::filesystem::path& path);

// UserError E_READ if `fd` is no regular file.
FileIdentity IdentityOf(int fd, const std::filesystem::path& path);

class MappedFile final : public Storage {
 public:
  // `fd` may be closed afterwards. UserError E_READ.
  MappedFile(int fd, FileIdentity identity);
  ~MappedFile() override;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const noexcept override { return {data_, size_}; }
  void Forget(std::span<const std::byte> part) const noexcept override;
  const FileIdentity& identity() const noexcept { return identity_; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  FileIdentity identity_;
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_ONNX_IO_MAPPED_FILE_H_
