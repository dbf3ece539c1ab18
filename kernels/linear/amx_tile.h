// The functions of an AmxIsa, written once over operations of the tile unit and of 16-lane vectors:
// for amx.cpp, and for the tests, which run the same code over a portable imitation. Everything is
// a template on Ops, and no std functions, for the reason that kmajor_tile.h gives.
//
// How data moves. A tile is 16 lines of 64 bytes. Of a group of layout 1 (32 outputs × 64 inputs)
// int8 weights are two tiles as they lie in the file; planes of nibbles are decoded into two. The
// other factor is 16 lines, one for each quad of the group, of the quads of 16 rows; the product is
// 16 outputs × 16 rows of 32-bit sums, signed × signed, with nothing to correct:
//
//        64 bytes: 16 quads of an output     64 bytes: a quad of 16 rows     16 sums of an output
//   output 0 ▮▮▮▮▮▮▮▮▮▮▮▮▮▮▮▮            quad  0 ▮▮▮▮▮▮▮▮▮▮▮▮▮▮▮▮          output  0 ▮▮▮▮▮▮▮▮▮▮▮▮
//     …                            ×       …                           =      …
//         15 ▮▮▮▮▮▮▮▮▮▮▮▮▮▮▮▮               15 ▮▮▮▮▮▮▮▮▮▮▮▮▮▮▮▮                15 ▮▮▮▮▮▮▮▮▮▮▮▮
//
// A block of 32 rows keeps 2 × 2 tiles of sums over the groups of a scale row: four products for
// four loads. A block of at most 16 rows has one tile of rows; even and odd groups then have sums
// of their own, or each product would wait for the one before. Where a sparse panel does not list
// 16 neighbours, the lines of its quads are copied together first, and, like decoding, one group
// ahead of the tile unit. Blocks of rows that share a panel decode it once: the first one does, as
// it goes, and the sums of all wait in memory where a panel has more groups than that buffer. At
// the end of a scale row the sums are turned over, 16 × 16, to outputs side by side, and become
// floats.
//
// At most four rows are multiplied without the tile unit instead: amx_dots.h.
//
// Ops: besides those of kmajor_tile.h's Float and Int, with kLanes = 16,
//   Transpose       16 vectors as the lines of a matrix of lanes
//   PackBytes       the low bytes of 64 lanes, signed and small, in order
//   GatherQuads     the dwords that 16 numbers index
//   ReduceAdd       the sum of all lanes
//   Prefetch        one line, anywhere
//   BeginTiles, EndTiles   round the others, on one thread
//   ZeroTile, LoadTile, StoreTile, DotTiles   on tiles by number, 0 … 7

#ifndef SPARSEFUSE_KERNELS_LINEAR_AMX_TILE_H_
#define SPARSEFUSE_KERNELS_LINEAR_AMX_TILE_H_

#include <cstddef>
#include <cstdint>

#include "kernels/linear/amx_dots.h"
#include "kernels/linear/amx_driver.h"
#include "kernels/linear/amx_panel.h"
#include "kernels/linear/rows_tile.h"
#include "kernels/linear/weights_tile.h"

namespace sparsefuse {

template <class Ops>
struct AmxTile {
  using Float = typename Ops::Float;
  using Int = typename Ops::Int;
  using Rows = RowsTile<Ops>;
  using Row = typename Rows::Row;
  using Panels = AmxPanel<Ops>;
  using Panel = typename Panels::Panel;

  static constexpr int64_t kLanes = Ops::kLanes;
  static_assert(kLanes == 16 && kAmxTileRows == kLanes && kGroupQuads == kLanes &&
                kPanelOutputs == 2 * kLanes);
  static constexpr int64_t kTileLine = Panels::kTileLine;
  static constexpr int64_t kTileBytes = Panels::kTileBytes;

  // --- Activations ------------------------------------------------------------------------------

  // Codes of 16 quads from input k on.
  template <bool kSmooth, typename Element>
  static Int EncodeGroup(const AmxJob& job, int64_t row, int64_t k) {
    const Row x = Rows::template At<Element>(job, row);
    const Float s = Ops::Broadcast(job.row_scale[row]);
    Int first[2], second[2];
    Rows::template Encode<kSmooth, Element>(x, k, s, first);
    Rows::template Encode<kSmooth, Element>(x, k + Rows::kChunk, s, second);
    return Ops::PackBytes(first, second);
  }

  // `rows` ≤ 16 rows into one tile's place in the lines of a block.
  template <bool kSmooth, typename Element>
  static void EncodeTile(const AmxJob& job, int64_t first, int64_t rows, std::byte* out,
                         int64_t line_bytes) {
    for (int64_t quad = 0; quad < job.quads; quad += kGroupQuads) {
      Int line[kLanes];
      for (int64_t r = 0; r < kLanes; ++r) {
        line[r] = r < rows ? EncodeGroup<kSmooth, Element>(job, first + r, 4 * quad) : Ops::Zero();
      }
      Ops::Transpose(line);
      for (int64_t q = 0; q < kGroupQuads; ++q, out += line_bytes) Ops::StoreBytes(out, line[q]);
    }
  }

  template <bool kSmooth, typename Element>
  static void QuantizeBlock(const AmxJob& job, const AmxBlock& block) {
    Rows::template ScaleRows<kSmooth, Element>(job, block.first, block.first + block.rows);
    if (block.rows <= kAmxDotRows) {
      std::byte* out = block.codes;
      for (int64_t r = block.first; r < block.first + block.rows; ++r) {
        for (int64_t k = 0; k < 4 * job.quads; k += kGroupInputs, out += kGroupInputs) {
          Ops::StoreBytes(out, EncodeGroup<kSmooth, Element>(job, r, k));
        }
      }
      return;
    }
    const int64_t tiles = block.rows > kAmxTileRows ? 2 : 1;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t begin = t * kAmxTileRows, rest = block.rows - begin;
      EncodeTile<kSmooth, Element>(job, block.first + begin, rest < kLanes ? rest : kLanes,
                                   block.codes + t * kTileLine, tiles * kTileLine);
    }
  }

  template <typename Element>
  static void QuantizeBlocks(const AmxJob& job, int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      job.smooth ? QuantizeBlock<true, Element>(job, job.block[b])
                 : QuantizeBlock<false, Element>(job, job.block[b]);
    }
  }
  static void Quantize(const AmxJob& job, int64_t first, int64_t last) noexcept {
    job.half ? QuantizeBlocks<uint16_t>(job, first, last) : QuantizeBlocks<float>(job, first, last);
  }

  // --- Products by tiles ------------------------------------------------------------------------

  static constexpr int64_t kRing = 4;            // groups
  static constexpr int64_t kDecodedGroups = 32;  // of a panel, for several blocks

  // On the stack of a task: 104 KiB.
  struct Scratch {
    alignas(64) std::byte weights[kDecodedGroups][2 * kTileBytes];
    std::byte lines[kRing][2 * kTileBytes];
    int32_t sums[kAmxSharedBlocks][4][kLanes * kLanes];  // tile 2·(half of the outputs) + part
    float totals[kAmxSharedBlocks][kAmxBlockRows][kPanelOutputs];
  };

  // Groups [first, last) of a scale row, as one block multiplies them.
  struct Span {
    int64_t first, last;
    bool begins;   // the scale row
    bool decodes;  // into `slots` slots of the scratch; else that is done
    int64_t slots;
  };

  static bool IsRun(const uint16_t* quad) {  // ascending; only padding, at the end, repeats
    return quad[15] - quad[0] == 15 && quad[14] != quad[15];
  }

  // Makes ready what the tile unit reads of a group.
  template <Reading reading, bool kSparse, int64_t kLine>
  static void MakeReady(const Panel& panel, const std::byte* codes, const Span& span, int64_t group,
                        Scratch& scratch) {
    if (span.decodes) {
      for (int64_t r = 0; r < kLanes; ++r) {
        if constexpr (reading == Reading::kInt8) {
          const std::byte* next =
              panel.high + group * Panels::StoredBytes(reading) + r * kTileLine + Panels::kAhead;
          Ops::Prefetch(next);
          Ops::Prefetch(next + kTileBytes);
        } else {
          Int w[2];
          Panels::template LoadOutputs<reading>(panel, group, r, w);
          std::byte* out = scratch.weights[group % span.slots] + r * kTileLine;
          Ops::StoreBytes(out, w[0]);
          Ops::StoreBytes(out + kTileBytes, w[1]);
        }
      }
    }
    if constexpr (kSparse) {
      const uint16_t* quad = panel.quad + group * kGroupQuads;
      if (IsRun(quad)) return;
      std::byte* out = scratch.lines[group % kRing];
      for (int64_t q = 0; q < kGroupQuads; ++q) {
        const std::byte* line = codes + quad[q] * kLine;
        for (int64_t i = 0; i < kLine; i += kTileLine, out += kTileLine) {
          Ops::StoreBytes(out, Ops::LoadBytes(line + i));
        }
      }
    }
  }

  template <Reading reading, bool kSparse, int64_t kLine>
  static void AddSpan(const Panel& panel, const std::byte* codes, const Span& span,
                      Scratch& scratch, int32_t (*sums)[kLanes * kLanes]) {
    if (span.begins) {
      Ops::template ZeroTile<0>();
      Ops::template ZeroTile<1>();
      Ops::template ZeroTile<2>();
      Ops::template ZeroTile<3>();
    } else {
      Ops::template LoadTile<0>(sums[0], kTileLine);
      Ops::template LoadTile<1>(sums[1], kTileLine);
      Ops::template LoadTile<2>(sums[2], kTileLine);
      Ops::template LoadTile<3>(sums[3], kTileLine);
    }
    MakeReady<reading, kSparse, kLine>(panel, codes, span, span.first, scratch);
    for (int64_t group = span.first; group < span.last; ++group) {
      if (group + 1 < span.last) {
        MakeReady<reading, kSparse, kLine>(panel, codes, span, group + 1, scratch);
      }
      const std::byte* weights = reading == Reading::kInt8
                                     ? panel.high + group * Panels::StoredBytes(reading)
                                     : scratch.weights[group % span.slots];
      const std::byte* lines = codes + group * kGroupQuads * kLine;
      if constexpr (kSparse) {
        const uint16_t* quad = panel.quad + group * kGroupQuads;
        lines = IsRun(quad) ? codes + quad[0] * kLine : scratch.lines[group % kRing];
      }
      Ops::template LoadTile<4>(weights, kTileLine);
      Ops::template LoadTile<6>(lines, kLine);
      if constexpr (kLine == 2 * kTileLine) {
        Ops::template DotTiles<0, 4, 6>();
        Ops::template LoadTile<7>(lines + kTileLine, kLine);
        Ops::template DotTiles<1, 4, 7>();
        Ops::template LoadTile<5>(weights + kTileBytes, kTileLine);
        Ops::template DotTiles<2, 5, 6>();
        Ops::template DotTiles<3, 5, 7>();
      } else {
        Ops::template LoadTile<5>(weights + kTileBytes, kTileLine);
        if (group % 2 == 0) {
          Ops::template DotTiles<0, 4, 6>();
          Ops::template DotTiles<2, 5, 6>();
        } else {
          Ops::template DotTiles<1, 4, 6>();
          Ops::template DotTiles<3, 5, 6>();
        }
      }
    }
    Ops::template StoreTile<0>(sums[0], kTileLine);
    Ops::template StoreTile<1>(sums[1], kTileLine);
    Ops::template StoreTile<2>(sums[2], kTileLine);
    Ops::template StoreTile<3>(sums[3], kTileLine);
  }

  // The sums of scale row g of one block, row by row.
  static void EndScaleRow(const AmxJob& job, const Panel& panel, const AmxBlock& block, int64_t g,
                          const int32_t (*sums)[kLanes * kLanes], float (*totals)[kPanelOutputs]) {
    const bool wide = block.rows > kAmxTileRows;
    for (int64_t part = 0; part < (wide ? 2 : 1); ++part) {
      Int sum[2][kLanes];
      for (int64_t half = 0; half < 2; ++half) {
        for (int64_t i = 0; i < kLanes; ++i) {
          sum[half][i] = Ops::LoadInt(sums[2 * half + part] + i * kLanes);
          if (!wide) {  // even and odd groups
            sum[half][i] = Ops::Add(sum[half][i], Ops::LoadInt(sums[2 * half + 1] + i * kLanes));
          }
        }
        Ops::Transpose(sum[half]);
      }
      const int64_t begin = part * kLanes, rest = block.rows - begin;
      for (int64_t r = 0; r < (rest < kLanes ? rest : kLanes); ++r) {
        Panels::AddScaleRow(job, panel, g, {sum[0][r], sum[1][r]}, block.first + begin + r,
                            totals[begin + r]);
      }
    }
  }

  template <Reading reading, bool kSparse>
  static void MultiplyTiles(const AmxJob& job, const Panel& panel, int64_t first, int64_t last,
                            Scratch& scratch) {
    const bool keeps = reading != Reading::kInt8 && last - first > 1;  // decoded weights
    const int64_t step = keeps ? kDecodedGroups : panel.place.groups;
    for (int64_t g = 0; g < panel.place.scale_rows; ++g) {
      const int64_t begin = g * panel.groups_per_scale, next = begin + panel.groups_per_scale;
      const int64_t end = next < panel.place.groups ? next : panel.place.groups;
      for (int64_t group = begin; group < end; group += step) {
        for (int64_t b = first; b < last; ++b) {
          const Span span = {.first = group,
                             .last = group + step < end ? group + step : end,
                             .begins = group == begin,
                             .decodes = b == first,
                             .slots = keeps ? kDecodedGroups : kRing};
          const AmxBlock& block = job.block[b];
          auto* sums = scratch.sums[b - first];
          if (block.rows > kAmxTileRows) {
            AddSpan<reading, kSparse, 2 * kTileLine>(panel, block.codes, span, scratch, sums);
          } else {
            AddSpan<reading, kSparse, kTileLine>(panel, block.codes, span, scratch, sums);
          }
        }
      }
      for (int64_t b = first; b < last; ++b) {
        EndScaleRow(job, panel, job.block[b], g, scratch.sums[b - first],
                    scratch.totals[b - first]);
      }
    }
  }

  // --- Both -------------------------------------------------------------------------------------

  // Blocks [first, last), all read alike. Only the last can be of few rows.
  template <Reading reading, bool kSparse>
  static void MultiplyPanel(const AmxJob& job, const Panel& panel, int64_t first, int64_t last,
                            Scratch& scratch) {
    if (first == last) return;
    if (panel.place.groups == 0) return Panels::StoreEmpty(job, panel, first, last);
    const AmxBlock& tail = job.block[last - 1];
    if (tail.rows <= kAmxDotRows) {
      AmxDots<Ops>::template Multiply<reading, kSparse, kAmxDotRows>(job, panel, tail);
      --last;
    }
    if (first < last) MultiplyTiles<reading, kSparse>(job, panel, first, last, scratch);
  }

  // Easy rows read the high plane only, the others both; panel by panel, so that what both read is
  // still in the cache.
  template <Reading reading, Reading high, bool kSparse>
  static void MultiplyAs(const AmxJob& job, int64_t first, int64_t last, int64_t first_panel,
                         int64_t last_panel) {
    Scratch scratch;
    bool tiles = false;
    for (int64_t b = first; b < last; ++b) tiles |= job.block[b].rows > kAmxDotRows;
    if (tiles) Ops::BeginTiles();
    const int64_t easy = job.easy_blocks < first  ? first
                         : job.easy_blocks > last ? last
                                                  : job.easy_blocks;
    for (int64_t p = first_panel; p < last_panel; ++p) {
      const Panel panel = Panels::MakePanel(job, reading, p);
      if constexpr (high != reading) {
        MultiplyPanel<high, kSparse>(job, panel, first, easy, scratch);
      }
      MultiplyPanel<reading, kSparse>(job, panel, easy, last, scratch);
    }
    if (tiles) Ops::EndTiles();
  }

  static void Multiply(const AmxJob& job, int64_t first, int64_t last, int64_t first_panel,
                       int64_t last_panel) noexcept {
    WeightsTile<Ops>::ForEncoding(job.encoding, [&]<Encoding, Reading reading, Reading high>() {
      job.quad ? MultiplyAs<reading, high, true>(job, first, last, first_panel, last_panel)
               : MultiplyAs<reading, high, false>(job, first, last, first_panel, last_panel);
    });
  }
};

template <class Ops>
inline constexpr AmxIsa kAmxIsa = {.quantize = AmxTile<Ops>::Quantize,
                                   .multiply = AmxTile<Ops>::Multiply};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_LINEAR_AMX_TILE_H_
