#include "passes/data/npy.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "passes/data/block.h"
#include "passes/data/fail.h"

namespace sparsefuse {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
// NumPy itself refuses to read headers above 10,000 bytes by default.
constexpr size_t kMaxHeader = 64 << 10;
// NumPy's own limit is 64 axes.
constexpr size_t kMaxRank = 64;

// A cursor over the dictionary literal.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  char Peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }

  bool Take(char c) {
    if (Peek() != c) return false;
    ++at_;
    return true;
  }

  void Expect(char c) {
    if (!Take(c)) FailData(fmt::format(".npy header: expected '{}' at character {}", c, at_));
  }

  std::string_view String() {
    const char quote = Peek();
    if (quote != '\'' && quote != '"') FailData(".npy header: expected a string in quotes");
    const size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) FailData(".npy header: a string does not end");
    return Until(at_ + 1, end, end + 1);
  }

  std::string_view Word() {
    Peek();
    size_t end = at_;
    while (end < text_.size() && std::isalnum(static_cast<unsigned char>(text_[end]))) ++end;
    return Until(at_, end, end);
  }

 private:
  std::string_view Until(size_t begin, size_t end, size_t next) {
    at_ = next;
    return text_.substr(begin, end - begin);
  }

  std::string_view text_;
  size_t at_ = 0;
};

bool ParseBool(Scanner& scanner) {
  const std::string_view word = scanner.Word();
  if (word != "True" && word != "False")
    FailData(".npy header: fortran_order is not True or False");
  return word == "True";
}

Dims ParseShape(Scanner& scanner) {
  Dims dims;
  scanner.Expect('(');
  while (!scanner.Take(')')) {
    std::string_view word = scanner.Word();
    if (word.ends_with('L')) word.remove_suffix(1);  // Python 2 wrote long integers so
    int64_t dim = 0;
    const auto [end, error] = std::from_chars(word.begin(), word.end(), dim);
    if (error != std::errc() || end != word.end()) {
      FailData(".npy header: shape is not a tuple of numbers from 0 to 2^63 - 1");
    }
    if (dims.size() == kMaxRank) FailData(fmt::format(".npy header: more than {} axes", kMaxRank));
    dims.push_back(dim);
    if (!scanner.Take(',')) {
      scanner.Expect(')');
      break;
    }
  }
  return dims;
}

// `descr` such as "<f4", "|b1", ">i8".
void ParseType(std::string_view descr, NpyHeader& header) {
  std::string_view code = descr;
  if (code.find_first_of("<>=|") == 0) {
    header.big_endian = code[0] == '>';
    code.remove_prefix(1);
  }
  static constexpr std::pair<std::string_view, DType> kTypes[] = {
      {"f4", DType::kFloat},  {"f8", DType::kDouble}, {"f2", DType::kFloat16},
      {"i1", DType::kInt8},   {"i2", DType::kInt16},  {"i4", DType::kInt32},
      {"i8", DType::kInt64},  {"u1", DType::kUint8},  {"u2", DType::kUint16},
      {"u4", DType::kUint32}, {"u8", DType::kUint64}, {"b1", DType::kBool}};
  for (const auto& [name, dtype] : kTypes) {
    if (code == name) {
      header.dtype = dtype;
      return;
    }
  }
  const std::string shown = Printable(descr);
  switch (code.empty() ? '\0' : code[0]) {
    case 'O':
      FailData("an object array is a Python pickle, which could run code: refused",
               "save a numeric array, e.g. numpy.stack(samples)");
    case 'U':
    case 'S':
    case 'a':
      FailData(fmt::format("arrays of strings (type \"{}\") are not supported", shown));
    case 'c':
      FailData(fmt::format("complex arrays (type \"{}\") are not supported", shown));
    default:
      FailData(fmt::format("arrays of type \"{}\" are not supported", shown),
               "supported are float16/32/64, signed and unsigned integers, bool");
  }
}

// Reverses the bytes of each element of `width` bytes.
void SwapBytes(std::span<std::byte> bytes, size_t width) {
  for (size_t i = 0; i + width <= bytes.size(); i += width) {
    std::reverse(bytes.begin() + i, bytes.begin() + i + width);
  }
}

// Elements of `width` bytes from Fortran order (first axis fastest) to C order.
void ToRowMajor(const Dims& dims, size_t width, std::span<const std::byte> from,
                std::span<std::byte> to) {
  std::vector<size_t> stride(dims.size());  // of `from`, in bytes
  size_t step = width;
  for (size_t axis = 0; axis < dims.size(); ++axis) {
    stride[axis] = step;
    step *= static_cast<size_t>(dims[axis]);
  }
  std::vector<int64_t> index(dims.size(), 0);
  size_t source = 0;
  for (size_t target = 0; target < to.size(); target += width) {
    std::memcpy(to.data() + target, from.data() + source, width);
    for (size_t axis = dims.size(); axis-- > 0;) {  // the next index in C order
      source += stride[axis];
      if (++index[axis] < dims[axis]) break;
      source -= stride[axis] * static_cast<size_t>(dims[axis]);
      index[axis] = 0;
    }
  }
}

}  // namespace

NpyHeader ParseNpyDictionary(std::string_view text) {
  NpyHeader header;
  std::optional<std::string_view> descr;
  std::optional<bool> fortran_order;
  std::optional<Dims> shape;
  Scanner scanner(text);
  scanner.Expect('{');
  while (!scanner.Take('}')) {
    const std::string_view key = scanner.String();
    scanner.Expect(':');
    if (key == "descr" && !descr) {
      if (scanner.Peek() == '[') FailData("structured arrays are not supported");
      descr = scanner.String();
    } else if (key == "fortran_order" && !fortran_order) {
      fortran_order = ParseBool(scanner);
    } else if (key == "shape" && !shape) {
      shape = ParseShape(scanner);
    } else {
      FailData(fmt::format(".npy header: unknown or repeated key \"{}\"", Printable(key)));
    }
    if (!scanner.Take(',')) {
      scanner.Expect('}');
      break;
    }
  }
  if (scanner.Peek() != '\0') FailData(".npy header: text behind the dictionary");
  if (!descr || !fortran_order || !shape) {
    FailData(".npy header: descr, fortran_order or shape is missing");
  }
  ParseType(*descr, header);
  header.fortran_order = *fortran_order;
  header.dims = std::move(*shape);
  const std::optional<int64_t> bytes = ByteCount(header.dtype, header.dims);
  if (!bytes) {
    FailData(fmt::format("shape {} has more elements than fit in memory", ToString(header.dims)));
  }
  header.bytes = *bytes;
  return header;
}

NpyHeader ReadNpyHeader(const ByteReader& read) {
  std::array<std::byte, 12> start;
  const auto need = [&](std::span<std::byte> bytes) {
    if (read(bytes) != bytes.size()) FailData("the .npy header is truncated");
  };
  need(std::span(start).first(8));
  if (std::memcmp(start.data(), kMagic.data(), kMagic.size()) != 0) {
    FailData("not a NumPy array: it does not begin with \\x93NUMPY", "write it with numpy.save");
  }
  const int major = std::to_integer<int>(start[6]);
  if (major < 1 || major > 3) {
    FailData(fmt::format(".npy version {} is not supported, 1 to 3 are", major));
  }
  const size_t length_bytes = major == 1 ? 2 : 4;
  need(std::span(start).subspan(8, length_bytes));
  size_t length = 0;
  for (size_t i = 0; i < length_bytes; ++i) {
    length |= std::to_integer<size_t>(start[8 + i]) << (8 * i);
  }
  if (length > kMaxHeader) {
    FailData(
        fmt::format("the .npy header claims {} bytes, at most {} are read", length, kMaxHeader));
  }
  std::string text(length, '\0');
  need(std::as_writable_bytes(std::span(text)));
  return ParseNpyDictionary(text);
}

Tensor ReadNpyElements(const NpyHeader& header, const ByteReader& read) {
  auto block = std::make_shared<Block>(static_cast<size_t>(header.bytes));
  const size_t got = read(block->writable());
  if (got != block->writable().size()) {
    FailData(fmt::format("{} bytes of elements, {} of {} need {}", got, ToString(header.dims),
                         DTypeName(header.dtype), header.bytes),
             "the file looks truncated");
  }
  std::byte behind[1];
  if (read(behind) != 0) {
    FailData(fmt::format("more bytes than {} of {} need", ToString(header.dims),
                         DTypeName(header.dtype)));
  }
  const size_t width = static_cast<size_t>(DTypeBits(header.dtype)) / 8;
  if (header.big_endian) SwapBytes(block->writable(), width);
  if (header.dtype == DType::kBool) {
    for (std::byte& b : block->writable()) b = std::byte{b != std::byte{0}};
  }
  if (header.fortran_order && header.dims.size() > 1) {
    auto ordered = std::make_shared<Block>(static_cast<size_t>(header.bytes));
    ToRowMajor(header.dims, width, block->bytes(), ordered->writable());
    block = std::move(ordered);
  }
  return Tensor(header.dtype, header.dims, std::move(block));
}

}  // namespace sparsefuse
