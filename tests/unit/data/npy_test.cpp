#include "passes/data/npy.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "tests/support/catch.h"
#include "tests/support/npy_files.h"
#include "tests/support/support.h"

namespace sparsefuse {
namespace {

using test::Contains;
using test::NpyBytes;

ByteReader From(const std::string& bytes) {
  return [at = size_t{0}, &bytes](std::span<std::byte> out) mutable {
    const size_t n = std::min(out.size(), bytes.size() - at);
    if (n > 0) std::memcpy(out.data(), bytes.data() + at, n);
    at += n;
    return n;
  };
}

Tensor Read(const std::string& bytes) {
  const ByteReader read = From(bytes);
  const NpyHeader header = ReadNpyHeader(read);
  return ReadNpyElements(header, read);
}

std::string Dictionary(const std::string& descr, const std::string& shape,
                       const std::string& fortran = "False") {
  return "{'descr': " + descr + ", 'fortran_order': " + fortran + ", 'shape': " + shape + ", }";
}

// The message of the E_DATA error that `bytes` gives.
std::string Refusal(const std::string& bytes) {
  try {
    Read(bytes);
  } catch (const UserError& error) {
    CHECK(error.code == ErrorCode::kData);
    return error.message;
  }
  return "accepted";
}

TEST_CASE("each numeric type is read as it is") {
  const std::string eight("\x01\x00\x00\x00\x00\x00\x00\x00", 8);
  const struct {
    const char* descr;
    DType dtype;
    size_t width;
  } kTypes[] = {
      {"'<f4'", DType::kFloat, 4},  {"'<f8'", DType::kDouble, 8}, {"'<f2'", DType::kFloat16, 2},
      {"'|i1'", DType::kInt8, 1},   {"'<i2'", DType::kInt16, 2},  {"'<i4'", DType::kInt32, 4},
      {"'<i8'", DType::kInt64, 8},  {"'|u1'", DType::kUint8, 1},  {"'<u2'", DType::kUint16, 2},
      {"'<u4'", DType::kUint32, 4}, {"'<u8'", DType::kUint64, 8}, {"'|b1'", DType::kBool, 1}};
  for (const auto& type : kTypes) {
    INFO(type.descr);
    const Tensor tensor =
        Read(NpyBytes(Dictionary(type.descr, "(1,)"), eight.substr(0, type.width)));
    CHECK(tensor.dtype() == type.dtype);
    CHECK(tensor.dims() == Dims{1});
    CHECK(std::memcmp(tensor.bytes().data(), eight.data(), type.width) == 0);
  }
}

TEST_CASE("versions 2 and 3 have a four-byte header length") {
  const std::string text = Dictionary("'<i2'", "(2,)") + "\n";
  for (const char version : {'\x02', '\x03'}) {
    std::string bytes = "\x93NUMPY" + std::string(1, version) + std::string(1, '\0');
    bytes += static_cast<char>(text.size());
    bytes += std::string(3, '\0') + text + std::string("\x05\x00\x06\x00", 4);
    CHECK(Read(bytes).ToInts() == std::vector<int64_t>{5, 6});
  }
  CHECK(Refusal("\x93NUMPY" + std::string("\x04\x00\x10\x00", 4) + text) ==
        ".npy version 4 is not supported, 1 to 3 are");
}

TEST_CASE("big-endian elements are converted") {
  CHECK(Read(NpyBytes(Dictionary("'>i4'", "(2,)"), std::string("\0\0\1\2\xFF\xFF\xFF\xFE", 8)))
            .ToInts() == std::vector<int64_t>{0x102, -2});
  CHECK(Read(NpyBytes(Dictionary("'>f8'", "(1,)"), std::string("\x3F\xF8\0\0\0\0\0\0", 8)))
            .data<double>()[0] == 1.5);
}

TEST_CASE("Fortran order is converted") {
  // numpy.asfortranarray(numpy.arange(24, dtype="u1").reshape(2, 3, 4)) in memory order:
  // element [i,j,k] = 12i + 4j + k stands at i + 2j + 6k.
  std::string elements(24, '\0');
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 3; ++j) {
      for (int k = 0; k < 4; ++k)
        elements[i + 2 * j + 6 * k] = static_cast<char>(12 * i + 4 * j + k);
    }
  }
  const Tensor tensor = Read(NpyBytes(Dictionary("'|u1'", "(2, 3, 4)", "True"), elements));
  std::vector<int64_t> expected(24);
  for (int i = 0; i < 24; ++i) expected[i] = i;
  CHECK(tensor.ToInts() == expected);
  CHECK(tensor.dims() == Dims{2, 3, 4});
  CHECK(Read(NpyBytes(Dictionary("'|u1'", "(0, 3)", "True"), "")).size() == 0);
}

TEST_CASE("bool elements become 0 or 1") {
  CHECK(Read(NpyBytes(Dictionary("'|b1'", "(3,)"), std::string("\0\1\x40", 3))).ToInts() ==
        std::vector<int64_t>{0, 1, 1});
}

TEST_CASE("headers as other writers spell them") {
  CHECK(ParseNpyDictionary("{\"shape\":(2,3),\"fortran_order\":True,\"descr\":\"<f4\"}").dims ==
        Dims{2, 3});
  CHECK(ParseNpyDictionary(Dictionary("'<f4'", "()")).dims.empty());
  CHECK(ParseNpyDictionary(Dictionary("'<f4'", "(7L, 2L)")).dims == Dims{7, 2});
}

TEST_CASE("what is no array of numbers is refused with its reason") {
  const auto refusal = [](const std::string& descr) {
    return Refusal(NpyBytes(Dictionary(descr, "(1,)"), std::string(64, '\0')));
  };
  CHECK(Contains(refusal("'|O'"), "Python pickle"));
  CHECK(Contains(refusal("[('a', '<f4'), ('b', '<i4')]"), "structured arrays"));
  CHECK(Contains(refusal("'<U2'"), "strings"));
  CHECK(Contains(refusal("'|S3'"), "strings"));
  CHECK(Contains(refusal("'<c8'"), "complex"));
  CHECK(Contains(refusal("'<f16'"), "type \"<f16\""));
  CHECK(Contains(refusal("'<V2'"), "type \"<V2\""));
  CHECK(Contains(refusal("''"), "type \"\""));
  CHECK(Contains(refusal("'<M8[ns]'"), "not supported"));
}

TEST_CASE("broken headers are refused") {
  const std::string text = Dictionary("'<f4'", "(1,)");
  const std::string whole = NpyBytes(text, "abcd");
  for (size_t length = 0; length < whole.size(); ++length) {
    INFO("first " << length << " bytes");
    CHECK(Refusal(whole.substr(0, length)) != "accepted");
  }
  CHECK(Refusal(whole) == "accepted");
  CHECK(Refusal(whole + "e") == "more bytes than [1] of float need");
  CHECK(Refusal(whole.substr(0, whole.size() - 1)) == "3 bytes of elements, [1] of float need 4");
  CHECK(Refusal("PK\x03\x04 and more bytes").starts_with("not a NumPy array"));

  const char* kBroken[] = {
      "",
      "{",
      "{}",
      "[]",
      "{'descr'}",
      "{'descr': '<f4'}",
      "{'descr': '<f4",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)",
      "{'descr': '<f4', 'fortran_order': maybe, 'shape': (1,)}",
      "{'descr': '<f4', 'fortran_order': False, 'shape': 1}",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (1.5,)}",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (,)}",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (1 2)}",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} import os",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'shape': (2,)}",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'extra': 1}"};
  for (const char* dictionary : kBroken) {
    INFO(dictionary);
    CHECK_THROWS_AS(ParseNpyDictionary(dictionary), UserError);
  }
  CHECK_THROWS_AS(ParseNpyDictionary(std::string("{'descr'\0: '<f4'}", 17)), UserError);
  std::string axes = "(";
  for (int i = 0; i < 65; ++i) axes += "1,";
  CHECK_THROWS_AS(ParseNpyDictionary(Dictionary("'<f4'", axes + ")")), UserError);
}

TEST_CASE("sizes that overflow are refused before anything is allocated") {
  CHECK(Refusal(NpyBytes(Dictionary("'<f4'", "(9223372036854775807,)"), "abcd")) ==
        "shape [9223372036854775807] has more elements than fit in memory");
  CHECK_THROWS_AS(ParseNpyDictionary(Dictionary("'<f4'", "(4294967296, 4294967296)")), UserError);
  // 2^60 elements fit into an int64 of bytes: the containers compare them with the file.
  CHECK(ParseNpyDictionary(Dictionary("'<f4'", "(1152921504606846976,)")).bytes == int64_t{1}
                                                                                       << 62);
  CHECK(Refusal("\x93NUMPY" + std::string("\x02\x00\xFF\xFF\xFF\xFF", 6))
            .starts_with("the .npy header claims 4294967295 bytes"));
}

}  // namespace
}  // namespace sparsefuse
