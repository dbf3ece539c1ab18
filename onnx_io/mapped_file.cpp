#include "onnx_io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace sparsefuse {
namespace {

[[noreturn]] void Fail(const std::filesystem::path& path, int error) {
  throw UserError(ErrorCode::kRead, fmt::format("cannot be read: {}", std::strerror(error)))
      .InFile(path.string());
}

}  // namespace

FileHandle::~FileHandle() { Close(); }

FileHandle& FileHandle::operator=(FileHandle&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

bool FileHandle::Close() {
  const int fd = std::exchange(fd_, -1);
  return fd < 0 || close(fd) == 0;
}

FileHandle OpenRegularFile(const std::filesystem::path& path) {
  FileHandle file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file) {
    if (errno == ENOENT) {
      throw UserError(ErrorCode::kRead, "no such file").InFile(path.string());
    }
    Fail(path, errno);
  }
  IdentityOf(file.get(), path);
  return file;
}

FileIdentity IdentityOf(int fd, const std::filesystem::path& path) {
  struct stat status {};
  if (fstat(fd, &status) != 0) Fail(path, errno);
  if (!S_ISREG(status.st_mode)) {
    throw UserError(ErrorCode::kRead, S_ISDIR(status.st_mode)
                                          ? "is a directory, expected a file"
                                          : "is a FIFO, socket or device, expected a regular file")
        .InFile(path.string());
  }
  return {.path = path,
          .device = status.st_dev,
          .inode = status.st_ino,
          .size = static_cast<uint64_t>(status.st_size),
          .modified_ns = status.st_mtim.tv_sec * int64_t{1'000'000'000} + status.st_mtim.tv_nsec,
          .links = status.st_nlink};
}

MappedFile::MappedFile(int fd, FileIdentity identity)
    : size_(identity.size), identity_(std::move(identity)) {
  if (size_ == 0) return;  // mmap refuses an empty length
  void* address = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
  if (address == MAP_FAILED) Fail(identity_.path, errno);
  data_ = static_cast<const std::byte*>(address);
}

MappedFile::~MappedFile() {
  if (data_) munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::Forget(std::span<const std::byte> part) const noexcept {
  if (part.empty()) return;
  // The pages come back from the page cache when they are touched again. Whole pages only; a page
  // shared with a neighbour costs that neighbour one fault.
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<uintptr_t>(part.data()) / page * page;
  const auto last = reinterpret_cast<uintptr_t>(part.data()) + part.size();
  madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

}  // namespace sparsefuse
