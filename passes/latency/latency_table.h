// How long a linear layer takes on this machine in each of its forms: measured when first asked
// for, remembered in a file, interpolated between measured points.
//
//   K, N      as they are
//   rows      1, 2, 4 … 1024; linear between them, beyond them in proportion
//   density   0.1, 0.2, 0.3, 0.5, 0.8, 1; linear between them, below them that of 0.1
//
// Every measurement has the float layer beside it, and what is kept of the others is their ratio to
// it: machines change speed between measurements, which ratios outlive.

#ifndef SPARSEFUSE_PASSES_LATENCY_LATENCY_TABLE_H_
#define SPARSEFUSE_PASSES_LATENCY_LATENCY_TABLE_H_

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "passes/latency/latency_cache.h"
#include "passes/latency/layer_form.h"

namespace sparsefuse {

class LatencyTable {
 public:
  // `machine`: in words, whatever times depend on besides the layer; times of other machines in the
  // same file are left alone. `file`: made with its folders when there is something to remember;
  // empty: nothing is remembered. A file that cannot be read is as good as none and is replaced,
  // one that cannot be written costs the next run its measurements: each a line in notes().
  LatencyTable(std::string machine, std::filesystem::path file, MeasureLayer measure);

  // Milliseconds of each form, infinity where it cannot run. What is not known is measured, all
  // forms of a number of rows in one go, and saved before this returns. rows ≥ 1.
  std::vector<double> Milliseconds(const LayerShape& shape, int64_t rows,
                                   std::span<const LayerForm> forms);

  const std::vector<std::string>& notes() const { return notes_; }

 private:
  // The point, with every one of the forms in it.
  const LatencyPoint& Measured(const LayerShape& shape, int64_t rows,
                               std::span<const LayerForm> forms);
  void Save();

  std::string machine_;
  std::filesystem::path file_;
  MeasureLayer measure_;
  LatencyPoints points_;
  bool unsaved_ = false;
  std::vector<std::string> notes_;
};

// Which form a layer should take, by geometric means over the numbers of rows that it meets.
struct FormChoice {
  size_t form = 0;              // index of the fastest; 0 unless that gains kSmallestGain over it
  std::vector<double> speedup;  // of each form over the first; 0 where it cannot run
};
inline constexpr double kSmallestGain = 1.03;

// forms: the first is what the layer is now; rows: at least one, each ≥ 1.
FormChoice ChooseForm(LatencyTable& table, const LayerShape& shape, std::span<const int64_t> rows,
                      std::span<const LayerForm> forms);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_LATENCY_LATENCY_TABLE_H_
