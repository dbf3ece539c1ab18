#include "onnx_io/tensor.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "onnx_io/digest.h"
#include "tests/support/catch.h"

namespace sparsefuse {
namespace {

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

template <typename T>
Tensor FromValues(DType dtype, Dims dims, const std::vector<T>& values) {
  return Tensor::FromBytes(dtype, std::move(dims), std::as_bytes(std::span(values)));
}

// binary16 by its definition: sign, 5 bits of exponent with bias 15, 10 bits of fraction.
double HalfByDefinition(int bits) {
  const double sign = bits & 0x8000 ? -1 : 1;
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  return exponent == 0 ? sign * std::ldexp(fraction, -24)
                       : sign * std::ldexp(1024 + fraction, exponent - 25);
}

}  // namespace

TEST_CASE("sizes are computed without overflow") {
  using D = std::vector<int64_t>;
  CHECK(ElementCount(D{}) == 1);
  CHECK(ElementCount(D{2, 3, 4}) == 24);
  CHECK(ElementCount(D{5, 0, 7}) == 0);
  CHECK_FALSE(ElementCount(D{4, -1}));
  CHECK_FALSE(ElementCount(D{0, -1}));
  CHECK(ElementCount(D{kMax}) == kMax);
  CHECK_FALSE(ElementCount(D{int64_t{1} << 32, int64_t{1} << 32}));
  CHECK_FALSE(ElementCount(D{kMax, 2, 0}));

  CHECK(ByteCount(DType::kFloat, D{3}) == 12);
  CHECK(ByteCount(DType::kComplex128, D{3}) == 48);
  CHECK_FALSE(ByteCount(DType::kFloat, D{int64_t{1} << 61, 4}));
  CHECK_FALSE(ByteCount(DType::kFloat, D{int64_t{1} << 61}));
  CHECK(ByteCount(DType::kInt4, D{7}) == 4);
  CHECK(ByteCount(DType::kInt4, D{8}) == 4);
  CHECK(ByteCount(DType::kUint2, D{9}) == 3);
  CHECK(ByteCount(DType::kInt4, D{0}) == 0);
  CHECK(ByteCount(DType::kInt4, D{kMax}) == kMax / 2 + 1);
  CHECK_FALSE(ByteCount(DType::kString, D{1}));
  CHECK_FALSE(ByteCount(DType::kUndefined, D{1}));
  CHECK_FALSE(ByteCount(static_cast<DType>(999), D{1}));
}

TEST_CASE("tensors share bytes when copied or reshaped") {
  const Tensor a = Tensor::Of<float>({2, 3}, {1, 2, 3, 4, 5, 6});
  const Tensor b = a.Reshaped({3, 2});
  CHECK(b.SharesBytesWith(a));
  CHECK(b.dims() == Dims{3, 2});
  CHECK(b.data<float>()[5] == 6);
  CHECK(reinterpret_cast<uintptr_t>(a.bytes().data()) % 64 == 0);
  CHECK_THROWS_AS(a.Reshaped({7}), InternalError);
  CHECK_THROWS_AS(a.data<double>(), InternalError);
  CHECK_FALSE(Tensor::Of<float>({2, 3}, {1, 2, 3, 4, 5, 6}).SharesBytesWith(a));
  CHECK(Tensor().empty_handle());
  CHECK(Tensor::Scalar<int64_t>(7).dims().empty());
  CHECK(Tensor::Of<float>({0, 4}, std::vector<float>{}).size() == 0);
}

TEST_CASE("a tensor never reaches past its storage") {
  const Tensor a = Tensor::Of<float>({4}, {1, 2, 3, 4});
  CHECK_THROWS_AS(Tensor::FromBytes(DType::kFloat, {5}, a.bytes()), InternalError);
  struct Four final : Storage {
    std::byte data[4] = {};
    std::span<const std::byte> bytes() const noexcept override { return data; }
  };
  const auto storage = std::make_shared<Four>();
  CHECK(Tensor(DType::kInt8, {2}, storage, 2).bytes().size() == 2);
  CHECK_THROWS_AS(Tensor(DType::kInt8, {3}, storage, 2), InternalError);
  CHECK_THROWS_AS(Tensor(DType::kInt8, {1}, storage, SIZE_MAX), InternalError);
  CHECK_THROWS_AS(Tensor(DType::kInt8, {-1}, storage), InternalError);
}

TEST_CASE("ToFloats: all 65,536 half-precision numbers") {
  std::vector<uint16_t> bits(65536);
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<uint16_t>(i);
  const std::vector<float> halves = FromValues(DType::kFloat16, {65536}, bits).ToFloats();
  int wrong = 0;
  for (int i = 0; i < 65536; ++i) {
    const float got = halves[static_cast<size_t>(i)];
    const double want = HalfByDefinition(i);
    const bool same =
        std::isnan(want) ? std::isnan(got) : got == want && std::signbit(got) == std::signbit(want);
    wrong += !same;
  }
  CHECK(wrong == 0);

  const std::vector<float> brains =
      FromValues<uint16_t>(DType::kBfloat16, {4}, {0x3F80, 0xC000, 0x7F80, 0x0001}).ToFloats();
  CHECK(brains == std::vector<float>{1, -2, INFINITY, std::ldexp(1.0f, -133)});
  CHECK(Tensor::Of<double>({2}, {0.5, -3}).ToFloats() == std::vector<float>{0.5, -3});
  CHECK_THROWS_AS(Tensor::Scalar<int8_t>(1).ToFloats(), InternalError);
}

TEST_CASE("ToInts: every integer type") {
  using I = std::vector<int64_t>;
  CHECK(Tensor::Of<int8_t>({2}, {-128, 127}).ToInts() == I{-128, 127});
  CHECK(Tensor::Of<uint8_t>({1}, {255}).ToInts() == I{255});
  CHECK(Tensor::Of<int16_t>({1}, {-32768}).ToInts() == I{-32768});
  CHECK(Tensor::Of<uint16_t>({1}, {65535}).ToInts() == I{65535});
  CHECK(Tensor::Of<int32_t>({1}, {-5}).ToInts() == I{-5});
  CHECK(Tensor::Of<uint32_t>({1}, {4294967295u}).ToInts() == I{4294967295});
  CHECK(Tensor::Of<int64_t>({1}, {-kMax}).ToInts() == I{-kMax});
  CHECK(Tensor::Of<uint64_t>({1}, {7}).ToInts() == I{7});
  CHECK(FromValues<uint8_t>(DType::kBool, {3}, {0, 1, 2}).ToInts() == I{0, 1, 1});
  // 0x8F: low nibble 15 first, high nibble 8 second.
  CHECK(FromValues<uint8_t>(DType::kInt4, {3}, {0x8F, 0x07}).ToInts() == I{-1, -8, 7});
  CHECK(FromValues<uint8_t>(DType::kUint4, {3}, {0x8F, 0x07}).ToInts() == I{15, 8, 7});
  CHECK(FromValues<uint8_t>(DType::kInt2, {5}, {0b11100100, 0b10}).ToInts() == I{0, 1, -2, -1, -2});
  CHECK(FromValues<uint8_t>(DType::kUint2, {4}, {0b11100100}).ToInts() == I{0, 1, 2, 3});
  CHECK_THROWS_AS(Tensor::Scalar<float>(1).ToInts(), InternalError);
}

TEST_CASE("conversions read unaligned bytes") {
  struct Odd final : Storage {
    alignas(8) std::byte data[17] = {};
    std::span<const std::byte> bytes() const noexcept override { return data; }
  };
  auto storage = std::make_shared<Odd>();
  const float values[2] = {1.5f, -2.5f};
  const int64_t number = -3;
  std::memcpy(storage->data + 1, values, sizeof values);
  std::memcpy(storage->data + 9, &number, sizeof number);
  CHECK(Tensor(DType::kFloat, {2}, storage, 1).ToFloats() == std::vector<float>{1.5f, -2.5f});
  CHECK(Tensor(DType::kInt64, {1}, storage, 9).ToInts() == std::vector<int64_t>{-3});
}

TEST_CASE("string tensors") {
  const Tensor tensor = Tensor::OfStrings({2}, {"a", std::string("\0b", 2)});
  CHECK(tensor.strings()[1].size() == 2);
  CHECK(tensor.bytes().empty());
  CHECK_THROWS_AS(Tensor::OfStrings({3}, {"a"}), InternalError);
  CHECK_THROWS_AS(Tensor::Scalar(1.0f).strings(), InternalError);
}

// FIPS 180-2, appendix B.
TEST_CASE("SHA-256") {
  const std::string abc = "abc";
  CHECK(Sha256Hex(std::as_bytes(std::span(abc))) ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(Sha256Hex({}) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  Sha256 pieces;
  for (const char& c : abc) pieces.Add(std::as_bytes(std::span(&c, 1)));
  CHECK(pieces.Hex() == Sha256Hex(std::as_bytes(std::span(abc))));
}

}  // namespace sparsefuse
