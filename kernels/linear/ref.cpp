// The reference kernel: layout 1 read in place, plain C++, every formula as linear.h states it.

#include <algorithm>
#include <cstring>

#include "kernels/linear/kernels.h"
#include "kernels/linear/quantize.h"

namespace sparsefuse {
namespace {

size_t PreparedBytes(const LinearShape&) noexcept { return 0; }
void Prepare(const LinearWeights&, std::byte*) noexcept {}

// One row of codes each, padded to whole groups.
int64_t PaddedInputs(const LinearShape& shape) noexcept { return shape.groups() * kGroupInputs; }
size_t WorkspaceBytes(const LinearShape& shape, int64_t rows) noexcept {
  return static_cast<size_t>(rows * PaddedInputs(shape));
}

struct Job {
  const LinearWeights& weights;
  const LinearRun& run;
};

int32_t Dot(const int8_t* q, const int8_t* w) noexcept {
  int32_t sum = 0;
  for (int64_t k = 0; k < kGroupInputs; ++k) sum += q[k] * w[k];
  return sum;
}

void RunRow(const Job& job, int64_t row) noexcept {
  const LinearWeights& weights = job.weights;
  const LinearShape& shape = weights.shape;
  const auto inputs = static_cast<size_t>(shape.inputs);
  auto* q = reinterpret_cast<int8_t*>(job.run.workspace) + row * PaddedInputs(shape);
  std::fill(q, q + PaddedInputs(shape), int8_t{0});
  const float s = QuantizeRow({job.run.x + row * shape.inputs, inputs},
                              {weights.smooth, weights.smooth ? inputs : 0}, {q, inputs});
  float* y = job.run.y + row * shape.outputs;
  for (int64_t n = 0; n < shape.outputs; ++n) {
    const int64_t panel = n / kPanelOutputs, lane = n % kPanelOutputs;
    const int8_t* w = weights.weight + panel * shape.groups() * kGroupBytes8 + lane * kGroupInputs;
    const uint8_t* code =
        weights.scale_code + panel * shape.scale_rows_per_panel() * kPanelOutputs + lane;
    float sum = 0;
    for (int64_t g = 0; g < shape.groups();) {
      const int64_t end = std::min(g + shape.groups_per_scale(), shape.groups());
      int32_t t = 0;
      for (; g < end; ++g) t += Dot(q + g * kGroupInputs, w + g * kGroupBytes8);
      sum += DecodeScale(weights.scale_base, *code) * static_cast<float>(t);
      code += kPanelOutputs;
    }
    y[n] = s * sum + weights.bias[n];
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
