// Rows of activations going in and of outputs coming out, as vectors: what the vector kernels have
// in common whatever they multiply with. Over the operations of an instruction set, as
// kmajor_tile.h says.

#ifndef SPARSEFUSE_KERNELS_LINEAR_ROWS_TILE_H_
#define SPARSEFUSE_KERNELS_LINEAR_ROWS_TILE_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/linear/activation_tile.h"
#include "kernels/linear/job.h"

namespace sparsefuse {

template <class Ops>
struct RowsTile {
  using Float = typename Ops::Float;
  using Int = typename Ops::Int;

  static constexpr int64_t kLanes = Ops::kLanes;

  // --- In ---------------------------------------------------------------------------------------

  static constexpr int64_t kChunk = 2 * kLanes;  // consecutive inputs of a row
  static_assert(kGroupInputs % kChunk == 0);

  struct Row {
    const void* x;
    const float* smooth;
    int64_t inputs;
  };

  static Float LoadElements(const float* x) { return Ops::Load(x); }
  static Float LoadElements(const uint16_t* x) { return Ops::LoadHalf(x); }

  // Inputs k … k + kChunk − 1 of x ⊙ smooth; zeros beyond the row's end.
  template <bool kSmooth, typename Element>
  static void LoadChunk(const Row& row, int64_t k, Float (&v)[2]) {
    Element tail[kChunk];
    const auto* all = static_cast<const Element*>(row.x);
    const Element* x = tail;
    if (k + kChunk <= row.inputs) {
      x = all + k;
    } else {
      for (int64_t i = 0; i < kChunk; ++i) tail[i] = k + i < row.inputs ? all[k + i] : Element{0};
    }
    v[0] = LoadElements(x);
    v[1] = LoadElements(x + kLanes);
    if (kSmooth) {
      v[0] = Ops::Multiply(v[0], Ops::Load(row.smooth + k));
      v[1] = Ops::Multiply(v[1], Ops::Load(row.smooth + k + kLanes));
    }
  }

  // s of linear.h. Magnitudes of floats order like their bits taken as integers, Inf and NaN above
  // all, so one integer maximum finds the largest and whether all are finite.
  template <bool kSmooth, typename Element>
  static float RowScale(const Row& row) {
    Int largest[2] = {Ops::Zero(), Ops::Zero()};
    for (int64_t k = 0; k < row.inputs; k += kChunk) {
      Float v[2];
      LoadChunk<kSmooth, Element>(row, k, v);
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

  // A row as worked on.
  template <typename Element>
  static Row At(const LinearJob& job, int64_t row) {
    const int64_t place = job.order ? job.order[row] : row;
    return {static_cast<const Element*>(job.x) + place * job.inputs, job.smooth, job.inputs};
  }

  // s of rows [first, last): all before the first is encoded, or each would wait for its maximum.
  template <bool kSmooth, typename Element>
  static void ScaleRows(const LinearJob& job, int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      job.row_scale[r] = RowScale<kSmooth, Element>(At<Element>(job, r));
    }
  }

  // Codes of a chunk. |x/s| ≤ 127·(1 + 2⁻²²), so rounding clamps. Where s is NaN any code will do:
  // NaN times it is NaN.
  template <bool kSmooth, typename Element>
  static void Encode(const Row& row, int64_t k, Float s, Int (&codes)[2]) {
    Float v[2];
    LoadChunk<kSmooth, Element>(row, k, v);
    for (int i = 0; i < 2; ++i) codes[i] = Ops::Round(Ops::Divide(v[i], s));
  }

  // --- Out --------------------------------------------------------------------------------------

  // 2·kLanes neighbouring outputs.
  struct Columns {
    const float* bias;
    int64_t first;
    int64_t count;  // that exist
  };

  static void StoreElements(float* y, Float v) { Ops::Store(y, v); }
  static void StoreElements(uint16_t* y, Float v) { Ops::StoreHalf(y, v); }

  template <typename Element>
  static void StoreOutputs(const LinearJob& job, const Columns& columns, int64_t row,
                           const Float (&v)[2]) {
    Element* y = static_cast<Element*>(job.y) + row * job.outputs + columns.first;
    if (columns.count == kChunk) {
      StoreElements(y, v[0]);
      StoreElements(y + kLanes, v[1]);
    } else {
      Element part[kChunk];
      StoreElements(part, v[0]);
      StoreElements(part + kLanes, v[1]);
      memcpy(y, part, static_cast<size_t>(columns.count) * sizeof(Element));
    }
  }

  // Not inlined into every tile.
  [[gnu::noinline]] static void Activate(Activation activation, Float (&v)[2]) {
    for (Float& part : v) part = ActivationTile<Ops>::Apply(activation, part);
  }

  // y from the scaled sums Σ_g scale·t of one row.
  static void StoreRow(const LinearJob& job, const Columns& columns, int64_t row,
                       const Float (&total)[2]) {
    const Float s = Ops::Broadcast(job.row_scale[row]);
    Float v[2] = {Ops::MultiplyAdd(total[0], s, Ops::Load(columns.bias)),
                  Ops::MultiplyAdd(total[1], s, Ops::Load(columns.bias + kLanes))};
    if (job.activation != Activation::kNone) Activate(job.activation, v);
    const int64_t place = job.order ? job.order[row] : row;
    job.half ? StoreOutputs<uint16_t>(job, columns, place, v)
             : StoreOutputs<float>(job, columns, place, v);
  }
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_LINEAR_ROWS_TILE_H_
