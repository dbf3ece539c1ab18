#include "tests/kernels/emulated_vnni.h"

#include "kernels/linear/kmajor_tile.h"
#include "kernels/linear/offset_codes.h"
#include "tests/kernels/emulated_lanes.h"

namespace sparsefuse::test {
namespace {

struct Emulated : EmulatedLanes, OffsetCodes<Emulated> {
  static constexpr int kTileRows = 12;
  template <int R>
  static constexpr int kChains = R == 1   ? 4
                                 : R == 2 ? 2
                                          : 1;
  static constexpr bool Takes(Encoding) { return true; }
  static constexpr int PairQuads(Reading) { return 1; }

  // vpmovdb: the low byte of each lane.
  static void StoreOffsetBytes(const Int (&codes)[2], std::byte* p) {
    for (const Int& v : codes) {
      for (int i = 0; i < kLanes; ++i) *p++ = static_cast<std::byte>((v[i] + 128) & 0xff);
    }
  }
};

constexpr KMajorIsas kIsas = {.any = kKMajorIsa<Emulated>, .bounded = kKMajorIsa<Emulated>};

}  // namespace

constinit const LinearKernel kEmulatedVnni = KMajorKernel<kIsas>::Make("emulated avx512vnni", {});

}  // namespace sparsefuse::test
