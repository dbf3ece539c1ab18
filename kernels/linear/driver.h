// What the drivers of the vector kernels share: arrays in one block of memory, constants derived
// from the file's, rows sorted by the gate, work cut into tasks. Compiled for the baseline and
// never included by a file compiled for more.

#ifndef SPARSEFUSE_KERNELS_LINEAR_DRIVER_H_
#define SPARSEFUSE_KERNELS_LINEAR_DRIVER_H_

#include <cstddef>
#include <cstdint>

#include "kernels/linear/job.h"

namespace sparsefuse {

constexpr int64_t CeilDivide(int64_t a, int64_t b) noexcept { return (a + b - 1) / b; }

// Quads of a row's codes. A sparse layer names the quad behind the last one, which is of zeros.
constexpr int64_t CodeQuads(const LinearShape& shape) noexcept {
  return (GroupsPerPanel(shape.inputs) + (shape.sparse ? 1 : 0)) * kGroupQuads;
}

// Places in one block of memory, aligned, in the order in which they are asked for.
class Places {
 public:
  template <typename T>
  size_t Add(int64_t count) noexcept {
    const size_t place = bytes_;
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    bytes_ += (bytes + kLinearAlignment - 1) / kLinearAlignment * kLinearAlignment;
    return place;
  }
  size_t bytes() const noexcept { return bytes_; }

 private:
  size_t bytes_ = 0;
};

template <typename T>
const T* At(const std::byte* base, size_t place) noexcept {
  return reinterpret_cast<const T*>(base + place);
}
template <typename T>
T* At(std::byte* base, size_t place) noexcept {
  return reinterpret_cast<T*>(base + place);
}

// Places of what every vector kernel prepares: the fields of LinearJob that have these names. The
// last one is the only one whose size depends on `scale_rows` (of the whole layer).
struct ConstantPlaces {
  ConstantPlaces(Places& places, const LinearShape& shape, bool smoothed,
                 int64_t scale_rows) noexcept
      : panel(places.Add<LinearPanel>(shape.panels())),
        bias(places.Add<float>(shape.panels() * kPanelOutputs)),
        smooth(places.Add<float>(smoothed ? CodeQuads(shape) * 4 : 0)),
        scale(places.Add<float>(scale_rows * kPanelOutputs)) {}
  size_t panel, bias, smooth, scale;
};

void PrepareConstants(const LinearWeights& weights, const ConstantPlaces& places,
                      std::byte* prepared) noexcept;

// With the constants and the run filled in; without quad, weight, plane_bytes, easy, order and
// row_scale.
LinearJob MakeJob(const LinearShape& shape, bool smoothed, const ConstantPlaces& places,
                  const std::byte* prepared, const LinearRun& run) noexcept;

// Decides which rows are easy and brings them first: into `order`, as LinearJob has it. Returns
// their number.
int64_t SortByGate(const float* gate, const LinearJob& job, int64_t* order) noexcept;

// Groups of all panels.
int64_t CountGroups(const LinearJob& job) noexcept;

// The first panel of a share, of `shares`: they have about equally many groups.
int64_t FirstPanel(const LinearJob& job, int64_t share, int64_t shares) noexcept;

// body(plan, 0 … tasks − 1) on the caller's threads; one task on this one.
template <class Plan>
void ForEachTask(const ParallelFor& parallel, const Plan& plan, int64_t tasks,
                 void (*body)(const Plan&, int64_t) noexcept) noexcept {
  if (tasks == 1) return body(plan, 0);
  struct Call {
    const Plan& plan;
    void (*body)(const Plan&, int64_t) noexcept;
  } call{plan, body};
  parallel.run(
      parallel.pool, static_cast<size_t>(tasks),
      [](void* context, size_t i) {
        const Call& c = *static_cast<const Call*>(context);
        c.body(c.plan, static_cast<int64_t>(i));
      },
      &call);
}

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_LINEAR_DRIVER_H_
