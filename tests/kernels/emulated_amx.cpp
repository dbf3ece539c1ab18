#include "tests/kernels/emulated_amx.h"

#include <array>
#include <cstdio>
#include <cstdlib>

#include "kernels/linear/amx_tile.h"
#include "tests/kernels/emulated_lanes.h"

namespace sparsefuse::test {
namespace {

constexpr int64_t kLines = 16, kLineBytes = 64;

// A thread's tile registers. They are lost, and may not be touched, outside BeginTiles … EndTiles.
struct TileUnit {
  using Tile = std::array<std::array<std::byte, kLineBytes>, kLines>;
  bool ready = false;
  std::array<Tile, 8> tiles;
};
thread_local TileUnit unit;

[[noreturn]] void Fail(const char* what) {  // as the instruction's fault would
  std::fprintf(stderr, "emulated AMX: %s\n", what);
  std::abort();
}

template <typename T>
T Element(const TileUnit::Tile& tile, int64_t line, int64_t i) {
  T value;
  std::memcpy(&value, tile[static_cast<size_t>(line)].data() + i * int64_t{sizeof(T)},
              sizeof value);
  return value;
}

struct Emulated : EmulatedLanes {
  static void BeginTiles() {
    if (unit.ready) Fail("configured twice");
    unit.ready = true;
    for (TileUnit::Tile& tile : unit.tiles) {
      for (auto& line : tile) line.fill(std::byte{0x5a});  // unlike the hardware, to show a sum
    }                                                      // that nobody zeroed
  }
  static void EndTiles() {
    if (!unit.ready) Fail("released twice");
    unit.ready = false;
  }

  template <int tile>
  static TileUnit::Tile& Get() {
    static_assert(tile >= 0 && tile < 8);
    if (!unit.ready) Fail("not configured");
    return unit.tiles[tile];
  }
  template <int tile>
  static void ZeroTile() {
    for (auto& line : Get<tile>()) line.fill(std::byte{0});
  }
  template <int tile>
  static void LoadTile(const void* first_line, int64_t line_bytes) {
    const auto* p = static_cast<const std::byte*>(first_line);
    for (auto& line : Get<tile>()) {
      std::memcpy(line.data(), p, kLineBytes);
      p += line_bytes;
    }
  }
  template <int tile>
  static void StoreTile(void* first_line, int64_t line_bytes) {
    auto* p = static_cast<std::byte*>(first_line);
    for (const auto& line : Get<tile>()) {
      std::memcpy(p, line.data(), kLineBytes);
      p += line_bytes;
    }
  }
  // tdpbssd: sums[m][n] += Σ over k and four bytes of a[m][k]·b[k][n]; wraps.
  template <int sums, int a, int b>
  static void DotTiles() {
    static_assert(sums != a && sums != b && a != b, "the instruction faults");
    for (int64_t m = 0; m < kLines; ++m) {
      Int line = Element<Int>(Get<sums>(), m, 0);
      for (int64_t k = 0; k < kLines; ++k) {
        const Int quads = Element<Int>(Get<b>(), k, 0);
        for (int i = 0; i < 4; ++i) {
          const int factor = Element<int8_t>(Get<a>(), m, 4 * k + i);
          const Int bytes = FromBits(Bits(quads) << (24 - 8 * i)) >> 24;
          line = Add(line, factor * bytes);
        }
      }
      std::memcpy(Get<sums>()[static_cast<size_t>(m)].data(), &line, kLineBytes);
    }
  }

  static void Prefetch(const std::byte*) {}
  static int32_t ReduceAdd(const Int& v) {
    uint32_t sum = 0;
    for (int i = 0; i < kLanes; ++i) sum += Bits(v)[i];
    return std::bit_cast<int32_t>(sum);
  }
  static Int GatherQuads(const std::byte* quads, const uint16_t* index) {
    return Map<Int>([=](int i) {
      int32_t quad;
      std::memcpy(&quad, quads + 4 * index[i], sizeof quad);
      return quad;
    });
  }
  // vpackssdw, vpacksswb: saturating.
  static Int PackBytes(const Int (&first)[2], const Int (&second)[2]) {
    std::array<int8_t, 64> bytes;
    auto* out = bytes.data();
    for (const Int* v : {&first[0], &first[1], &second[0], &second[1]}) {
      for (int i = 0; i < kLanes; ++i) {
        *out++ = static_cast<int8_t>(std::clamp<int32_t>((*v)[i], -128, 127));
      }
    }
    return std::bit_cast<Int>(bytes);
  }
  static void Transpose(Int (&line)[16]) {
    for (int i = 0; i < 16; ++i) {
      for (int j = 0; j < i; ++j) {
        const int32_t lane = line[i][j];
        line[i][j] = line[j][i];
        line[j][i] = lane;
      }
    }
  }
};

}  // namespace

constinit const LinearKernel kEmulatedAmx = AmxKernel<kAmxIsa<Emulated>>::Make("emulated amx", {});

}  // namespace sparsefuse::test
