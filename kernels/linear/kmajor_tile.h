// The functions of a KMajorIsa, written once over the vector operations of an instruction set. For
// files compiled for that instruction set, and for the tests, which run the same code over a
// portable imitation of those operations.
//
// Everything is a template on Ops, and Ops lives in an unnamed namespace, so no function made here
// is ever shared with code for another instruction set. For the same reason: no std functions.
//
// How data moves: a strip is 2·kLanes outputs of a panel. For each quad of inputs its weights are
// read once (and decoded, when they lie in 4 bits) into two vectors; every row of the tile brings
// its four codes as one broadcast and adds its products to two vectors of 32-bit sums, which stay
// in registers over all quads of a scale row. A sparse panel takes the codes from where its list of
// quads says. Sums become floats at the end of a scale row.
//
// Ops:
//   kLanes        32-bit lanes of a vector       kTileRows  rows of a full tile
//   kQuadBytes    a row's quad when packed
//   kChains<R>    independent sums that R rows need to hide latency; 1, 2 or 4
//   Takes(encoding) whether its weights are multiplied here (KMajorIsas)
//   kRowSurplus   whether the arithmetic adds something for the row: row_surplus, and per quad
//                 kSurplusBytes behind the codes of a sparse tile's quad
//   kColumnFactor of KMajorIsa
//   PairQuads(reading) how many quads' products add up in 16 bits before they are widened; 1: none
//   Float, Int    vectors; the functions are named after what they do, see avx2.cpp

#ifndef SPARSEFUSE_KERNELS_LINEAR_KMAJOR_TILE_H_
#define SPARSEFUSE_KERNELS_LINEAR_KMAJOR_TILE_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/linear/kmajor.h"
#include "kernels/linear/rows_tile.h"
#include "kernels/linear/unroll.h"
#include "kernels/linear/weights_tile.h"

namespace sparsefuse {

template <class Ops>
struct KMajorTile {
  using Float = typename Ops::Float;
  using Int = typename Ops::Int;
  using Rows = RowsTile<Ops>;
  using Row = typename Rows::Row;

  static constexpr int64_t kLanes = Ops::kLanes;
  static constexpr int64_t kStripOutputs = 2 * kLanes;
  static constexpr int64_t kStrips = kPanelOutputs / kStripOutputs;  // of a panel

  // --- Activations ------------------------------------------------------------------------------

  // Codes of one row into its place in the tile.
  template <bool kSmooth, typename Element>
  static void EncodeRow(const KMajorJob& job, const Row& row, float s, std::byte* out,
                        int64_t stride, int32_t* surplus) {
    const Float divisor = Ops::Broadcast(s);
    const int64_t step = job.quad ? job.quads : job.groups_per_scale * kGroupQuads;
    for (int64_t first = 0; first < job.quads; first += step) {
      const int64_t end = 4 * (first + step < job.quads ? first + step : job.quads);
      Int sum = Ops::Zero();
      for (int64_t k = 4 * first; k < end; k += Rows::kChunk) {
        Int codes[2];
        Rows::template Encode<kSmooth, Element>(row, k, divisor, codes);
        sum = Ops::StoreCodes(codes, out + k / 4 * stride, stride, sum);
      }
      if constexpr (Ops::kRowSurplus) {
        if (!job.quad) *surplus++ = Ops::ReduceSurplus(sum);
      }
    }
  }

  static constexpr int64_t QuadStride(bool sparse, int64_t rows) {
    return rows * Ops::kQuadBytes + (sparse ? Ops::kSurplusBytes : 0);
  }

  // Codes of the tile that starts with this row.
  static std::byte* TileCodes(const KMajorJob& job, int64_t row) {
    int64_t bytes = row * Ops::kQuadBytes;
    if (job.quad) {
      const int64_t easy_tiles = (job.easy + Ops::kTileRows - 1) / Ops::kTileRows;
      const int64_t tiles =
          row < job.easy ? row / Ops::kTileRows : easy_tiles + (row - job.easy) / Ops::kTileRows;
      bytes += tiles * Ops::kSurplusBytes;
    }
    return job.codes + bytes * job.quads;
  }

  template <bool kSmooth, typename Element>
  static void QuantizeTile(const KMajorJob& job, int64_t first, int64_t rows) {
    Rows::template ScaleRows<kSmooth, Element>(job, first, first + rows);
    std::byte* codes = TileCodes(job, first);
    const int64_t stride = QuadStride(job.quad, rows);
    for (int64_t r = 0; r < rows; ++r) {
      EncodeRow<kSmooth, Element>(job, Rows::template At<Element>(job, first + r),
                                  job.row_scale[first + r], codes + r * Ops::kQuadBytes, stride,
                                  job.row_surplus + (first + r) * job.row_scale_rows);
    }
    if constexpr (Ops::kRowSurplus) {
      for (int64_t q = 0; job.quad && q < job.quads; ++q) {
        Ops::StoreSurplus(codes + q * stride, rows);
      }
    }
  }

  template <typename Element>
  static void QuantizeElements(const KMajorJob& job, int64_t first, int64_t last) {
    while (first < last) {
      const int64_t end = first < job.easy && job.easy < last ? job.easy : last;
      const int64_t rows = end - first < Ops::kTileRows ? end - first : Ops::kTileRows;
      job.smooth ? QuantizeTile<true, Element>(job, first, rows)
                 : QuantizeTile<false, Element>(job, first, rows);
      first += rows;
    }
  }
  static void Quantize(const KMajorJob& job, int64_t first, int64_t last) noexcept {
    job.half ? QuantizeElements<uint16_t>(job, first, last)
             : QuantizeElements<float>(job, first, last);
  }

  // --- Products ---------------------------------------------------------------------------------

  // Weights of one strip, quad and plane.
  static constexpr int64_t StripBytes(Reading reading) {
    return reading == Reading::kInt8 ? 4 * kStripOutputs : 2 * kStripOutputs;
  }

  // One strip of a panel.
  struct Strip {
    const LinearPanel& panel;
    const uint16_t* quad;         // the panel's; null: dense
    const std::byte *high, *low;  // weights
    const float* scale;           // of the first scale row, the next kPanelOutputs further
    const int32_t* column_start;  // likewise
    typename Rows::Columns columns;
  };

  // Integer sums of R rows × one strip over the stored quads [first, last) of the panel.
  template <Reading reading, bool kSparse, int R>
  static void Sum(const std::byte* codes, const Strip& strip, int64_t first, int64_t last,
                  const int32_t* start, Int (&sum)[R][2]) {
    constexpr int kChains = Ops::template kChains<R>;
    constexpr int64_t kStride = QuadStride(kSparse, R);
    constexpr int64_t kBytes = StripBytes(reading);
    Int chain[kChains][R][2];
    SPARSEFUSE_UNROLL
    for (int c = 0; c < kChains; ++c) {
      SPARSEFUSE_UNROLL
      for (int r = 0; r < R; ++r) {
        chain[c][r][0] = c == 0 ? Ops::LoadInt(start) : Ops::Zero();
        chain[c][r][1] = c == 0 ? Ops::LoadInt(start + kLanes) : Ops::Zero();
      }
    }
    const auto load = [&](int64_t q, Int(&w)[2]) {
      WeightsTile<Ops>::template Load<reading>(strip.high + q * kBytes, strip.low + q * kBytes, w);
      return codes + (kSparse ? strip.quad[q] : q) * kStride;
    };
    constexpr int kPairQuads = Ops::PairQuads(reading);
    constexpr int kStep = kPairQuads > 1 ? kPairQuads : kChains;
    for (int64_t q = first; q < last; q += kStep) {  // a multiple of 16 quads
      if constexpr (kPairQuads > 1) {
        Int pairs[R][2];
        SPARSEFUSE_UNROLL
        for (int i = 0; i < kPairQuads; ++i) {
          Int w[2];
          const std::byte* quad = load(q + i, w);
          Ops::template PairQuad<R>(quad, w, i == 0, pairs);
        }
        SPARSEFUSE_UNROLL
        for (int r = 0; r < R; ++r) {
          for (int v = 0; v < 2; ++v)
            chain[0][r][v] = Ops::Add(chain[0][r][v], Ops::Widen(pairs[r][v]));
        }
      } else {
        SPARSEFUSE_UNROLL
        for (int c = 0; c < kChains; ++c) {
          Int w[2];
          const std::byte* quad = load(q + c, w);
          Ops::template AddQuad<R>(quad, w, chain[c]);
        }
      }
    }
    SPARSEFUSE_UNROLL
    for (int r = 0; r < R; ++r) {
      SPARSEFUSE_UNROLL
      for (int v = 0; v < 2; ++v) {
        sum[r][v] = chain[0][r][v];
        SPARSEFUSE_UNROLL
        for (int c = 1; c < kChains; ++c) sum[r][v] = Ops::Add(sum[r][v], chain[c][r][v]);
      }
    }
  }

  // What the arithmetic adds for each of R rows over stored quads of a sparse panel.
  template <int R>
  static void SumSurplus(const std::byte* codes, const uint16_t* quad, int64_t first, int64_t last,
                         int32_t (&surplus)[R]) {
    constexpr int64_t kStride = QuadStride(true, R);
    auto sum = Ops::NoSurplus();
    for (int64_t q = first; q < last; ++q) {
      sum = Ops::AddSurplus(sum, codes + quad[q] * kStride + R * Ops::kQuadBytes);
    }
    Ops::template StoreSurplusSums<R>(sum, surplus);
  }

  // scale · (integer sum − row surplus) of one row and scale row.
  static void Scale(const Int (&sum)[2], int32_t surplus, const float* scale, Float (&product)[2]) {
    SPARSEFUSE_UNROLL
    for (int v = 0; v < 2; ++v) {
      const Int t = Ops::kRowSurplus ? Ops::Subtract(sum[v], surplus) : sum[v];
      product[v] = Ops::Multiply(Ops::ToFloat(t), Ops::Load(scale + v * kLanes));
    }
  }

  template <Reading reading, bool kSparse, int R>
  static void Tile(const KMajorJob& job, const Strip& strip, int64_t row) {
    const std::byte* codes = TileCodes(job, row);
    const int64_t quads = strip.panel.groups * kGroupQuads;
    int32_t surplus[R] = {};
    const auto read_surplus = [&](int64_t g, int64_t first, int64_t last) {
      if constexpr (!Ops::kRowSurplus) {
        return;
      } else if constexpr (kSparse) {
        SumSurplus<R>(codes, strip.quad, first, last, surplus);
      } else {
        for (int r = 0; r < R; ++r)
          surplus[r] = job.row_surplus[(row + r) * job.row_scale_rows + g];
      }
    };
    Int sum[R][2];
    if (strip.panel.scale_rows == 1) {
      read_surplus(0, 0, quads);
      Sum<reading, kSparse, R>(codes, strip, 0, quads, strip.column_start, sum);
      SPARSEFUSE_UNROLL
      for (int r = 0; r < R; ++r) {
        Float product[2];
        Scale(sum[r], surplus[r], strip.scale, product);
        Rows::StoreRow(job, strip.columns, row + r, product);
      }
      return;
    }
    Float total[R][2];
    for (int r = 0; r < R; ++r) total[r][0] = total[r][1] = Ops::Broadcast(0.0f);
    for (int64_t g = 0; g < strip.panel.scale_rows; ++g) {
      const int64_t first = g * job.groups_per_scale * kGroupQuads;
      const int64_t end = first + job.groups_per_scale * kGroupQuads;
      const int64_t last = end < quads ? end : quads;
      read_surplus(g, first, last);
      Sum<reading, kSparse, R>(codes, strip, first, last, strip.column_start + g * kPanelOutputs,
                               sum);
      for (int r = 0; r < R; ++r) {
        Float product[2];
        Scale(sum[r], surplus[r], strip.scale + g * kPanelOutputs, product);
        for (int v = 0; v < 2; ++v) total[r][v] = Ops::AddFloat(total[r][v], product[v]);
      }
    }
    for (int r = 0; r < R; ++r) Rows::StoreRow(job, strip.columns, row + r, total[r]);
  }

  // The last tile, of `rows` < kTileRows rows.
  template <Reading reading, bool kSparse, int R>
  static void PartTile(const KMajorJob& job, const Strip& strip, int64_t row, int64_t rows) {
    if constexpr (R > 0) {
      if (rows == R) return Tile<reading, kSparse, R>(job, strip, row);
      PartTile<reading, kSparse, R - 1>(job, strip, row, rows);
    }
  }

  static Strip MakeStrip(const KMajorJob& job, Reading reading, int64_t index) {
    const int64_t panel = index / kStrips, lane = index % kStrips * kStripOutputs;
    const LinearPanel& p = job.panel[panel];
    const int64_t scale = p.scale_row * kPanelOutputs + lane;
    const int64_t output = panel * kPanelOutputs + lane;
    const std::byte* high = job.weight + (p.group * kStrips + index % kStrips * p.groups) *
                                             kGroupQuads * StripBytes(reading);
    const bool high_only = reading == Reading::kNested1High || reading == Reading::kNested4High;
    return {.panel = p,
            .quad = job.quad ? job.quad + p.group * kGroupQuads : nullptr,
            .high = high,
            .low = high + job.plane_bytes,
            .scale = job.scale + scale,
            .column_start = (high_only ? job.high_column_start : job.column_start) + scale,
            .columns = {.bias = job.bias + output,
                        .first = output,
                        .count = job.outputs - output < kStripOutputs ? job.outputs - output
                                                                      : kStripOutputs}};
  }

  template <Reading reading, bool kSparse>
  static void MultiplyStrip(const KMajorJob& job, int64_t first, int64_t last, int64_t index) {
    const Strip strip = MakeStrip(job, reading, index);
    for (; first + Ops::kTileRows <= last; first += Ops::kTileRows) {
      Tile<reading, kSparse, Ops::kTileRows>(job, strip, first);
    }
    PartTile<reading, kSparse, Ops::kTileRows - 1>(job, strip, first, last - first);
  }

  // Easy rows read the high plane only, the others both; strip by strip, so that what both read is
  // still in the cache.
  template <Reading reading, Reading high, bool kSparse>
  static void MultiplyAs(const KMajorJob& job, int64_t first, int64_t last, int64_t first_panel,
                         int64_t last_panel) {
    const int64_t easy = job.easy < first ? first : job.easy > last ? last : job.easy;
    for (int64_t i = first_panel * kStrips; i < last_panel * kStrips; ++i) {
      if (i * kStripOutputs >= job.outputs) return;
      if constexpr (high != reading) {
        if (first < easy) MultiplyStrip<high, kSparse>(job, first, easy, i);
      }
      if (easy < last) MultiplyStrip<reading, kSparse>(job, easy, last, i);
    }
  }

  static void Multiply(const KMajorJob& job, int64_t first, int64_t last, int64_t first_panel,
                       int64_t last_panel) noexcept {
    WeightsTile<Ops>::ForEncoding(
        job.encoding, [&]<Encoding encoding, Reading reading, Reading high>() {
          if constexpr (Ops::Takes(encoding)) {
            job.quad ? MultiplyAs<reading, high, true>(job, first, last, first_panel, last_panel)
                     : MultiplyAs<reading, high, false>(job, first, last, first_panel, last_panel);
          }
        });
  }

  // --- Preparation, plain code ------------------------------------------------------------------

  // To [strips][quads of the panel][strip bytes].
  static void Repack(Encoding encoding, const std::byte* panel, int64_t groups,
                     std::byte* out) noexcept {
    for (int64_t strip = 0; strip < kStrips; ++strip) {
      for (int64_t quad = 0; quad < groups * kGroupQuads; ++quad) {
        const std::byte* group = panel + quad / kGroupQuads * PlaneBytes(encoding);
        const std::byte* first = group + quad % kGroupQuads * 4;
        if (encoding == Encoding::kInt8) {
          for (int64_t n = 0; n < kStripOutputs; ++n, out += 4) {
            memcpy(out, first + (strip * kStripOutputs + n) * kGroupInputs, 4);
          }
          continue;
        }
        const auto nibble = [first](int64_t output, int64_t k) {
          const std::byte b = first[output % 16 * kGroupInputs + k];
          return (output < 16 ? b : b >> 4) & std::byte{15};
        };
        for (int64_t n = strip * kStripOutputs; n < strip * kStripOutputs + kLanes; ++n) {
          for (int64_t k = 0; k < 4; ++k) *out++ = nibble(n, k) | nibble(n + kLanes, k) << 4;
        }
      }
    }
  }
};

template <class Ops>
inline constexpr KMajorIsa kKMajorIsa = {.tile_rows = Ops::kTileRows,
                                         .quad_bytes = Ops::kQuadBytes,
                                         .surplus_bytes = Ops::kSurplusBytes,
                                         .column_factor = Ops::kColumnFactor,
                                         .repack = KMajorTile<Ops>::Repack,
                                         .quantize = KMajorTile<Ops>::Quantize,
                                         .multiply = KMajorTile<Ops>::Multiply};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_LINEAR_KMAJOR_TILE_H_
