#include "onnx_io/writer.h"

#include <fcntl.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <exception>
#include <utility>

#include "onnx_io/codec.h"
#include "onnx_io/digest.h"

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kExternalThreshold = 1024;  // smaller tensors stay inline
constexpr uint64_t kPageThreshold = 4096;      // from here on aligned to a page
constexpr uint64_t kSmallAlignment = 64;       // below that
constexpr size_t kChunk = 1 << 20;

uint64_t AlignUp(uint64_t offset, uint64_t alignment) {
  return (offset + alignment - 1) / alignment * alignment;
}

// Removes a file unless it was let go.
class Leftover {
 public:
  explicit Leftover(fs::path path) : path_(std::move(path)) {}
  ~Leftover() {
    if (!path_.empty()) unlink(path_.c_str());
  }
  Leftover(const Leftover&) = delete;
  Leftover& operator=(const Leftover&) = delete;
  void Keep() { path_.clear(); }

 private:
  fs::path path_;
};

// A new file written front to back.
class OutputFile {
 public:
  // `needed`: bytes that will be written, for the message when the disk is full.
  OutputFile(fs::path path, uint64_t needed) : path_(std::move(path)), needed_(needed) {
    file_ =
        FileHandle(open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666));
    if (!file_) Fail(errno);
  }

  uint64_t size() const { return size_; }
  Sha256& digest() { return digest_; }

  // Blocks of zeros become holes. The digest covers them all the same.
  void Append(std::span<const std::byte> bytes) {
    digest_.Add(bytes);
    const bool zeros =
        std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
    for (size_t done = 0; !zeros && done < bytes.size();) {
      const ssize_t n = pwrite(file_.get(), bytes.data() + done, bytes.size() - done,
                               static_cast<off_t>(size_ + done));
      if (n < 0 && errno != EINTR) Fail(errno);
      if (n > 0) done += static_cast<size_t>(n);
    }
    size_ += bytes.size();
  }

  void PadTo(uint64_t offset) {
    static constexpr std::array<std::byte, 4096> kZeros{};
    while (size_ < offset) {
      Append(std::span(kZeros).first(std::min<uint64_t>(kZeros.size(), offset - size_)));
    }
  }

  // Everything is on the disk afterwards.
  void Finish() {
    if (ftruncate(file_.get(), static_cast<off_t>(size_)) != 0 || fsync(file_.get()) != 0 ||
        !file_.Close()) {
      Fail(errno);
    }
  }

 private:
  [[noreturn]] void Fail(int error) {
    std::string what = fmt::format("cannot be written: {}", std::strerror(error));
    if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
      struct statvfs volume {};
      const bool known = statvfs(path_.parent_path().c_str(), &volume) == 0;
      what += fmt::format(", {} bytes needed", needed_);
      if (known) what += fmt::format(", {} free", uint64_t{volume.f_bavail} * volume.f_frsize);
    }
    throw UserError(ErrorCode::kWrite, what);
  }

  fs::path path_;
  uint64_t needed_;
  uint64_t size_ = 0;
  FileHandle file_;
  Sha256 digest_;
};

void SyncDirectory(const fs::path& directory) {
  const FileHandle handle(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // Some file systems cannot; then the rename is as durable as they make it.
  if (handle) fsync(handle.get());
}

bool MayBeExternal(const Tensor& tensor, std::string_view name) {
  // Attribute tensors stay inline (not every runtime looks for them outside) unless they came so.
  return tensor.bytes().size() >= kExternalThreshold &&
         (!name.empty() || tensor.form == TensorForm::kExternal);
}

void MarkExternal(onnx::TensorProto& proto, const std::string& location, uint64_t offset,
                  uint64_t length) {
  const auto add = [&](const char* key, std::string value) {
    onnx::StringStringEntryProto* entry = proto.add_external_data();
    entry->set_key(key);
    entry->set_value(std::move(value));
  };
  add("location", location);
  add("offset", std::to_string(offset));
  add("length", std::to_string(length));
}

// Where each tensor goes in the data file, in writing order.
struct Layout {
  struct Item {
    Tensor tensor;
    uint64_t offset;
  };
  std::vector<Item> items;
  uint64_t size = 0;
  uint64_t inline_bytes = 0;  // payloads of the tensors that may not be external
  uint64_t graph_bytes = 0;   // everything else

  void Add(const Tensor& tensor, std::string_view name) {
    if (!MayBeExternal(tensor, name)) {
      inline_bytes += tensor.bytes().size();
      return;
    }
    const uint64_t length = tensor.bytes().size();
    size = AlignUp(size, length >= kPageThreshold ? kPageThreshold : kSmallAlignment);
    items.push_back({tensor, size});
    size += length;
  }

  // Everything in one file. A few bytes of tags for each tensor do not matter here.
  uint64_t whole() const { return graph_bytes + inline_bytes + size; }
};

void WriteData(const Layout& layout, OutputFile& file) {
  for (const Layout::Item& item : layout.items) {
    file.PadTo(item.offset);
    std::span<const std::byte> rest = item.tensor.bytes();
    while (!rest.empty()) {
      const std::span<const std::byte> chunk = rest.first(std::min(rest.size(), kChunk));
      file.Append(chunk);
      item.tensor.Forget(chunk);
      rest = rest.subspan(chunk.size());
    }
  }
}

std::string DigestOfFile(const fs::path& path) {
  const FileHandle file = OpenRegularFile(path);
  const MappedFile mapped(file.get(), IdentityOf(file.get(), path));
  Sha256 digest;
  std::span<const std::byte> rest = mapped.bytes();
  while (!rest.empty()) {
    const std::span<const std::byte> chunk = rest.first(std::min(rest.size(), kChunk));
    digest.Add(chunk);
    mapped.Forget(chunk);
    rest = rest.subspan(chunk.size());
  }
  return digest.Hex();
}

// Unique among the processes that write to the directory, hidden, and still an .onnx for readers
// that look at the suffix.
fs::path TemporaryName(const fs::path& target, std::string_view suffix) {
  static std::atomic<unsigned> counter = 0;
  const std::string stem = target.stem().string().substr(0, 120);
  return target.parent_path() /
         fmt::format(".{}.sparsefuse-{}-{}{}", stem, getpid(), ++counter, suffix);
}

[[noreturn]] void TooLarge(ErrorCode code, uint64_t bytes) {
  throw UserError(
      code, fmt::format("the model needs {} bytes in one piece, ONNX allows {}", bytes, INT_MAX),
      "keep its weights in external data");
}

// The message in `file`, without a second copy in memory.
class ToFile final : public google::protobuf::io::CopyingOutputStream {
 public:
  explicit ToFile(OutputFile& file) : file_(file) {}
  // protobuf flushes in destructors too, where an exception would end the program.
  bool Write(const void* buffer, int size) noexcept override {
    try {
      file_.Append({static_cast<const std::byte*>(buffer), static_cast<size_t>(size)});
      return true;
    } catch (...) {
      error_ = std::current_exception();
      return false;
    }
  }
  void Rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  OutputFile& file_;
  std::exception_ptr error_;
};

void WriteMessage(const onnx::ModelProto& proto, OutputFile& file) {
  ToFile sink(file);
  {
    google::protobuf::io::CopyingOutputStreamAdaptor stream(&sink, kChunk);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    proto.SerializeWithCachedSizes(&coded);
  }
  sink.Rethrow();
}

std::string ToBytes(const onnx::ModelProto& proto) {
  const size_t size = proto.ByteSizeLong();
  if (size > INT_MAX) TooLarge(ErrorCode::kLimit, size);
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  proto.SerializeWithCachedSizes(&coded);
  coded.Trim();
  return bytes;
}

// What the model weighs, and where its tensors would go in a data file.
Layout Plan(const Model& model) {
  Layout layout;
  onnx::ModelProto proto;
  ModelCodec::Encode(
      model,
      [&](const Tensor& tensor, std::string_view name, onnx::TensorProto&) {
        layout.Add(tensor, name);
        return true;
      },
      proto);
  layout.graph_bytes = proto.ByteSizeLong();
  return layout;
}

struct DataFile {
  fs::path path;
  bool is_new;  // false: the same bytes were there already
  uint64_t bytes;
};

// Moves a file without ever replacing another one; false if there is one.
bool MoveToFreeName(const fs::path& from, const fs::path& to) {
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return true;
  // Not every file system can do this in one step.
  struct stat ignored {};
  if (errno == EINVAL && lstat(to.c_str(), &ignored) != 0 &&
      rename(from.c_str(), to.c_str()) == 0) {
    return true;
  }
  if (lstat(to.c_str(), &ignored) == 0) return false;
  throw UserError(ErrorCode::kWrite,
                  fmt::format("data file \"{}\" cannot be written: {}",
                              Printable(to.filename().string()), std::strerror(errno)));
}

DataFile StageData(const Layout& layout, const fs::path& target) {
  const fs::path temporary = TemporaryName(target, ".data");
  OutputFile file(temporary, layout.whole());
  const Leftover leftover(temporary);
  WriteData(layout, file);
  file.Finish();
  const std::string digest = file.digest().Hex();
  const fs::path path = target.parent_path() /
                        fmt::format("{}-{}.data", target.stem().string(), digest.substr(0, 16));
  if (MoveToFreeName(temporary, path)) return {path, true, file.size()};
  if (DigestOfFile(path) == digest) return {path, false, file.size()};
  throw UserError(ErrorCode::kWrite,
                  fmt::format("data file \"{}\" exists with other content",
                              Printable(path.filename().string())),
                  "move it away");
}

}  // namespace

StagedModel::StagedModel(const Model& model, fs::path target, ExternalData external)
    : target_(std::move(target)) {
  if (!target_.has_parent_path()) target_ = fs::path(".") / target_;
  try {
    const Layout layout = Plan(model);
    const bool outside = !layout.items.empty() &&
                         (external == ExternalData::kAlways ||
                          (external == ExternalData::kAuto && layout.whole() > kInlineLimit));
    const uint64_t message = outside ? layout.whole() - layout.size : layout.whole();
    if (message > INT_MAX) TooLarge(ErrorCode::kUnsupported, message);
    if (outside) {
      const DataFile data = StageData(layout, target_);
      data_ = data.path;
      data_is_new_ = data.is_new;
      bytes_ = data.bytes;
    }
    Leftover data(data_is_new_ ? data_ : fs::path());

    size_t next = 0;
    onnx::ModelProto proto;
    ModelCodec::Encode(
        model,
        [&](const Tensor& tensor, std::string_view name, onnx::TensorProto& written) {
          if (!outside || !MayBeExternal(tensor, name)) return false;
          const Layout::Item& item = layout.items[next++];
          MarkExternal(written, data_.filename().string(), item.offset, tensor.bytes().size());
          return true;
        },
        proto);
    const size_t size = proto.ByteSizeLong();
    if (size > INT_MAX) TooLarge(ErrorCode::kUnsupported, size);
    staged_ = TemporaryName(target_, ".onnx");
    OutputFile file(staged_, size);
    Leftover staged(staged_);
    WriteMessage(proto, file);
    file.Finish();
    bytes_ += size;
    staged.Keep();
    data.Keep();
  } catch (UserError& error) {
    throw error.InFile(target_.string());
  }
}

StagedModel::~StagedModel() {
  if (published_) return;
  unlink(staged_.c_str());
  if (data_is_new_) unlink(data_.c_str());
}

void StagedModel::Publish() {
  SF_CHECK(!published_);
  // A replaced file keeps its permissions.
  struct stat old {};
  if (lstat(target_.c_str(), &old) == 0 && S_ISREG(old.st_mode)) {
    chmod(staged_.c_str(), old.st_mode & 0777);
  }
  // The data file's name must be on the disk before the file that refers to it.
  if (data_is_new_) SyncDirectory(target_.parent_path());
  if (rename(staged_.c_str(), target_.c_str()) != 0) {
    throw UserError(ErrorCode::kWrite, fmt::format("cannot be written: {}", std::strerror(errno)))
        .InFile(target_.string());
  }
  published_ = true;
  SyncDirectory(target_.parent_path());
}

void WriteModel(const Model& model, const fs::path& path, ExternalData external) {
  StagedModel(model, path, external).Publish();
}

std::string SerializeModel(const Model& model) {
  const uint64_t whole = Plan(model).whole();
  if (whole > INT_MAX) TooLarge(ErrorCode::kLimit, whole);
  onnx::ModelProto proto;
  ModelCodec::Encode(model, nullptr, proto);
  return ToBytes(proto);
}

std::string SerializeModelWithoutWeights(const Model& model, uint64_t min_bytes,
                                         std::vector<LeftOutTensor>& left_out) {
  std::unordered_set<const Tensor*> weights;
  for (const Value* value : model.graph().Initializers()) {
    // ONNX Runtime drops unused initializers before it looks for the bytes of the left out ones.
    if (!value->uses().empty() || value->is_graph_output()) weights.insert(value->initializer());
  }
  onnx::ModelProto proto;
  ModelCodec::Encode(
      model,
      [&](const Tensor& tensor, std::string_view name, onnx::TensorProto& written) {
        if (tensor.dtype() == DType::kString || tensor.bytes().size() < min_bytes ||
            !weights.contains(&tensor)) {
          return false;
        }
        MarkExternal(written, "weights", 0, tensor.bytes().size());
        left_out.push_back({std::string(name), tensor});
        return true;
      },
      proto);
  return ToBytes(proto);
}

}  // namespace sparsefuse
