#include "passes/statistics/store.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <span>
#include <system_error>

#include "onnx_io/digest.h"
#include "onnx_io/writer.h"

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;

// A file: the line below, the key (64 digits), the number of matrices, then for each [rows,
// columns, 1 if only the lower triangle follows] and its columns, and the SHA-256 of all that (64
// digits). Numbers are 64 bits, little-endian.
constexpr std::string_view kMagic = "sparsefuse statistics 1\n";
constexpr std::string_view kEnding = ".stats";
constexpr size_t kDigestDigits = 64;
constexpr uintmax_t kMostBytes = uintmax_t{4} << 30;  // of all files together
constexpr int64_t kMostMatrices = 1 << 20;
constexpr uint64_t kLeftOutBytes = 1024;

static_assert(std::endian::native == std::endian::little);

template <typename T>
std::span<const std::byte> Bytes(const T* values, int64_t count) {
  return std::as_bytes(std::span(values, static_cast<size_t>(count)));
}

std::span<const std::byte> Bytes(std::string_view text) {
  return Bytes(text.data(), static_cast<int64_t>(text.size()));
}

bool IsSymmetric(const Eigen::MatrixXd& matrix) {
  return matrix.rows() == matrix.cols() && matrix.rows() > 1 && matrix == matrix.transpose();
}

// Writes or reads pieces and takes their digest.
class Writer {
 public:
  explicit Writer(const fs::path& file) : out_(file, std::ios::binary | std::ios::trunc) {}

  void Add(std::span<const std::byte> bytes) {
    digest_.Add(bytes);
    Put(bytes);
  }

  bool Finish() {
    const std::string digest = digest_.Hex();
    Put(Bytes(digest));
    out_.close();
    return !out_.fail();
  }

 private:
  void Put(std::span<const std::byte> bytes) {
    out_.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }

  std::ofstream out_;
  Sha256 digest_;
};

class Reader {
 public:
  Reader(const fs::path& file, uintmax_t size) : in_(file, std::ios::binary), left_(size) {}

  uintmax_t left() const { return left_; }

  bool Read(std::span<std::byte> bytes) {
    if (!Get(bytes)) return false;
    digest_.Add(bytes);
    return true;
  }

  bool Expect(std::string_view text) {
    std::string found(text.size(), '\0');
    return Read(std::as_writable_bytes(std::span(found))) && found == text;
  }

  bool Finish() {
    std::string found(kDigestDigits, '\0');
    return left_ == kDigestDigits && Get(std::as_writable_bytes(std::span(found))) &&
           found == digest_.Hex();
  }

 private:
  bool Get(std::span<std::byte> bytes) {
    if (bytes.size() > left_) return false;
    in_.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    left_ -= bytes.size();
    return !in_.fail();
  }

  std::ifstream in_;
  uintmax_t left_;
  Sha256 digest_;
};

void Write(Writer& writer, const Eigen::MatrixXd& matrix) {
  const bool half = IsSymmetric(matrix);
  const std::array<int64_t, 3> head = {matrix.rows(), matrix.cols(), half};
  writer.Add(Bytes(head.data(), 3));
  for (Eigen::Index j = 0; j < matrix.cols(); ++j) {
    const Eigen::Index first = half ? j : 0;
    writer.Add(Bytes(matrix.data() + j * matrix.rows() + first, matrix.rows() - first));
  }
}

std::optional<Eigen::MatrixXd> ReadMatrix(Reader& reader) {
  std::array<int64_t, 3> head;
  if (!reader.Read(std::as_writable_bytes(std::span(head)))) return std::nullopt;
  const auto [rows, columns, half] = head;
  const std::optional<int64_t> count = ElementCount(Dims{rows, columns});
  if (!count || (half != 0 && (half != 1 || rows != columns))) return std::nullopt;
  const int64_t stored = half ? *count / 2 : *count;  // about, or less
  if (static_cast<uintmax_t>(stored) > reader.left() / sizeof(double)) return std::nullopt;
  Eigen::MatrixXd matrix(rows, columns);
  for (Eigen::Index j = 0; j < columns; ++j) {
    const Eigen::Index first = half ? j : 0;
    const std::span<double> column(matrix.data() + j * rows + first,
                                   static_cast<size_t>(rows - first));
    if (!reader.Read(std::as_writable_bytes(column))) return std::nullopt;
  }
  if (half) matrix.triangularView<Eigen::StrictlyUpper>() = matrix.transpose();
  return matrix;
}

std::optional<Matrices> ReadAll(const fs::path& file, uintmax_t size, std::string_view key) {
  Reader reader(file, size);
  int64_t count = 0;
  if (!reader.Expect(kMagic) || !reader.Expect(key) ||
      !reader.Read(std::as_writable_bytes(std::span(&count, 1))) || count < 0 ||
      count > kMostMatrices) {
    return std::nullopt;
  }
  Matrices matrices;
  for (int64_t i = 0; i < count; ++i) {
    std::optional<Eigen::MatrixXd> matrix = ReadMatrix(reader);
    if (!matrix) return std::nullopt;
    matrices.push_back(std::move(*matrix));
  }
  return reader.Finish() ? std::optional(std::move(matrices)) : std::nullopt;
}

std::string Digest(const Model& model, const Batches& batches) {
  Sha256 digest;
  std::vector<LeftOutTensor> weights;
  digest.Add(Bytes(SerializeModelWithoutWeights(model, kLeftOutBytes, weights)));
  for (const LeftOutTensor& weight : weights) digest.Add(weight.tensor.bytes());
  for (const Feeds& feeds : batches) {
    for (const auto& [name, tensor] : feeds) {
      digest.Add(Bytes(
          fmt::format("\n{} {} {}\n", name, DTypeName(tensor.dtype()), ToString(tensor.dims()))));
      digest.Add(tensor.bytes());
    }
  }
  digest.Add(Bytes(EngineVersion()));
  return digest.Hex();
}

// Those written first go until all that is kept has room.
void MakeRoom(const fs::path& folder) {
  struct File {
    fs::file_time_type written;
    fs::path path;
    uintmax_t size;
  };
  std::vector<File> files;
  uintmax_t total = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() != kEnding) continue;
    const uintmax_t size = entry.file_size(error);
    if (error) continue;
    files.push_back({entry.last_write_time(error), entry.path(), size});
    total += size;
  }
  std::sort(files.begin(), files.end(),
            [](const File& a, const File& b) { return a.written < b.written; });
  for (size_t i = 0; i < files.size() && total > kMostBytes; ++i) {
    if (fs::remove(files[i].path, error)) total -= files[i].size;
  }
}

}  // namespace

StatisticsStore::StatisticsStore(const Model& model, const Batches& batches,
                                 const Context& context) {
  if (context.cache_folder.empty()) return;
  folder_ = context.cache_folder / "statistics";
  digest_ = Digest(model, batches);
}

std::string StatisticsStore::KeyOf(std::string_view what) const {
  return Sha256Hex(Bytes(fmt::format("{}\n{}", digest_, what)));
}

std::optional<Matrices> StatisticsStore::Find(std::string_view what) {
  if (folder_.empty()) return std::nullopt;
  const std::string key = KeyOf(what);
  const fs::path file = folder_ / (key + std::string(kEnding));
  std::error_code error;
  if (!fs::exists(file, error)) return std::nullopt;
  const uintmax_t size = fs::is_regular_file(file, error) ? fs::file_size(file, error) : 0;
  std::optional<Matrices> matrices = error ? std::nullopt : ReadAll(file, size, key);
  if (!matrices) {
    notes_.push_back(fmt::format(
        "{}: holds no statistics that can be used; they are computed again", file.string()));
  }
  return matrices;
}

void StatisticsStore::Keep(std::string_view what, const Matrices& matrices) {
  if (folder_.empty()) return;
  const std::string key = KeyOf(what);
  const fs::path file = folder_ / (key + std::string(kEnding));
  const fs::path temporary = fmt::format("{}.{}", file.string(), getpid());
  std::error_code error;
  fs::create_directories(folder_, error);
  Writer writer(temporary);
  const auto count = static_cast<int64_t>(matrices.size());
  writer.Add(Bytes(kMagic));
  writer.Add(Bytes(key));
  writer.Add(Bytes(&count, 1));
  for (const Eigen::MatrixXd& matrix : matrices) Write(writer, matrix);
  bool good = writer.Finish();
  if (good) {
    fs::rename(temporary, file, error);
    good = !error;
  }
  if (good) return MakeRoom(folder_);
  fs::remove(temporary, error);
  notes_.push_back(
      fmt::format("{}: cannot be written; the next run computes again", file.string()));
}

std::vector<RowStatistics> StatisticsStore::Rows(std::string_view what, const Model& model,
                                                 std::span<const RowRequest> requests,
                                                 const Batches& batches,
                                                 const std::optional<std::string>& mask,
                                                 const Context& context) {
  constexpr size_t kFields = 4;
  std::string whole = fmt::format("rows: {}\nmask: {}", what, mask.value_or(""));
  for (const RowRequest& request : requests) {
    whole += fmt::format("\n{} {} {} {}", request.rows.tensor, request.rows.feature_axis,
                         request.rows.window ? request.rows.window->output(0)->name() : "",
                         request.gram);
  }
  std::vector<RowStatistics> statistics;
  if (std::optional<Matrices> kept = Find(whole);
      kept && kept->size() == kFields * requests.size()) {
    for (auto at = kept->begin(); at != kept->end(); at += kFields) {
      statistics.push_back({at[0](0, 0), at[1].col(0), at[2].col(0), std::move(at[3])});
    }
    return statistics;
  }
  statistics = CollectRows(model, requests, batches, mask, context);
  Matrices matrices;
  for (const RowStatistics& own : statistics) {
    matrices.push_back(Eigen::MatrixXd::Constant(1, 1, own.count));
    matrices.push_back(own.mean);
    matrices.push_back(own.squares);
    matrices.push_back(own.gram);
  }
  Keep(whole, matrices);
  return statistics;
}

}  // namespace sparsefuse
