#include "passes/data/dataset.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <optional>

#include "passes/data/array_files.h"
#include "passes/data/block.h"
#include "passes/data/fail.h"
#include "passes/data/match.h"
#include "passes/data/random.h"

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kLabel = "label";
// Below this, statistics of activations are unreliable.
constexpr int64_t kFewSamples = 64;

std::string Quoted(std::string_view name) { return fmt::format("\"{}\"", Printable(name)); }

std::string QuotedList(const std::vector<std::string>& names) {
  std::vector<std::string> quoted;
  for (const std::string& name : names) quoted.push_back(Quoted(name));
  return fmt::format("{}", fmt::join(quoted, ", "));
}

const Value* FindInput(const Model& model, std::string_view name) {
  for (const Value* input : model.graph().inputs()) {
    if (input->name() == name) return input;
  }
  return nullptr;
}

std::vector<std::string> InputNames(const Model& model) {
  std::vector<std::string> names;
  for (const Value* input : model.graph().inputs()) names.push_back(input->name());
  return names;
}

// Keeps a tensor's bytes alive for views into them.
class View final : public Storage {
 public:
  explicit View(Tensor tensor) : tensor_(std::move(tensor)) {}
  std::span<const std::byte> bytes() const noexcept override { return tensor_.bytes(); }

 private:
  Tensor tensor_;
};

size_t RowBytes(const Tensor& rows) {
  return rows.dims()[0] == 0 ? 0 : rows.bytes().size() / static_cast<size_t>(rows.dims()[0]);
}

// Rows [first, first + count), sharing the bytes.
Tensor Slice(const Tensor& rows, int64_t first, int64_t count) {
  Dims dims = rows.dims();
  dims[0] = count;
  return Tensor(rows.dtype(), std::move(dims), std::make_shared<View>(rows),
                static_cast<size_t>(first) * RowBytes(rows));
}

Tensor GatherRows(const Tensor& rows, std::span<const int64_t> samples) {
  const auto count = static_cast<int64_t>(samples.size());
  bool side_by_side = true;
  for (int64_t i = 0; i < count; ++i) side_by_side &= samples[i] == samples[0] + i;
  if (side_by_side) return Slice(rows, samples[0], count);
  const size_t row = RowBytes(rows);
  auto block = std::make_shared<Block>(row * samples.size());
  for (size_t i = 0; i < samples.size(); ++i) {
    std::memcpy(block->writable().data() + i * row,
                rows.bytes().data() + static_cast<size_t>(samples[i]) * row, row);
  }
  Dims dims = rows.dims();
  dims[0] = count;
  return Tensor(rows.dtype(), std::move(dims), std::move(block));
}

struct NonFinite {
  int64_t count = 0;
  int64_t first = 0;  // index of the first such element
};

template <typename T>
NonFinite CountNonFinite(std::span<const T> values) {
  NonFinite found;
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) continue;
    if (found.count++ == 0) found.first = static_cast<int64_t>(i);
  }
  return found;
}

// `samples`: how many the tensor's elements belong to; `first_sample`: index of the first of them.
void CheckFinite(const Tensor& tensor, int64_t samples, int64_t first_sample) {
  if (!IsFloating(tensor.dtype()) || tensor.size() == 0) return;
  NonFinite found;
  if (tensor.dtype() == DType::kFloat) {
    found = CountNonFinite(tensor.data<float>());
  } else if (tensor.dtype() == DType::kDouble) {
    found = CountNonFinite(tensor.data<double>());
  } else {
    const std::vector<float> values = tensor.ToFloats();
    found = CountNonFinite(std::span<const float>(values));
  }
  if (found.count == 0) return;
  FailData(fmt::format("{} element{} NaN or infinite, the first in sample {}", found.count,
                       found.count == 1 ? " is" : "s are",
                       first_sample + found.first / (tensor.size() / samples)),
           "remove or mend these samples");
}

// Refuses an array that no input takes, before its elements are read.
void CheckArray(const Model& model, const std::string& name, const NpyHeader& header) {
  if (const Value* input = FindInput(model, name)) {
    MatchArray(*input, header.dtype, header.dims);
  } else if (name != kLabel) {
    std::vector<std::string> known = InputNames(model);
    const std::string inputs = QuotedList(known);
    known.emplace_back(kLabel);
    const std::string nearest = Nearest(name, known);
    FailData(fmt::format("the model has no input {}; its inputs are {}", Quoted(name), inputs),
             nearest.empty() ? "remove the array or rename it"
                             : fmt::format("did you mean {}?", Quoted(nearest)));
  }
  if (header.dims.empty()) FailData("is a scalar, its first axis must be the sample");
  if (header.dims[0] == 0) FailData("holds no samples");
}

void CheckNoneMissing(const Model& model, const std::vector<NamedArray>& arrays) {
  std::vector<std::string> missing, given;
  for (const NamedArray& array : arrays) given.push_back(array.name);
  for (const Value* input : model.graph().inputs()) {
    const bool found = std::find(given.begin(), given.end(), input->name()) != given.end();
    if (!found && !input->is_initializer()) missing.push_back(input->name());
  }
  if (missing.empty()) return;
  FailData(fmt::format("no array for the model's input{} {}", missing.size() == 1 ? "" : "s",
                       QuotedList(missing)),
           fmt::format("it holds {}", QuotedList(given)));
}

// What one run takes, from the inputs that are given as rows: a number, or 0 for any.
int64_t FixedBatch(const std::vector<std::pair<const Value*, ArrayForm>>& given) {
  const Value* whole = nullptr;
  const Value* fixed = nullptr;
  for (const auto& [input, form] : given) {
    if (form == ArrayForm::kWhole) whole = input;
  }
  for (const auto& [input, form] : given) {
    const int64_t batch = FixedFirstAxis(*input);
    if (form == ArrayForm::kWhole || batch == 0) continue;
    // Beside inputs that belong to a sample as a whole, every run takes one sample.
    const int64_t other = whole ? 1 : fixed ? FixedFirstAxis(*fixed) : batch;
    if (batch != other) {
      const Value* odd = batch == 1 && fixed ? fixed : input;
      FailData(fmt::format(
                   "inputs {} and {} differ in their first axis, so it is not the sample of both",
                   Quoted(input->name()), Quoted((whole ? whole : fixed)->name())),
               fmt::format("give {} whole, as [samples,{},…]", Quoted(odd->name()),
                           FixedFirstAxis(*odd)));
    }
    fixed = input;
  }
  return whole ? 1 : fixed ? FixedFirstAxis(*fixed) : 0;
}

}  // namespace

Dataset Dataset::Load(const fs::path& path, const Model& model) {
  try {
    Dataset data;
    std::error_code unreadable;  // then reading it as a file says why
    std::vector<fs::path> sets;
    if (fs::is_directory(path, unreadable)) sets = FindTestDataSets(path);
    if (sets.empty()) {
      data.LoadArrays(path, model);
    } else {
      data.LoadTestDataSets(sets, model);
    }
    data.Warn(model);
    return data;
  } catch (UserError& error) {
    throw error.InFile(path.string());
  }
}

void Dataset::LoadArrays(const fs::path& path, const Model& model) {
  const AcceptArray accept = [&](const std::string& name, const NpyHeader& header) {
    CheckArray(model, name, header);
  };
  std::error_code unreadable;
  const bool folder = fs::is_directory(path, unreadable);
  std::vector<NamedArray> arrays = folder ? ReadNpyFolder(path, accept) : ReadNpz(path, accept);
  if (arrays.empty()) {
    FailData(folder ? "the folder holds no .npy files and no test_data_set_* folders"
                    : "the archive holds no arrays");
  }
  CheckNoneMissing(model, arrays);

  std::vector<std::pair<const Value*, ArrayForm>> given;
  size_ = arrays[0].tensor.dims()[0];
  for (NamedArray& array : arrays) {
    Tensor& tensor = array.tensor;
    if (tensor.dims()[0] != size_) {
      FailData(fmt::format("arrays {} and {} have {} and {} samples", Quoted(arrays[0].name),
                           Quoted(array.name), size_, tensor.dims()[0]));
    }
    try {
      CheckFinite(tensor, size_, 0);
    } catch (UserError& error) {
      throw error.At(fmt::format("array {}", Quoted(array.name)));
    }
    const Value* input = FindInput(model, array.name);
    if (!input) {
      labels_ = std::move(tensor);
      continue;
    }
    given.emplace_back(input, MatchArray(*input, tensor.dtype(), tensor.dims()));
    Column column{array.name, {}, {}};
    if (given.back().second == ArrayForm::kRows) {
      column.rows = std::move(tensor);
    } else {
      const Dims dims(tensor.dims().begin() + 1, tensor.dims().end());
      for (int64_t i = 0; i < size_; ++i) {
        column.whole.push_back(Slice(tensor, i, 1).Reshaped(dims));
      }
    }
    inputs_.push_back(std::move(column));
  }
  fixed_batch_ = FixedBatch(given);
  if (fixed_batch_ > 1 && size_ % fixed_batch_ != 0) {
    const int64_t kept = size_ / fixed_batch_ * fixed_batch_;
    if (kept == 0) {
      FailData(fmt::format("{} samples, the model takes {} in every run", size_, fixed_batch_));
    }
    warnings.push_back(
        fmt::format("the last {} samples are left out: the model takes {} in every run",
                    size_ - kept, fixed_batch_));
    size_ = kept;
    if (has_labels()) labels_ = Slice(labels_, 0, size_);
  }
}

void Dataset::LoadTestDataSets(const std::vector<fs::path>& folders, const Model& model) {
  std::vector<const Value*> required, all;
  for (const Value* input : model.graph().inputs()) {
    all.push_back(input);
    if (!input->is_initializer()) required.push_back(input);
  }
  for (const fs::path& folder : folders) {
    const std::vector<Tensor> tensors = ReadTestDataSet(folder);
    const std::vector<const Value*>& inputs = tensors.size() == all.size() ? all : required;
    if (tensors.size() != inputs.size()) {
      throw UserError(ErrorCode::kData,
                      fmt::format("{} inputs, the model has {}", tensors.size(), required.size()))
          .InFile(folder.string());
    }
    if (size_ == 0) {
      for (const Value* input : inputs) inputs_.push_back({input->name(), {}, {}});
    }
    if (inputs.size() != inputs_.size()) {
      throw UserError(ErrorCode::kData, fmt::format("{} inputs, the sets before have {}",
                                                    inputs.size(), inputs_.size()))
          .InFile(folder.string());
    }
    for (size_t i = 0; i < inputs.size(); ++i) {
      try {
        MatchWhole(*inputs[i], tensors[i].dtype(), tensors[i].dims());
        CheckFinite(tensors[i], 1, size_);
      } catch (UserError& error) {
        throw error.InFile((folder / fmt::format("input_{}.pb", i)).string());
      }
      inputs_[i].whole.push_back(tensors[i]);
    }
    ++size_;
  }
  fixed_batch_ = 1;
}

void Dataset::Warn(const Model& model) {
  if (size_ < kFewSamples) {
    warnings.push_back(
        fmt::format("{} sample{}: 256 or more are recommended", size_, size_ == 1 ? "" : "s"));
  }
  // A symbol that stands for two lengths: the arrays may not belong together, or the exporter was
  // careless; the engine decides.
  std::map<std::string, std::pair<int64_t, std::string>> lengths;
  for (const Column& column : inputs_) {
    const ValueType& type = *FindInput(model, column.name)->type();
    const bool whole = !column.whole.empty();
    const Dims& dims = whole ? column.whole[0].dims() : column.rows.dims();
    for (size_t i = whole ? 0 : 1; type.has_shape && i < dims.size(); ++i) {
      const std::string* symbol = std::get_if<std::string>(&type.dims[i]);
      if (!symbol || symbol->empty()) continue;
      const auto [entry, fresh] = lengths.try_emplace(*symbol, dims[i], column.name);
      const auto& [length, name] = entry->second;
      if (!fresh && length != dims[i]) {
        warnings.push_back(fmt::format("dimension {} is {} in array {} and {} in array {}",
                                       Quoted(*symbol), length, Quoted(name), dims[i],
                                       Quoted(column.name)));
      }
    }
  }
}

Feeds Dataset::Gather(std::span<const int64_t> samples) const {
  SF_CHECK(!samples.empty());
  for (const int64_t sample : samples) SF_CHECK(sample >= 0 && sample < size_, "sample {}", sample);
  Feeds feeds;
  for (const Column& column : inputs_) {
    if (column.whole.empty()) {
      feeds.emplace_back(column.name, GatherRows(column.rows, samples));
    } else {
      SF_CHECK(samples.size() == 1, "{} samples at once", samples.size());
      feeds.emplace_back(column.name, column.whole[static_cast<size_t>(samples[0])]);
    }
  }
  return feeds;
}

Tensor Dataset::GatherLabels(std::span<const int64_t> samples) const {
  SF_CHECK(has_labels() && !samples.empty());
  for (const int64_t sample : samples) SF_CHECK(sample >= 0 && sample < size_, "sample {}", sample);
  return GatherRows(labels_, samples);
}

Splits MakeSplits(int64_t samples, uint64_t seed, int64_t at_most) {
  std::vector<int64_t> order(static_cast<size_t>(samples));
  std::iota(order.begin(), order.end(), 0);
  const auto key = [&](int64_t i) { return RandomAt(seed, static_cast<uint64_t>(i)); };
  std::sort(order.begin(), order.end(),
            [&](int64_t a, int64_t b) { return std::pair(key(a), a) < std::pair(key(b), b); });
  samples = std::min(samples, at_most);
  order.resize(static_cast<size_t>(samples));
  if (samples < 3) {
    std::sort(order.begin(), order.end());
    return {order, order, order};
  }
  const int64_t fit = std::max<int64_t>(1, samples * 3 / 5);
  const int64_t select = std::max<int64_t>(1, samples / 5);
  Splits splits;
  splits.fit.assign(order.begin(), order.begin() + fit);
  splits.select.assign(order.begin() + fit, order.begin() + fit + select);
  splits.audit.assign(order.begin() + fit + select, order.end());
  for (std::vector<int64_t>* part : {&splits.fit, &splits.select, &splits.audit}) {
    std::sort(part->begin(), part->end());
  }
  return splits;
}

}  // namespace sparsefuse
