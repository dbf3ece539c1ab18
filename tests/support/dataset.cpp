#include "tests/support/dataset.h"

#include <numeric>
#include <utility>
#include <vector>

#include "tests/support/npy_files.h"
#include "tests/support/support.h"

namespace sparsefuse::test {

Tensor Counting(Dims dims) {
  std::vector<float> values(static_cast<size_t>(*ElementCount(dims)));
  std::iota(values.begin(), values.end(), 0.0f);
  return Tensor::Of(std::move(dims), values);
}

Dataset MakeDataset(const Model& model, const Feeds& arrays) {
  const TempDir folder;
  WriteFile(folder / "data.npz", NpzBytes(arrays));
  return Dataset::Load(folder / "data.npz", model);
}

Calibration::Calibration(const Model& model, const Feeds& arrays)
    : data(MakeDataset(model, arrays)) {
  context.teacher = &model;
  context.calibration = &data;
  context.splits = MakeSplits(data.size(), 0);
}

}  // namespace sparsefuse::test
