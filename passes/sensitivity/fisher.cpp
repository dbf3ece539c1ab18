#include "passes/sensitivity/fisher.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>
#include <utility>

#include "passes/autodiff/gradients.h"
#include "passes/data/random.h"
#include "passes/engine/engine.h"
#include "passes/lower/builder.h"
#include "passes/sensitivity/answer_output.h"
#include "passes/statistics/batches.h"

namespace sparsefuse {
namespace {

// Samples a sweep. All activations of a sweep are in memory: few, and of a large model one.
constexpr int64_t kBatch = 4;
constexpr uint64_t kLargeModel = uint64_t{64} << 20;  // bytes of weights

// Of −log and division by √p.
constexpr float kLeastRootProbability = 1e-6F;

double Normal(uint64_t seed, uint64_t counter) {
  // Box and Muller 1958.
  const auto unit = [&](uint64_t i) {
    return (static_cast<double>(RandomAt(seed, i) >> 11) + 0.5) * 0x1p-53;
  };
  return std::sqrt(-2 * std::log(unit(2 * counter))) *
         std::cos(2 * std::numbers::pi * unit(2 * counter + 1));
}

SessionOptions Options(const Context& context) {
  return {.threads = 1, .operator_library = context.operator_library};
}

// Root mean square of what the outputs differ by, of an output without classes.
double Spread(const Model& model, const AnswerOutput& output, const Context& context,
              std::span<const int64_t> samples) {
  const Session session(model, Options(context));
  double sum = 0, squares = 0, count = 0;
  const std::vector<std::string> names = {output.name};
  ForEachBatch(session, *context.calibration, samples, kBatch, names,
               [&](std::span<const Tensor> results, std::span<const int64_t>) {
                 for (const float x : results[0].ToFloats()) {
                   sum += x;
                   squares += static_cast<double>(x) * x;
                   ++count;
                 }
               });
  const double mean = sum / count;
  return std::sqrt(std::max(squares / count - mean * mean, 1e-12));
}

// v, from the answers and a new graph input ε, whose name is returned in `noise`.
Value* SeedValue(Model& model, const AnswerOutput& output, double spread, std::string& noise) {
  Graph& graph = model.graph();
  Value* z = graph.FindValue(output.name);
  noise = graph.FreshName("seed_noise");
  Value* epsilon = graph.AddGraphInput(noise, ValueType{DType::kFloat, false, {}});
  Builder builder(graph);
  Value* last = builder.Ints({-1});
  if (!output.classes) {
    return builder.Op("Mul", {epsilon, builder.Float(static_cast<float>(1 / spread))});
  }
  if (output.kind == OutputKind::kProbabilities) {
    Value* root = builder.Op("Sqrt", {builder.Cast(z, DType::kFloat)});
    return builder.Op("Div",
                      {epsilon, builder.Op("Max", {root, builder.Float(kLeastRootProbability)})});
  }
  Value* p =
      builder.Op("Softmax", {builder.Cast(z, DType::kFloat)}, AttributeList("axis", int64_t{-1}));
  Value* root = builder.Op("Sqrt", {p});
  Value* drawn = builder.Op("Mul", {root, epsilon});
  Value* dot = builder.Op("ReduceSum", {drawn, last}, AttributeList("keepdims", int64_t{1}));
  return builder.Op("Sub", {drawn, builder.Op("Mul", {p, dot})});
}

class Taps {
 public:
  Taps(Model& model, const Dataset& data)
      : graph_(model.graph()), builder_(graph_), fixed_batch_(data.fixed_batch()) {}

  // [samples, length]
  std::string Mask(const Tap& tap, Value* gradient) {
    Value* product = builder_.Op("Mul", {graph_.FindValue(tap.tensor), gradient});
    if (tap.image) {
      Value* flat = builder_.Op("Reshape", {product, PerSample({tap.length, -1})});
      return Sum(flat, {2});
    }
    return Sum(builder_.Op("Reshape", {product, PerSample({-1, tap.length})}), {1});
  }

  // [length]
  std::string Columns(const Tap& tap, Value* gradient) {
    Value* squares = builder_.Op("Mul", {gradient, gradient});
    if (tap.image) {
      Value* flat = builder_.Op("Reshape", {squares, PerSample({tap.length, -1})});
      return Sum(flat, {0, 2});
    }
    return Sum(builder_.Op("Reshape", {squares, builder_.Ints({-1, tap.length})}), {0});
  }

  // [length, length]
  std::string ColumnGram(const Tap& tap, Value* gradient) {
    if (tap.image) {
      Value* flat = builder_.Op("Reshape", {gradient, PerSample({tap.length, -1})});
      Value* turned = builder_.Op("Transpose", {flat}, AttributeList("perm", Dims{0, 2, 1}));
      return Sum(builder_.Op("MatMul", {flat, turned}), {0});
    }
    Value* rows = builder_.Op("Reshape", {gradient, builder_.Ints({-1, tap.length})});
    Value* turned = builder_.Op("Transpose", {rows}, AttributeList("perm", Dims{1, 0}));
    return builder_.Op("MatMul", {turned, rows})->name();
  }

 private:
  std::string Sum(Value* value, std::vector<int64_t> axes) {
    Value* sum = builder_.Op("ReduceSum", {value, builder_.Ints(std::move(axes))},
                             AttributeList("keepdims", int64_t{0}));
    return sum->name();
  }

  // The shape [samples of the run, rest…].
  Value* PerSample(std::vector<int64_t> rest) {
    if (fixed_batch_ > 0) {
      rest.insert(rest.begin(), fixed_batch_);
      return builder_.Ints(rest);
    }
    Value* shape = builder_.Op("Shape", {graph_.inputs().front()});
    Value* first = builder_.Op("Slice", {shape, builder_.Ints({0}), builder_.Ints({1})});
    return builder_.Op("Concat", {first, builder_.Ints(std::move(rest))},
                       AttributeList("axis", int64_t{0}));
  }

  Graph& graph_;
  Builder builder_;
  int64_t fixed_batch_;
};

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// ε for these samples. The noise of a sample is its own, whatever batch it comes in.
Tensor Noise(const AnswerOutput& output, uint64_t stream, std::span<const int64_t> samples) {
  Dims dims = output.dims;
  const auto count = static_cast<int64_t>(samples.size());
  if (!dims.empty() && output.batch != count) dims[0] = dims[0] / output.batch * count;
  std::vector<float> values(static_cast<size_t>(*ElementCount(dims)));
  const size_t each = values.size() / samples.size();
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t sample = std::min(i / each, samples.size() - 1);
    values[i] = static_cast<float>(
        Normal(RandomAt(stream, static_cast<uint64_t>(samples[sample])), i - sample * each));
  }
  return Tensor::Of<float>(dims, values);
}

std::vector<std::string> Distinct(const FisherRequest& request) {
  std::vector<std::string> names;
  for (const auto* taps : {&request.masks, &request.columns}) {
    for (const Tap& tap : *taps) names.push_back(tap.tensor);
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

// The backward sweep and the sums that are asked for: names of masks, then of columns, then of
// Grams of those columns that are not too many.
std::vector<std::string> AddTaps(Model& model, const AnswerOutput& output, const std::string& seed,
                                 const FisherRequest& request, const Dataset& data) {
  const std::vector<std::string> tensors = Distinct(request);
  const std::vector<Seed> seeds = {{output.name, seed}};
  const Gradients gradients = AddGradients(model, tensors, seeds);
  std::map<std::string, Value*> gradient_of;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (gradients.values[i].empty()) {
      throw UserError(ErrorCode::kUnsupported,
                      fmt::format("no gradient reaches \"{}\"", Printable(tensors[i])))
          .InFile(model.source);
    }
    gradient_of[tensors[i]] = model.graph().FindValue(gradients.values[i]);
  }
  Taps taps(model, data);
  std::vector<std::string> outputs;
  for (const Tap& tap : request.masks) {
    outputs.push_back(taps.Mask(tap, gradient_of.at(tap.tensor)));
  }
  for (const Tap& tap : request.columns) {
    outputs.push_back(taps.Columns(tap, gradient_of.at(tap.tensor)));
  }
  for (const Tap& tap : request.columns) {
    if (tap.length > kMostGramColumns) continue;
    outputs.push_back(taps.ColumnGram(tap, gradient_of.at(tap.tensor)));
  }
  return outputs;
}

}  // namespace

Fisher CollectFisher(const Model& model, const FisherRequest& request, const Context& context,
                     std::span<const int64_t> samples, int64_t draws) {
  const Dataset& data = *context.calibration;
  const AnswerOutput output = FindAnswerOutput(model, context, samples);
  Model swept = model.Clone();
  const double spread = output.classes ? 1 : Spread(model, output, context, samples);
  std::string noise;
  Value* seed = SeedValue(swept, output, spread, noise);
  const std::vector<std::string> outputs = AddTaps(swept, output, seed->name(), request, data);

  const int64_t open = model.WeightBytes() < kLargeModel ? kBatch : 1;
  const Batches batches = MakeBatches(data, samples, open);
  const int64_t batch = data.fixed_batch() > 0 ? data.fixed_batch() : open;
  Fisher fisher;
  fisher.answers = output.answers;
  for (const Tap& tap : request.columns) {
    fisher.columns.emplace_back(Eigen::VectorXd::Zero(tap.length));
    const int64_t side = tap.length > kMostGramColumns ? 0 : tap.length;
    fisher.column_grams.emplace_back(Eigen::MatrixXd::Zero(side, side));
  }
  std::vector<std::vector<Tensor>> found(batches.size());  // [batch][output]
  std::vector<std::vector<float>> rows(request.masks.size());
  for (int64_t draw = 0; draw < draws; ++draw) {
    const uint64_t stream = RandomAt(context.seed, static_cast<uint64_t>(draw));
    Batches noisy = batches;
    for (size_t b = 0; b < noisy.size(); ++b) {
      const int64_t first = static_cast<int64_t>(b) * batch;
      const auto count =
          std::min<size_t>(static_cast<size_t>(batch), samples.size() - static_cast<size_t>(first));
      noisy[b].emplace_back(
          noise, Noise(output, stream, samples.subspan(static_cast<size_t>(first), count)));
    }
    const BatchRun run{swept, noisy, outputs};
    RunBatches(
        std::span(&run, 1), context,
        [&](size_t b, std::vector<std::vector<Tensor>> results) {
          found[b] = std::move(results[0]);
        },
        [&](size_t b) {
          for (size_t i = 0; i < rows.size(); ++i) {
            const std::vector<float> values = found[b][i].ToFloats();
            rows[i].insert(rows[i].end(), values.begin(), values.end());
          }
          size_t place = rows.size();
          for (Eigen::VectorXd& column : fisher.columns) {
            const std::vector<float> sums = found[b][place++].ToFloats();
            column += Eigen::Map<const Eigen::VectorXf>(sums.data(), column.size()).cast<double>();
          }
          for (Eigen::MatrixXd& gram : fisher.column_grams) {
            if (gram.size() == 0) continue;
            const std::vector<float> sums = found[b][place++].ToFloats();
            gram += Eigen::Map<const Eigen::MatrixXf>(sums.data(), gram.rows(), gram.cols())
                        .cast<double>();
          }
          found[b].clear();
          const int64_t left =
              static_cast<int64_t>(samples.size()) - static_cast<int64_t>(b) * batch;
          fisher.samples += data.fixed_batch() > 0 ? batch : std::min(batch, left);
          context.progress(
              "gradients",
              draw * static_cast<int64_t>(batches.size()) + static_cast<int64_t>(b) + 1,
              draws * static_cast<int64_t>(batches.size()));
        });
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    const int64_t length = request.masks[i].length;
    SF_CHECK(static_cast<int64_t>(rows[i].size()) == fisher.samples * length);
    fisher.masks.push_back(
        Eigen::Map<const RowMajor>(rows[i].data(), fisher.samples, length).cast<double>());
  }
  for (Eigen::VectorXd& column : fisher.columns) column /= static_cast<double>(fisher.samples);
  for (Eigen::MatrixXd& gram : fisher.column_grams) gram /= static_cast<double>(fisher.samples);
  return fisher;
}

std::vector<std::string> Unreachable(const Model& model, const std::string& output,
                                     std::span<const std::string> tensors) {
  std::vector<std::string> reasons(tensors.size());
  Model swept = model.Clone();
  const std::vector<Seed> seeds = {{output, ""}};
  const Gradients gradients = AddGradients(swept, tensors, seeds);
  for (const Barrier& barrier : gradients.barriers) {
    for (const std::string& tensor : barrier.tensors) {
      const auto found = std::find(tensors.begin(), tensors.end(), tensor);
      if (found == tensors.end()) continue;
      reasons[static_cast<size_t>(found - tensors.begin())] =
          fmt::format("no gradient passes {}: {}", barrier.node, barrier.reason);
    }
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (gradients.values[i].empty() && reasons[i].empty()) {
      reasons[i] =
          fmt::format("no differentiable path leads from it to output \"{}\"", Printable(output));
    }
  }
  return reasons;
}

}  // namespace sparsefuse
