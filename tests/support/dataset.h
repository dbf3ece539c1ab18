// Data sets of arrays at hand, and a context with one.

#ifndef SPARSEFUSE_TESTS_SUPPORT_DATASET_H_
#define SPARSEFUSE_TESTS_SUPPORT_DATASET_H_

#include "onnx_io/model.h"
#include "passes/data/dataset.h"
#include "passes/framework/context.h"

namespace sparsefuse::test {

// 0, 1, 2, …
Tensor Counting(Dims dims);

// These arrays, written to an .npz file and read from it.
Dataset MakeDataset(const Model& model, const Feeds& arrays);

// What passes get that read activations; `model`, which has to outlive it, is the teacher.
struct Calibration {
  Calibration(const Model& model, const Feeds& arrays);
  Calibration(const Calibration&) = delete;  // the context points to the data

  Dataset data;
  Context context;
};

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_SUPPORT_DATASET_H_
