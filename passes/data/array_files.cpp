#include "passes/data/array_files.h"

#include <unistd.h>
#include <zip.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <unordered_set>
#include <utility>

#include "onnx_io/mapped_file.h"
#include "onnx_io/tensor_proto.h"
#include "passes/data/fail.h"

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxBytes = 64ull << 30;
// Deflate's largest ratio is 1032 : 1 (258 bytes from 2 bits); with room for stream headers.
constexpr uint64_t kMaxDeflateRatio = 1032;
constexpr uint64_t kDeflateSlack = 64 << 10;

// What is left for arrays of the 64 GiB or this machine's memory.
class Budget {
 public:
  Budget() {
    const auto pages = static_cast<uint64_t>(std::max(0L, sysconf(_SC_PHYS_PAGES)));
    const auto page_bytes = static_cast<uint64_t>(std::max(0L, sysconf(_SC_PAGE_SIZE)));
    if (pages * page_bytes > 0) limit_ = std::min(limit_, pages * page_bytes);
  }

  void Take(uint64_t bytes) {
    if (bytes > limit_ - used_) {
      throw UserError(
          ErrorCode::kLimit,
          fmt::format("unpacks to {} bytes or more, the limit is {}", used_ + bytes, limit_),
          "use fewer samples");
    }
    used_ += bytes;
  }

 private:
  uint64_t limit_ = kMaxBytes;
  uint64_t used_ = 0;
};

// One array from a source that holds exactly `source_bytes` bytes, if it keeps its word.
Tensor ReadArray(const std::string& name, uint64_t source_bytes, const ByteReader& read,
                 const AcceptArray& accept, Budget& budget) {
  const NpyHeader header = ReadNpyHeader(read);
  const auto bytes = static_cast<uint64_t>(header.bytes);
  if (bytes > source_bytes) {
    FailData(fmt::format("{} of {} need {} bytes, the file has {}", ToString(header.dims),
                         DTypeName(header.dtype), bytes, source_bytes),
             "the file looks truncated");
  }
  accept(name, header);
  budget.Take(bytes);
  return ReadNpyElements(header, read);
}

// Up to bytes.size() bytes from where `file` stands; fewer only at its end.
size_t ReadFile(const FileHandle& file, std::span<std::byte> bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = read(file.get(), bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      throw UserError(ErrorCode::kRead, fmt::format("cannot be read: {}", std::strerror(errno)));
    }
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

// What a file that is no zip archive is, by its first bytes; empty if unknown.
std::string_view ForeignKind(std::string_view start) {
  static constexpr std::pair<std::string_view, std::string_view> kKinds[] = {
      {"\x93NUMPY",
       "a single .npy array, which carries no input name; put it in a folder as "
       "<input name>.npy and name the folder"},
      {"version https://git-lfs", "a git-lfs pointer; run `git lfs pull`"},
      {"<", "an HTML or XML page; download the file itself"},
      {"\x1f\x8b", "gzip; unpack it first"},
      {"\x80", "a Python pickle, which could run code: refused"},
      {"{", "JSON text"}};
  for (const auto& [magic, kind] : kKinds) {
    if (start.starts_with(magic)) return kind;
  }
  return {};
}

void CheckIsZip(const fs::path& path) {
  std::string start(64, '\0');
  start.resize(ReadFile(OpenRegularFile(path), std::as_writable_bytes(std::span(start))));
  if (start.empty()) FailData("the file is empty");
  // An archive without entries begins with its end record.
  if (start.starts_with("PK\x03\x04") || start.starts_with("PK\x05\x06")) return;
  const std::string_view kind = ForeignKind(start);
  FailData(kind.empty() ? "not an .npz archive" : fmt::format("not an .npz archive but {}", kind),
           kind.empty() ? "write it with numpy.savez" : "");
}

struct CloseZip {
  void operator()(zip_t* zip) const { zip_discard(zip); }
};
struct CloseEntry {
  void operator()(zip_file_t* file) const { zip_fclose(file); }
};
using Zip = std::unique_ptr<zip_t, CloseZip>;
using ZipEntry = std::unique_ptr<zip_file_t, CloseEntry>;

Zip OpenZip(const fs::path& path) {
  CheckIsZip(path);
  int code = 0;
  Zip zip(zip_open(path.c_str(), ZIP_RDONLY, &code));
  if (!zip) {
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    const std::string reason = zip_error_strerror(&error);
    zip_error_fini(&error);
    FailData(fmt::format("the .npz archive cannot be opened: {}", reason),
             "the file looks truncated or corrupt");
  }
  return zip;
}

// The entry's unpacked size, checked against what its packed bytes can hold.
uint64_t UnpackedSize(const zip_stat_t& stat) {
  constexpr zip_uint64_t kNeeded =
      ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD;
  if ((stat.valid & kNeeded) != kNeeded) FailData("the archive's directory is corrupt");
  if ((stat.valid & ZIP_STAT_ENCRYPTION_METHOD) && stat.encryption_method != ZIP_EM_NONE) {
    FailData("encrypted archives are not supported");
  }
  const bool stored = stat.comp_method == ZIP_CM_STORE;
  if (!stored && stat.comp_method != ZIP_CM_DEFLATE) {
    FailData(fmt::format("compression method {} is not supported", stat.comp_method),
             "write it with numpy.savez or numpy.savez_compressed");
  }
  const uint64_t most = stored ? stat.comp_size
                        : stat.comp_size > kMaxBytes
                            ? stat.comp_size
                            : stat.comp_size * kMaxDeflateRatio + kDeflateSlack;
  if (stat.size > most) {
    FailData(fmt::format("the archive claims {} bytes unpacked from {}: not possible", stat.size,
                         stat.comp_size),
             "the file is corrupt");
  }
  return stat.size;
}

Tensor ReadZipArray(zip_t* zip, zip_uint64_t index, const zip_stat_t& stat, const std::string& name,
                    const AcceptArray& accept, Budget& budget) {
  const uint64_t size = UnpackedSize(stat);
  const ZipEntry entry(zip_fopen_index(zip, index, 0));
  if (!entry) FailData(fmt::format("cannot be unpacked: {}", zip_strerror(zip)));
  const ByteReader read = [&](std::span<std::byte> bytes) {
    size_t done = 0;
    while (done < bytes.size()) {
      const zip_int64_t n = zip_fread(entry.get(), bytes.data() + done, bytes.size() - done);
      if (n < 0) {
        FailData(fmt::format("cannot be unpacked: {}", zip_file_strerror(entry.get())),
                 "the file is truncated or corrupt");
      }
      if (n == 0) break;
      done += static_cast<size_t>(n);
    }
    return done;
  };
  return ReadArray(name, size, read, accept, budget);
}

// The <n> of a name "<prefix><n><suffix>".
std::optional<int64_t> NumberIn(std::string_view name, std::string_view prefix,
                                std::string_view suffix) {
  if (!name.starts_with(prefix) || !name.ends_with(suffix)) return std::nullopt;
  if (name.size() <= prefix.size() + suffix.size()) return std::nullopt;
  name = name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
  int64_t number = 0;
  const auto [end, error] = std::from_chars(name.begin(), name.end(), number);
  if (error != std::errc() || end != name.end() || number < 0) return std::nullopt;
  return number;
}

// The folder's entries, sorted.
std::vector<fs::path> List(const fs::path& folder) {
  std::vector<fs::path> paths;
  try {
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
      paths.push_back(entry.path());
    }
  } catch (const fs::filesystem_error& error) {
    throw UserError(ErrorCode::kRead, fmt::format("cannot be read: {}", error.code().message()))
        .InFile(folder.string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

std::vector<NamedArray> ReadNpz(const fs::path& path, const AcceptArray& accept) {
  try {
    const Zip zip = OpenZip(path);
    std::vector<NamedArray> arrays;
    std::unordered_set<std::string> names;
    Budget budget;
    const zip_int64_t count = zip_get_num_entries(zip.get(), 0);
    for (zip_int64_t i = 0; i < count; ++i) {
      zip_stat_t stat;
      zip_stat_init(&stat);
      const auto index = static_cast<zip_uint64_t>(i);
      if (zip_stat_index(zip.get(), index, 0, &stat) != 0 || !stat.name) {
        FailData(fmt::format("entry {} of the archive: {}", i, zip_strerror(zip.get())));
      }
      std::string name = stat.name;
      if (!name.ends_with(".npy")) {
        FailData(fmt::format("entry \"{}\" is not an .npy array", Printable(name)),
                 "write it with numpy.savez");
      }
      name.resize(name.size() - 4);
      try {
        if (!names.insert(name).second) FailData("is in the archive twice");
        Tensor tensor = ReadZipArray(zip.get(), index, stat, name, accept, budget);
        arrays.push_back({name, std::move(tensor)});
      } catch (UserError& error) {
        throw error.At(fmt::format("array \"{}\"", Printable(name)));
      }
    }
    return arrays;
  } catch (UserError& error) {
    throw error.InFile(path.string());
  }
}

std::vector<NamedArray> ReadNpyFolder(const fs::path& folder, const AcceptArray& accept) {
  std::vector<NamedArray> arrays;
  Budget budget;
  for (const fs::path& path : List(folder)) {
    if (path.extension() != ".npy") continue;
    try {
      const FileHandle file = OpenRegularFile(path);
      const uint64_t size = IdentityOf(file.get(), path).size;
      const std::string name = path.stem().string();
      const ByteReader read = [&](std::span<std::byte> bytes) { return ReadFile(file, bytes); };
      arrays.push_back({name, ReadArray(name, size, read, accept, budget)});
    } catch (UserError& error) {
      throw error.InFile(path.string());
    }
  }
  return arrays;
}

std::vector<fs::path> FindTestDataSets(const fs::path& folder) {
  std::error_code unreadable;  // then listing the folder says why
  if (fs::exists(folder / "input_0.pb", unreadable)) return {folder};
  std::vector<std::pair<int64_t, fs::path>> sets;
  for (const fs::path& path : List(folder)) {
    const auto number = NumberIn(path.filename().string(), "test_data_set_", "");
    if (number && fs::is_directory(path)) sets.emplace_back(*number, path);
  }
  std::sort(sets.begin(), sets.end());
  std::vector<fs::path> paths;
  for (auto& [number, path] : sets) paths.push_back(std::move(path));
  return paths;
}

std::vector<Tensor> ReadTestDataSet(const fs::path& folder) {
  std::vector<std::pair<int64_t, fs::path>> files;
  for (const fs::path& path : List(folder)) {
    const auto number = NumberIn(path.filename().string(), "input_", ".pb");
    if (number) files.emplace_back(*number, path);
  }
  std::sort(files.begin(), files.end());
  std::vector<Tensor> tensors;
  for (const auto& [number, path] : files) {
    if (number != static_cast<int64_t>(tensors.size())) {
      throw UserError(ErrorCode::kData,
                      fmt::format("input_{}.pb is missing or given twice", tensors.size()))
          .InFile(folder.string());
    }
    tensors.push_back(ReadTensorProto(path));
  }
  return tensors;
}

}  // namespace sparsefuse
