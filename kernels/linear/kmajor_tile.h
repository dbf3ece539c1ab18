// The two functions of a KMajorIsa, written once over the vector operations of an instruction set.
// For files compiled for that instruction set, and for the tests, which run the same code over a
// portable imitation of those operations.
//
// Everything is a template on Ops, and Ops lives in an unnamed namespace, so no function made here
// is ever shared with code for another instruction set. For the same reason: no std functions.
//
// Ops:
//   kLanes        32-bit lanes of a vector       kTileRows   rows of a full tile
//   kQuadBytes    a row's quad when packed       kStripBytes a quad of the weights of one strip,
//   which is
//                                                            2·kLanes outputs
//   kChains<R>    independent sums that R rows need to hide latency
//   kRowSurplus   whether row_surplus is used
//   Float, Int    vectors; the functions are named after what they do, see avx2.cpp

#ifndef SPARSEFUSE_KERNELS_LINEAR_KMAJOR_TILE_H_
#define SPARSEFUSE_KERNELS_LINEAR_KMAJOR_TILE_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/linear/kmajor.h"

#if defined(__clang__)
#define SPARSEFUSE_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SPARSEFUSE_UNROLL _Pragma("GCC unroll 32")
#endif

namespace sparsefuse {

template <class Ops>
struct KMajorTile {
  using Float = typename Ops::Float;
  using Int = typename Ops::Int;

  static constexpr int64_t kLanes = Ops::kLanes;
  static constexpr int64_t kStripOutputs = 2 * kLanes;
  static constexpr int64_t kStrips = kPanelOutputs / kStripOutputs;  // of a panel
  static constexpr int64_t kStripBytes = 4 * kStripOutputs;          // of weights, for one quad

  // --- Activations
  // ---------------------------------------------------------------------------------

  // A chunk is one vector of each half: kStripOutputs consecutive inputs of a row.
  static constexpr int64_t kChunk = 2 * kLanes;
  static_assert(kGroupInputs % kChunk == 0);

  struct Row {
    const float* x;
    const float* smooth;
    int64_t inputs;
  };

  // Inputs k … k + kChunk − 1 of x ⊙ smooth; zeros beyond the row's end.
  template <bool kSmooth>
  static void LoadChunk(const Row& row, int64_t k, Float (&v)[2]) {
    float tail[kChunk];
    const float* x = tail;
    if (k + kChunk <= row.inputs) {
      x = row.x + k;
    } else {
      for (int64_t i = 0; i < kChunk; ++i) tail[i] = k + i < row.inputs ? row.x[k + i] : 0.0f;
    }
    v[0] = Ops::Load(x);
    v[1] = Ops::Load(x + kLanes);
    if (kSmooth) {
      v[0] = Ops::Multiply(v[0], Ops::Load(row.smooth + k));
      v[1] = Ops::Multiply(v[1], Ops::Load(row.smooth + k + kLanes));
    }
  }

  // s of linear.h. Magnitudes of floats order like their bits taken as integers, Inf and NaN above
  // all, so one integer maximum finds the largest and whether all are finite.
  template <bool kSmooth>
  static float RowScale(const Row& row) {
    Int largest[2] = {Ops::Zero(), Ops::Zero()};
    for (int64_t k = 0; k < row.inputs; k += kChunk) {
      Float v[2];
      LoadChunk<kSmooth>(row, k, v);
      largest[0] = Ops::MaxBits(largest[0], Ops::MagnitudeBits(v[0]));
      largest[1] = Ops::MaxBits(largest[1], Ops::MagnitudeBits(v[1]));
    }
    uint32_t bits = Ops::ReduceMaxBits(Ops::MaxBits(largest[0], largest[1]));
    if (bits >= 0x7f800000u) bits = 0x7fc00000u;
    float a;
    memcpy(&a, &bits, sizeof a);
    const float s = a / 127.0f;
    return s < 0x1p-126f ? 0x1p-126f : s;  // NaN stays
  }

  // Codes of one row into its place in the tile. |x/s| ≤ 127·(1 + 2⁻²²), so rounding clamps. Where
  // s is NaN any code will do: NaN times it is NaN.
  template <bool kSmooth>
  static void EncodeRow(const KMajorJob& job, const Row& row, float s, std::byte* out,
                        int64_t stride, int32_t* surplus) {
    const Float divisor = Ops::Broadcast(s);
    for (int64_t g = 0; g < job.scale_rows; ++g) {
      int64_t k = g * job.quads_per_scale * 4;
      int64_t end = k + job.quads_per_scale * 4;
      if (end > job.quads * 4) end = job.quads * 4;
      Int sum = Ops::Zero();
      for (; k < end; k += kChunk) {
        Float v[2];
        LoadChunk<kSmooth>(row, k, v);
        Int codes[2];
        for (int i = 0; i < 2; ++i) codes[i] = Ops::Round(Ops::Divide(v[i], divisor));
        sum = Ops::StoreCodes(codes, out + k / 4 * stride, stride, sum);
      }
      if (Ops::kRowSurplus) surplus[g] = Ops::ReduceSurplus(sum);
    }
  }

  template <bool kSmooth>
  static void QuantizeTile(const KMajorJob& job, int64_t tile, int64_t rows) {
    const auto row = [&job](int64_t r) {
      return Row{job.x + r * job.inputs, job.smooth, job.inputs};
    };
    // All scales first: one row alone would wait for its own maximum.
    for (int64_t r = tile; r < tile + rows; ++r) job.row_scale[r] = RowScale<kSmooth>(row(r));
    std::byte* out = job.codes + tile * job.quads * Ops::kQuadBytes;
    const int64_t stride = rows * Ops::kQuadBytes;
    for (int64_t r = tile; r < tile + rows; ++r, out += Ops::kQuadBytes) {
      EncodeRow<kSmooth>(job, row(r), job.row_scale[r], out, stride,
                         job.row_surplus + r * job.scale_rows);
    }
  }

  static void Quantize(const KMajorJob& job, int64_t first, int64_t last) noexcept {
    for (int64_t tile = first; tile < last; tile += Ops::kTileRows) {
      const int64_t rows = last - tile < Ops::kTileRows ? last - tile : Ops::kTileRows;
      job.smooth ? QuantizeTile<true>(job, tile, rows) : QuantizeTile<false>(job, tile, rows);
    }
  }

  // --- Products
  // ------------------------------------------------------------------------------------

  struct Strip {
    const std::byte* weight;
    const float* scale;           // of the first scale row, the next kPanelOutputs further
    const int32_t* column_start;  // likewise
    const float* bias;
    float* y;         // of row 0
    int64_t outputs;  // that exist, ≤ kStripOutputs
  };

  // Integer sums of R rows × one strip over `quads` quads.
  template <int R>
  static void Sum(const std::byte* codes, const std::byte* weight, int64_t quads,
                  const int32_t* start, Int (&sum)[R][2]) {
    constexpr int kChains = Ops::template kChains<R>;
    constexpr int64_t kTileQuad = R * Ops::kQuadBytes;
    Int chain[kChains][R][2];
    SPARSEFUSE_UNROLL
    for (int c = 0; c < kChains; ++c) {
      SPARSEFUSE_UNROLL
      for (int r = 0; r < R; ++r) {
        chain[c][r][0] = c == 0 ? Ops::LoadInt(start) : Ops::Zero();
        chain[c][r][1] = c == 0 ? Ops::LoadInt(start + kLanes) : Ops::Zero();
      }
    }
    for (int64_t quad = 0; quad < quads; quad += kChains) {  // quads is a multiple of 16
      SPARSEFUSE_UNROLL
      for (int c = 0; c < kChains; ++c) {
        Ops::template AddQuad<R>(codes + c * kTileQuad, weight + c * kStripBytes, chain[c]);
      }
      codes += kChains * kTileQuad;
      weight += kChains * kStripBytes;
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

  // scale · (integer sum − row surplus) of one row and scale row.
  static void Scale(const Int (&sum)[2], int32_t surplus, const float* scale, Float (&product)[2]) {
    SPARSEFUSE_UNROLL
    for (int v = 0; v < 2; ++v) {
      const Int t = Ops::kRowSurplus ? Ops::Subtract(sum[v], surplus) : sum[v];
      product[v] = Ops::Multiply(Ops::ToFloat(t), Ops::Load(scale + v * kLanes));
    }
  }

  static void StoreRow(const KMajorJob& job, const Strip& strip, int64_t row,
                       const Float (&total)[2]) {
    const Float s = Ops::Broadcast(job.row_scale[row]);
    const Float y0 = Ops::MultiplyAdd(total[0], s, Ops::Load(strip.bias));
    const Float y1 = Ops::MultiplyAdd(total[1], s, Ops::Load(strip.bias + kLanes));
    float* y = strip.y + row * job.outputs;
    if (strip.outputs == kStripOutputs) {
      Ops::Store(y, y0);
      Ops::Store(y + kLanes, y1);
    } else {
      float part[kStripOutputs];
      Ops::Store(part, y0);
      Ops::Store(part + kLanes, y1);
      memcpy(y, part, static_cast<size_t>(strip.outputs) * sizeof(float));
    }
  }

  template <int R>
  static void Tile(const KMajorJob& job, const Strip& strip, int64_t row) {
    const std::byte* codes = job.codes + row * job.quads * Ops::kQuadBytes;
    const int32_t* surplus = job.row_surplus + row * job.scale_rows;
    Int sum[R][2];
    if (job.scale_rows == 1) {
      Sum<R>(codes, strip.weight, job.quads, strip.column_start, sum);
      SPARSEFUSE_UNROLL
      for (int r = 0; r < R; ++r) {
        Float product[2];
        Scale(sum[r], surplus[r], strip.scale, product);
        StoreRow(job, strip, row + r, product);
      }
      return;
    }
    Float total[R][2];
    for (int r = 0; r < R; ++r) total[r][0] = total[r][1] = Ops::Broadcast(0.0f);
    for (int64_t g = 0; g < job.scale_rows; ++g) {
      const int64_t quad = g * job.quads_per_scale;
      const int64_t left = job.quads - quad;
      Sum<R>(codes + quad * R * Ops::kQuadBytes, strip.weight + quad * kStripBytes,
             left < job.quads_per_scale ? left : job.quads_per_scale,
             strip.column_start + g * kPanelOutputs, sum);
      for (int r = 0; r < R; ++r) {
        Float product[2];
        Scale(sum[r], surplus[r * job.scale_rows + g], strip.scale + g * kPanelOutputs, product);
        for (int v = 0; v < 2; ++v) total[r][v] = Ops::AddFloat(total[r][v], product[v]);
      }
    }
    for (int r = 0; r < R; ++r) StoreRow(job, strip, row + r, total[r]);
  }

  // The last tile, of `rows` < kTileRows rows.
  template <int R>
  static void PartTile(const KMajorJob& job, const Strip& strip, int64_t row, int64_t rows) {
    if constexpr (R > 0) {
      if (rows == R) return Tile<R>(job, strip, row);
      PartTile<R - 1>(job, strip, row, rows);
    }
  }

  static void Multiply(const KMajorJob& job, int64_t first, int64_t last, int64_t first_panel,
                       int64_t last_panel) noexcept {
    for (int64_t i = first_panel * kStrips; i < last_panel * kStrips; ++i) {
      const int64_t output = i * kStripOutputs;
      if (output >= job.outputs) return;
      const int64_t panel = i / kStrips, lane = output % kPanelOutputs;
      const int64_t scale = panel * job.scale_rows * kPanelOutputs + lane;
      const Strip strip = {
          .weight = job.weight + i * job.quads * kStripBytes,
          .scale = job.scale + scale,
          .column_start = job.column_start + scale,
          .bias = job.bias + output,
          .y = job.y + output,
          .outputs = job.outputs - output < kStripOutputs ? job.outputs - output : kStripOutputs};
      int64_t row = first;
      for (; row + Ops::kTileRows <= last; row += Ops::kTileRows) {
        Tile<Ops::kTileRows>(job, strip, row);
      }
      PartTile<Ops::kTileRows - 1>(job, strip, row, last - row);
    }
  }

  // --- Preparation, plain code
  // -----------------------------------------------------------------------

  static void ColumnStart(const int8_t* group, int64_t groups, int32_t* start) noexcept {
    for (int64_t r = 0; r < kPanelOutputs; ++r) {
      int64_t sum = 0;
      for (int64_t g = 0; g < groups; ++g) {
        sum += Ops::ColumnSurplus(group + g * kGroupBytes8 + r * kGroupInputs);
      }
      start[r] = static_cast<int32_t>(-sum);
    }
  }

  static void Repack(const int8_t* panel, int64_t groups, std::byte* out) noexcept {
    for (int64_t strip = 0; strip < kStrips; ++strip) {
      const int8_t* rows = panel + strip * kStripOutputs * kGroupInputs;
      for (int64_t quad = 0; quad < groups * kGroupInputs / 4; ++quad) {
        const int8_t* first = rows + quad / 16 * kGroupBytes8 + quad % 16 * 4;
        for (int64_t n = 0; n < kStripOutputs; ++n)
          memcpy(out + n * 4, first + n * kGroupInputs, 4);
        out += kStripBytes;
      }
    }
  }
};

template <class Ops>
inline constexpr KMajorIsa kKMajorIsa = {.tile_rows = Ops::kTileRows,
                                         .quad_bytes = Ops::kQuadBytes,
                                         .repack = KMajorTile<Ops>::Repack,
                                         .column_start = KMajorTile<Ops>::ColumnStart,
                                         .quantize = KMajorTile<Ops>::Quantize,
                                         .multiply = KMajorTile<Ops>::Multiply};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_LINEAR_KMAJOR_TILE_H_
