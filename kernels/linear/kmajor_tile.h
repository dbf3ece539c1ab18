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

  // Stored quads [first, last) of a strip's panel, their codes in a tile of R rows and their
  // weights.
  struct Span {
    const std::byte* codes;  // of the tile; dense: of its quad `first`
    const uint16_t* quad;    // sparse: [last − first]
    const std::byte *high, *low;
    int64_t quads;  // a multiple of 16
  };

  template <Reading reading, bool kSparse, int R>
  static Span MakeSpan(const std::byte* codes, const Strip& strip, int64_t first, int64_t last) {
    return {.codes = kSparse ? codes : codes + first * QuadStride(false, R),
            .quad = kSparse ? strip.quad + first : nullptr,
            .high = strip.high + first * StripBytes(reading),
            .low = strip.low + first * StripBytes(reading),
            .quads = last - first};
  }

  static constexpr int64_t kPrefetch = 2048;  // bytes ahead

  // sum += integer sums of R rows × one strip. `stored` is how the weights lie there, `reading`
  // what they mean.
  template <Reading stored, Reading reading, bool kSparse, int R>
  static void Sum(const Span& span, Int (&sum)[R][2]) {
    constexpr int kPairQuads = Ops::PairQuads(reading);
    constexpr int kChains = kPairQuads > 1 ? 1 : Ops::template kChains<R>;
    const auto load = [&span](int64_t q, Int(&w)[2]) {
      constexpr int64_t kBytes = StripBytes(stored);
      if constexpr (R <= 2 && stored != Reading::kInt8) {
        // Half as many bytes for the same work: the hardware's prefetch alone falls behind.
        __builtin_prefetch(span.high + q * kBytes + kPrefetch);
        if constexpr (stored == Reading::kNested1 || stored == Reading::kNested4) {
          __builtin_prefetch(span.low + q * kBytes + kPrefetch);
        }
      }
      WeightsTile<Ops>::template Load<stored>(span.high + q * kBytes, span.low + q * kBytes, w);
      return span.codes + (kSparse ? span.quad[q] : q) * QuadStride(kSparse, R);
    };
    Int chain[kChains][R][2];
    SPARSEFUSE_UNROLL
    for (int c = 0; c < kChains; ++c) {
      SPARSEFUSE_UNROLL
      for (int r = 0; r < R; ++r) {
        SPARSEFUSE_UNROLL
        for (int v = 0; v < 2; ++v) chain[c][r][v] = c == 0 ? sum[r][v] : Ops::Zero();
      }
    }
    if constexpr (kPairQuads > 1) {
      for (int64_t q = 0; q < span.quads; q += kPairQuads) {
        Int pairs[R][2];
        SPARSEFUSE_UNROLL
        for (int r = 0; r < R; ++r) pairs[r][0] = pairs[r][1] = Ops::Zero();
        SPARSEFUSE_ROLLED  // unrolled, products of several quads would fight for registers
            for (int i = 0; i < kPairQuads; ++i) {
          Int w[2];
          const std::byte* codes = load(q + i, w);
          Ops::template AddPairs<R>(codes, w, pairs);
        }
        SPARSEFUSE_UNROLL
        for (int r = 0; r < R; ++r) {
          SPARSEFUSE_UNROLL
          for (int v = 0; v < 2; ++v) {
            chain[0][r][v] = Ops::Add(chain[0][r][v], Ops::Widen(pairs[r][v]));
          }
        }
      }
    } else {
      for (int64_t q = 0; q < span.quads; q += kChains) {
        SPARSEFUSE_UNROLL
        for (int c = 0; c < kChains; ++c) {
          Int w[2];
          const std::byte* codes = load(q + c, w);
          Ops::template AddQuad<R>(codes, w, chain[c]);
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

  template <int R>
  static void StartSums(const int32_t* start, Int (&sum)[R][2]) {
    SPARSEFUSE_UNROLL
    for (int r = 0; r < R; ++r) {
      sum[r][0] = Ops::LoadInt(start);
      sum[r][1] = Ops::LoadInt(start + kLanes);
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

  // What the arithmetic adds for each row of a tile, over the stored quads [first, last), which are
  // scale row g.
  template <bool kSparse, int R>
  static void ReadSurplus(const KMajorJob& job, const Strip& strip, int64_t row, int64_t g,
                          int64_t first, int64_t last, int32_t (&surplus)[R]) {
    if constexpr (Ops::kRowSurplus && kSparse) {
      SumSurplus<R>(TileCodes(job, row), strip.quad, first, last, surplus);
    } else if constexpr (Ops::kRowSurplus) {
      for (int r = 0; r < R; ++r) surplus[r] = job.row_surplus[(row + r) * job.row_scale_rows + g];
    }
  }

  // Calls visit(g, first, last) for each scale row: its stored quads.
  template <typename Visit>
  static void ForEachScaleRow(const KMajorJob& job, const LinearPanel& panel, const Visit& visit) {
    const int64_t quads = panel.groups * kGroupQuads;
    if (panel.scale_rows == 1) return visit(0, 0, quads);
    const int64_t step = job.groups_per_scale * kGroupQuads;
    for (int64_t g = 0; g < panel.scale_rows; ++g) {
      const int64_t first = g * step;
      visit(g, first, first + step < quads ? first + step : quads);
    }
  }

  template <Reading reading, bool kSparse, int R>
  static void Tile(const KMajorJob& job, const Strip& strip, int64_t row) {
    const std::byte* codes = TileCodes(job, row);
    const bool one_scale_row = strip.panel.scale_rows == 1;
    Float total[R][2];
    for (int r = 0; r < R; ++r) total[r][0] = total[r][1] = Ops::Broadcast(0.0f);
    ForEachScaleRow(job, strip.panel, [&](int64_t g, int64_t first, int64_t last) {
      int32_t surplus[R] = {};
      ReadSurplus<kSparse, R>(job, strip, row, g, first, last, surplus);
      Int sum[R][2];
      StartSums<R>(strip.column_start + g * kPanelOutputs, sum);
      Sum<reading, reading, kSparse, R>(MakeSpan<reading, kSparse, R>(codes, strip, first, last),
                                        sum);
      SPARSEFUSE_UNROLL
      for (int r = 0; r < R; ++r) {
        Float product[2];
        Scale(sum[r], surplus[r], strip.scale + g * kPanelOutputs, product);
        if (one_scale_row) {
          Rows::StoreRow(job, strip.columns, row + r, product);
        } else {
          for (int v = 0; v < 2; ++v) total[r][v] = Ops::AddFloat(total[r][v], product[v]);
        }
      }
    });
    if (one_scale_row) return;
    for (int r = 0; r < R; ++r) Rows::StoreRow(job, strip.columns, row + r, total[r]);
  }

  // Calls visit.operator()<rows>(row) for each tile of the rows [first, last).
  template <typename Visit>
  static void ForEachTile(int64_t first, int64_t last, const Visit& visit) {
    for (; first + Ops::kTileRows <= last; first += Ops::kTileRows) {
      visit.template operator()<Ops::kTileRows>(first);
    }
    VisitPart<Ops::kTileRows - 1>(first, last - first, visit);
  }
  template <int R, typename Visit>
  static void VisitPart(int64_t row, int64_t rows, const Visit& visit) {
    if constexpr (R > 0) {
      if (rows == R) return visit.template operator()<R>(row);
      VisitPart<R - 1>(row, rows, visit);
    }
  }

  // --- Weights in 4 bits that many tiles read: decoded to bytes once for all of them -------------

  static constexpr int64_t kDecodedQuads = 128;  // at a time: 8 or 16 KiB
  static constexpr int64_t kDecodedTiles = 32;   // at a time

  template <Reading reading>
  static void Decode(const Strip& strip, int64_t first, int64_t last, std::byte* out) {
    constexpr int64_t kBytes = StripBytes(reading);
    for (int64_t q = first; q < last; ++q, out += StripBytes(Reading::kInt8)) {
      Int w[2];
      WeightsTile<Ops>::template Load<reading>(strip.high + q * kBytes, strip.low + q * kBytes, w);
      Ops::StoreBytes(out, w[0]);
      Ops::StoreBytes(out + 4 * kLanes, w[1]);
    }
  }

  // As Tile, for at most kDecodedTiles tiles.
  template <Reading reading, bool kSparse>
  static void DecodedTiles(const KMajorJob& job, const Strip& strip, int64_t row,
                           int64_t last_row) {
    constexpr int64_t kRows = kDecodedTiles * Ops::kTileRows;
    alignas(64) std::byte weights[kDecodedQuads * StripBytes(Reading::kInt8)];
    Int sums[kRows][2];
    Float totals[kRows][2];
    const bool one_scale_row = strip.panel.scale_rows == 1;
    for (Float(&total)[2] : totals) total[0] = total[1] = Ops::Broadcast(0.0f);
    ForEachScaleRow(job, strip.panel, [&](int64_t g, int64_t first, int64_t last) {
      StartSums<kRows>(strip.column_start + g * kPanelOutputs, sums);
      for (int64_t q = first; q < last; q += kDecodedQuads) {
        const int64_t end = q + kDecodedQuads < last ? q + kDecodedQuads : last;
        Decode<reading>(strip, q, end, weights);
        ForEachTile(row, last_row, [&]<int R>(int64_t tile) {
          Span span = MakeSpan<reading, kSparse, R>(TileCodes(job, tile), strip, q, end);
          span.high = span.low = weights;
          auto& sum = reinterpret_cast<Int(&)[R][2]>(sums[tile - row]);
          Sum<Reading::kInt8, reading, kSparse, R>(span, sum);
        });
      }
      ForEachTile(row, last_row, [&]<int R>(int64_t tile) {
        int32_t surplus[R] = {};
        ReadSurplus<kSparse, R>(job, strip, tile, g, first, last, surplus);
        for (int r = 0; r < R; ++r) {
          Float product[2];
          Scale(sums[tile - row + r], surplus[r], strip.scale + g * kPanelOutputs, product);
          if (one_scale_row) {
            Rows::StoreRow(job, strip.columns, tile + r, product);
          } else {
            Float(&total)[2] = totals[tile - row + r];
            for (int v = 0; v < 2; ++v) total[v] = Ops::AddFloat(total[v], product[v]);
          }
        }
      });
    });
    if (one_scale_row) return;
    for (int64_t r = row; r < last_row; ++r) {
      Rows::StoreRow(job, strip.columns, r, totals[r - row]);
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
    if constexpr (reading != Reading::kInt8) {
      if (last - first > Ops::kTileRows) {
        constexpr int64_t kRows = kDecodedTiles * Ops::kTileRows;
        for (; first < last; first += kRows) {
          DecodedTiles<reading, kSparse>(job, strip, first,
                                         first + kRows < last ? first + kRows : last);
        }
        return;
      }
    }
    ForEachTile(first, last,
                [&]<int R>(int64_t row) { Tile<reading, kSparse, R>(job, strip, row); });
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
