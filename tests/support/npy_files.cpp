#include "tests/support/npy_files.h"

#include <stdexcept>
#include <utility>

namespace sparsefuse::test {
namespace {

// `bytes` of the number, lowest first.
std::string Little(uint64_t number, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(number >> (8 * i));
  return text;
}

uint32_t Crc32(std::string_view bytes) {
  uint32_t crc = 0xFFFFFFFFu;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320u : 0);
  }
  return ~crc;
}

std::string_view NumpyType(DType dtype) {
  switch (dtype) {
    case DType::kFloat:
      return "<f4";
    case DType::kDouble:
      return "<f8";
    case DType::kFloat16:
      return "<f2";
    case DType::kInt8:
      return "|i1";
    case DType::kInt16:
      return "<i2";
    case DType::kInt32:
      return "<i4";
    case DType::kInt64:
      return "<i8";
    case DType::kUint8:
      return "|u1";
    case DType::kBool:
      return "|b1";
    default:
      throw std::runtime_error("no NumPy type");
  }
}

}  // namespace

std::string NpyBytes(std::string_view dictionary, std::string_view elements) {
  std::string text(dictionary);
  while ((10 + text.size() + 1) % 64 != 0) text += ' ';
  text += '\n';
  return "\x93NUMPY" + std::string("\x01\x00", 2) + Little(text.size(), 2) + text +
         std::string(elements);
}

std::string NpyBytes(const Tensor& tensor) {
  std::string shape;
  for (const int64_t dim : tensor.dims()) shape += std::to_string(dim) + ", ";
  return NpyBytes(fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}",
                              NumpyType(tensor.dtype()), shape),
                  {reinterpret_cast<const char*>(tensor.bytes().data()), tensor.bytes().size()});
}

std::string ZipBytes(const std::vector<ZipMember>& members) {
  std::string files, directory;
  for (const ZipMember& member : members) {
    const std::string common =
        Little(20, 2) + Little(0, 2) + Little(member.method, 2) + Little(0, 2) + Little(0x21, 2) +
        Little(member.claimed_crc.value_or(Crc32(member.bytes)), 4) +
        Little(member.bytes.size(), 4) +
        Little(member.claimed_size.value_or(static_cast<uint32_t>(member.bytes.size())), 4) +
        Little(member.name.size(), 2) + Little(0, 2);
    directory += "PK\x01\x02" + Little(20, 2) + common + Little(0, 2) + Little(0, 2) +
                 Little(0, 2) + Little(0, 4) + Little(files.size(), 4) + member.name;
    files += "PK\x03\x04" + common + member.name + member.bytes;
  }
  const std::string count = Little(members.size(), 2);
  return files + directory + "PK\x05\x06" + Little(0, 4) + count + count +
         Little(directory.size(), 4) + Little(files.size(), 4) + Little(0, 2);
}

std::string NpzBytes(const std::vector<std::pair<std::string, Tensor>>& arrays) {
  std::vector<ZipMember> members;
  for (const auto& [name, tensor] : arrays) members.push_back({name + ".npy", NpyBytes(tensor)});
  return ZipBytes(members);
}

}  // namespace sparsefuse::test
