#include "passes/statistics/batches.h"

#include <algorithm>
#include <unordered_set>

#include "passes/framework/parallel.h"
#include "passes/statistics/cuts.h"

namespace sparsefuse {
namespace {

// What a mask goes through on its way to scores: element by element or by shape alone, with the
// number of inputs, from the first, that carry elements.
size_t CarriedInputs(const Node& node) {
  static const std::unordered_set<std::string> first = {
      "Cast", "Unsqueeze", "Squeeze", "Reshape",  "Flatten",  "Transpose", "Expand",
      "Tile", "Slice",     "Gather",  "GatherND", "Identity", "Neg",       "Not"};
  static const std::unordered_set<std::string> all = {"Add",
                                                      "Sub",
                                                      "Mul",
                                                      "Div",
                                                      "Min",
                                                      "Max",
                                                      "Equal",
                                                      "Less",
                                                      "LessOrEqual",
                                                      "Greater",
                                                      "GreaterOrEqual",
                                                      "And",
                                                      "Or",
                                                      "Xor",
                                                      "Where",
                                                      "Concat"};
  if (!node.domain().empty()) return 0;
  if (first.count(node.op())) return 1;
  return all.count(node.op()) ? node.inputs().size() : 0;
}

bool TakesMask(const Node& node) {
  return node.Is("Softmax") || node.Is("Attention") || node.Is("Attention", "com.microsoft") ||
         node.Is("MultiHeadAttention", "com.microsoft");
}

bool ReachesScores(const Value* input) {
  std::unordered_set<const Value*> seen = {input};
  std::vector<const Value*> open = {input};
  while (!open.empty()) {
    const Value* value = open.back();
    open.pop_back();
    for (const Use& use : value->uses()) {
      if (TakesMask(*use.node)) return true;
      if (static_cast<size_t>(use.index) >= CarriedInputs(*use.node)) continue;
      for (const Value* output : use.node->outputs()) {
        if (output && seen.insert(output).second) open.push_back(output);
      }
    }
  }
  return false;
}

const Tensor* FindFeed(const Feeds& feeds, const std::string& name) {
  for (const auto& [input, tensor] : feeds) {
    if (input == name) return &tensor;
  }
  return nullptr;
}

// Of [batch, tokens]; empty where the numbers are not those of a mask.
std::vector<bool> ReadMask(const Tensor& tensor) {
  if (tensor.rank() != 2 || tensor.size() == 0) return {};
  std::vector<bool> mask;
  const auto read = [&](const auto& values) {
    for (const auto value : values) {
      if (value != 0 && value != 1) return;
      mask.push_back(value != 0);
    }
  };
  switch (tensor.dtype()) {
    case DType::kFloat:
    case DType::kFloat16:
      read(tensor.ToFloats());
      break;
    case DType::kBool:
    case DType::kInt8:
    case DType::kUint8:
    case DType::kInt32:
    case DType::kInt64:
      read(tensor.ToInts());
      break;
    default:
      return {};
  }
  if (mask.size() != static_cast<size_t>(tensor.size())) return {};
  for (auto row = mask.begin(); row != mask.end(); row += tensor.dims()[1]) {
    if (std::find(row, row + tensor.dims()[1], true) == row + tensor.dims()[1]) return {};
  }
  return mask;
}

}  // namespace

Batches MakeBatches(const Dataset& data, std::span<const int64_t> samples, int64_t batch) {
  const int64_t fixed = data.fixed_batch();
  const auto step = static_cast<size_t>(fixed > 0 ? fixed : std::max<int64_t>(1, batch));
  Batches batches;
  for (size_t at = 0; at < samples.size(); at += step) {
    const std::span<const int64_t> own = samples.subspan(at, std::min(step, samples.size() - at));
    std::vector<int64_t> filled(own.begin(), own.end());
    if (fixed > 0 && own.size() < step) {
      if (!batches.empty()) break;
      filled.resize(step, own.back());
    }
    batches.push_back(data.Gather(filled));
  }
  return batches;
}

void RunBatches(std::span<const BatchRun> runs, const Context& context, const ComputeBatch& compute,
                const MergeBatch& merge) {
  const size_t count = runs.empty() ? 0 : runs[0].batches.size();
  for (const BatchRun& run : runs) SF_CHECK(run.batches.size() == count);
  const size_t threads = std::min(count, static_cast<size_t>(std::max(1, context.threads)));
  const SessionOptions options{
      .threads = 1, .operator_library = context.operator_library, .lean = true};
  // One a run, for all threads; none where nothing is wanted.
  std::vector<std::optional<Session>> sessions;
  for (const BatchRun& run : runs) {
    sessions.emplace_back();
    if (!run.outputs.empty()) sessions.back().emplace(LeadingTo(run.model, run.outputs), options);
  }
  for (size_t begin = 0; begin < count; begin += threads) {
    const size_t wave = std::min(threads, count - begin);
    ForEachIndex(static_cast<int>(wave), wave, [&](size_t i) {
      std::vector<std::vector<Tensor>> outputs;
      for (size_t r = 0; r < runs.size(); ++r) {
        outputs.emplace_back();
        if (!sessions[r]) continue;
        outputs.back() = sessions[r]->Run(runs[r].batches[begin + i], runs[r].outputs);
      }
      compute(begin + i, std::move(outputs));
    });
    for (size_t i = 0; i < wave; ++i) merge(begin + i);
  }
}

std::vector<std::vector<Tensor>> RunBatches(const BatchRun& run, const Context& context) {
  std::vector<std::vector<Tensor>> results(run.batches.size());
  RunBatches(
      {&run, 1}, context,
      [&](size_t i, std::vector<std::vector<Tensor>> outputs) {
        results[i] = std::move(outputs[0]);
      },
      [](size_t) {});
  return results;
}

std::optional<std::string> FindPaddingMask(const Model& model, const Batches& batches) {
  for (const Value* input : model.graph().inputs()) {
    if (input->initializer() || !ReachesScores(input)) continue;
    bool is_mask = !batches.empty(), pads = false;
    for (size_t i = 0; i < batches.size() && is_mask; ++i) {
      const Tensor* tensor = FindFeed(batches[i], input->name());
      const std::vector<bool> mask = tensor ? ReadMask(*tensor) : std::vector<bool>();
      is_mask = !mask.empty();
      pads = pads || std::find(mask.begin(), mask.end(), false) != mask.end();
    }
    if (is_mask && pads) return input->name();
  }
  return std::nullopt;
}

std::vector<bool> KeptRows(const std::optional<std::string>& mask, const Feeds& feeds,
                           std::span<const int64_t> dims) {
  if (!mask) return {};
  const Tensor* tensor = FindFeed(feeds, *mask);
  SF_CHECK(tensor, "the mask \"{}\" is not fed", *mask);
  const int64_t samples = tensor->dims()[0], tokens = tensor->dims()[1];
  const bool flat = dims.size() == 1 && dims[0] == samples * tokens && tokens > 1;
  const bool apart = dims.size() >= 2 && dims[0] == samples && dims[1] == tokens;
  if (!flat && !apart) return {};
  const std::vector<bool> mask_values = ReadMask(*tensor);
  SF_CHECK(!mask_values.empty(), "\"{}\" is no mask", *mask);
  size_t repeats = 1;
  for (size_t axis = 2; axis < dims.size(); ++axis) repeats *= static_cast<size_t>(dims[axis]);
  std::vector<bool> kept;
  for (const bool keep : mask_values) kept.insert(kept.end(), repeats, keep);
  return kept;
}

}  // namespace sparsefuse
