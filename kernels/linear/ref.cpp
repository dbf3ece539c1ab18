// The reference kernel: layout 1 read in place, plain C++, every formula as linear.h states it.

#include <algorithm>
#include <cstring>

#include "kernels/base/float16.h"
#include "kernels/linear/gate.h"
#include "kernels/linear/kernels.h"
#include "kernels/linear/quantize.h"

namespace sparsefuse {
namespace {

size_t PreparedBytes(const LinearWeights&) noexcept { return 0; }
void Prepare(const LinearWeights&, std::byte*) noexcept {}

// Of each row: x as floats, and codes with zeros for the padding of the last group and for the quad
// behind the last.
int64_t FloatBytes(const LinearShape& shape) noexcept {
  return shape.inputs * static_cast<int64_t>(sizeof(float));
}
int64_t RowBytes(const LinearShape& shape) noexcept {
  return FloatBytes(shape) + (GroupsPerPanel(shape.inputs) + 1) * kGroupInputs;
}
size_t WorkspaceBytes(const LinearShape& shape, int64_t rows) noexcept {
  return static_cast<size_t>(rows * RowBytes(shape));
}

// Weight i ∈ 0…63 of output r ∈ 0…31 in a stored group.
int Weight(const LinearWeights& weights, int64_t group, int64_t r, int64_t i, bool easy) noexcept {
  const Encoding encoding = weights.shape.encoding;
  const std::byte* plane = weights.weight + group * PlaneBytes(encoding);
  if (encoding == Encoding::kInt8) {
    return static_cast<int8_t>(plane[r * kGroupInputs + i]);
  }
  const auto nibble = [r, i](const std::byte* p) {
    return static_cast<int>(p[r % 16 * kGroupInputs + i]) >> (r < 16 ? 0 : 4) & 15;
  };
  const int high = nibble(plane);
  if (encoding == Encoding::kInt4) return (high ^ 8) - 8;
  const int low = nibble(plane + weights.GroupCount() * PlaneBytes(encoding));
  const auto code = static_cast<int8_t>(high << 4 | low);
  return easy ? DecodeHigh(encoding, code) : DecodeWeight(encoding, code);
}

// Σ q·w of output r over a stored group.
int32_t Dot(const LinearWeights& weights, const int8_t* q, int64_t group, int64_t place, int64_t r,
            bool easy) noexcept {
  int32_t sum = 0;
  for (int64_t i = 0; i < kGroupInputs; ++i) {
    const int64_t input = weights.shape.sparse
                              ? weights.blocks.quad[group * kGroupQuads + i / 4] * 4 + i % 4
                              : place * kGroupInputs + i;
    sum += q[input] * Weight(weights, group, r, i, easy);
  }
  return sum;
}

struct Job {
  const LinearWeights& weights;
  const LinearRun& run;
};

// x as floats and codes in the row's workspace. Returns s.
float QuantizeInto(const Job& job, int64_t row, std::byte* memory) noexcept {
  const LinearShape& shape = job.weights.shape;
  const auto inputs = static_cast<size_t>(shape.inputs);
  auto* x = reinterpret_cast<float*>(memory);
  if (job.run.half) {
    const auto* from = static_cast<const uint16_t*>(job.run.x) + row * shape.inputs;
    std::transform(from, from + inputs, x, Float16ToFloat);
  } else {
    std::copy_n(static_cast<const float*>(job.run.x) + row * shape.inputs, inputs, x);
  }
  auto* q = reinterpret_cast<int8_t*>(memory + FloatBytes(shape));
  std::fill(q, q + RowBytes(shape) - FloatBytes(shape), int8_t{0});
  const float* smooth = job.weights.smooth;
  return QuantizeRow({x, inputs}, {smooth, smooth ? inputs : 0}, {q, inputs});
}

bool IsEasy(const Job& job, const std::byte* memory) noexcept {
  const LinearWeights& weights = job.weights;
  return weights.gate && IsGated(job.run) &&
         IsEasyRow(weights.gate, memory, false, weights.smooth, weights.shape.inputs);
}

std::byte* RowMemory(const Job& job, int64_t row) noexcept {
  return job.run.workspace + row * RowBytes(job.weights.shape);
}

void RunRow(const Job& job, int64_t row) noexcept {
  const LinearWeights& weights = job.weights;
  const LinearShape& shape = weights.shape;
  std::byte* memory = RowMemory(job, row);
  const float s = QuantizeInto(job, row, memory);
  const auto* q = reinterpret_cast<const int8_t*>(memory + FloatBytes(shape));
  const bool easy = IsEasy(job, memory);
  int64_t scale_row = 0;
  for (int64_t panel = 0; panel < shape.panels(); ++panel) {
    const int64_t first = weights.FirstGroup(panel), last = weights.FirstGroup(panel + 1);
    const int64_t step =
        shape.scale_groups == 0 ? std::max<int64_t>(last - first, 1) : shape.scale_groups;
    for (int64_t r = 0; r < kPanelOutputs && panel * kPanelOutputs + r < shape.outputs; ++r) {
      const int64_t n = panel * kPanelOutputs + r;
      const uint8_t* code = weights.scale_code + scale_row * kPanelOutputs + r;
      float sum = 0;
      for (int64_t g = first; g < last; g += step, code += kPanelOutputs) {
        int32_t t = 0;
        for (int64_t i = g; i < std::min(g + step, last); ++i) {
          t += Dot(weights, q, i, i - first, r, easy);
        }
        sum += DecodeScale(weights.scale_base, *code) * static_cast<float>(t);
      }
      const float y = Activate(job.run.activation, s * sum + weights.bias[n]);
      if (job.run.half) {
        static_cast<uint16_t*>(job.run.y)[row * shape.outputs + n] = FloatToFloat16(y);
      } else {
        static_cast<float*>(job.run.y)[row * shape.outputs + n] = y;
      }
    }
    scale_row += shape.ScaleRows(last - first);
  }
}

void Run(const LinearWeights& weights, const std::byte*, const LinearRun& run) noexcept {
  Job job{weights, run};
  run.parallel.run(
      run.parallel.pool, static_cast<size_t>(run.rows),
      [](void* context, size_t row) {
        RunRow(*static_cast<const Job*>(context), static_cast<int64_t>(row));
      },
      &job);
  if (!run.easy_rows) return;
  *run.easy_rows = 0;
  for (int64_t row = 0; row < run.rows; ++row) *run.easy_rows += IsEasy(job, RowMemory(job, row));
}

}  // namespace

constinit const LinearKernel kLinearRef = {.name = "ref",
                                           .needs = {},
                                           .reads_weights = true,
                                           .prepared_bytes = PreparedBytes,
                                           .prepare = Prepare,
                                           .workspace_bytes = WorkspaceBytes,
                                           .run = Run};

}  // namespace sparsefuse
