// Calibration and evaluation data: arrays named as graph inputs, first axis = sample.

#ifndef SPARSEFUSE_PASSES_DATA_DATASET_H_
#define SPARSEFUSE_PASSES_DATA_DATASET_H_

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "onnx_io/model.h"

namespace sparsefuse {

using Feeds = std::vector<std::pair<std::string, Tensor>>;  // input name → array

class Dataset {
 public:
  // `path`: an .npz file, a folder of .npy files, or a folder with test_data_set_* (or one such
  // folder; each set is one sample, input_i.pb in the order of the graph's inputs, output_i.pb
  // ignored). Inputs of `model` that have an initializer as default are optional.
  //
  // The array of an input with dims [d0, rest…] is [samples, rest…]; a number d0 is the model's
  // fixed batch. It may also be [samples, d0, rest…], one whole input a sample: the only form for
  // scalars and for inputs whose first axis is not the batch (recurrent states); then every sample
  // is run alone. Symbolic dims take any length. Types must be the input's own, nothing is
  // converted; only big-endian and Fortran-order arrays are.
  //
  // UserErrors E_DATA, with the file, the array and the input: missing or unknown names (nearest
  // one named), type, rank or fixed dimension that differ from the graph's input, sample counts
  // that differ, no samples, NaN or infinity, object arrays and pickles (refused), truncated, an
  // archive that unpacks to more than 64 GiB or this machine's memory (E_LIMIT). E_READ: missing.
  // E_UNSUPPORTED: the model has an input that is no tensor or of a type that no array can have.
  static Dataset Load(const std::filesystem::path& path, const Model& model);

  int64_t size() const { return size_; }
  // The largest batch that one run of the model takes: 1 (or the fixed batch, then size is a
  // multiple of it by dropping the rest with a warning in `warnings`) for fixed-batch models,
  // otherwise 0 = any.
  int64_t fixed_batch() const { return fixed_batch_; }
  bool has_labels() const { return !labels_.empty_handle(); }
  const Tensor& labels() const {
    return labels_;
  }  // first axis = sample, any integer or float type

  // Samples by index (repeats allowed), stacked along the first axis, shaped for the graph's
  // inputs; at least one, and one only where every sample is run alone. Shares the data's bytes
  // where the samples lie side by side.
  Feeds Gather(std::span<const int64_t> samples) const;
  // Rows of the labels for the same samples.
  Tensor GatherLabels(std::span<const int64_t> samples) const;

  std::vector<std::string> warnings;  // e.g. fewer than 64 samples

 private:
  struct Column {  // one input; either of the two
    std::string name;
    Tensor rows;                // [samples, rest…]
    std::vector<Tensor> whole;  // one input a sample
  };

  void LoadArrays(const std::filesystem::path& path, const Model& model);
  void LoadTestDataSets(const std::vector<std::filesystem::path>& folders, const Model& model);
  void Warn(const Model& model);

  std::vector<Column> inputs_;
  Tensor labels_;
  int64_t size_ = 0;
  int64_t fixed_batch_ = 0;
};

// Disjoint sample indices, ascending: fit computes statistics, select chooses, audit is touched by
// the final report only. 60/20/20; each has at least one sample from 3 on, otherwise all share all.
// Of more than `at_most` samples so many are drawn; the rest is in no split.
struct Splits {
  std::vector<int64_t> fit, select, audit;
};
Splits MakeSplits(int64_t samples, uint64_t seed, int64_t at_most = INT64_MAX);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_DATA_DATASET_H_
