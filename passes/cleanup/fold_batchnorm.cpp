// Conv → BatchNormalization (inference form) becomes Conv alone; likewise ConvTranspose and Gemm.
// With s[m] = γ[m]/√(σ²[m]+ε) for output channel m:
//   W'[m,…] = W[m,…] · s[m]        b'[m] = (b[m] − μ[m]) · s[m] + β[m]
// Exact up to rounding. Skips a convolution whose output or weight has another use: the unfolded
// values are still needed.

#include <cmath>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "passes/cleanup/edits.h"
#include "passes/cleanup/passes.h"

namespace sparsefuse {
namespace {

// Where output channel m lies in the weight: a weight of `outer` × channels × `inner` elements.
// ConvTranspose keeps [C, M/groups, …]: group g holds channels g·M/groups … of the rows g·C/groups
// ….
struct Layout {
  int64_t groups, outer, channels, inner;  // channels and outer: of one group
};

struct Fold {
  Node* linear;
  Node* norm;
  Layout layout;
  Tensor weight, bias;
};

// The weight's layout, or nothing where its rank does not fit the operator.
std::optional<Layout> LayoutOf(const Node& linear, const Tensor& weight) {
  const Dims& dims = weight.dims();
  if (linear.Is("Gemm")) {
    if (dims.size() != 2) return std::nullopt;
    if (linear.GetInt("transB", 0)) return Layout{1, 1, dims[0], dims[1]};
    return Layout{1, dims[0], dims[1], 1};
  }
  if (dims.size() < 3) return std::nullopt;
  int64_t taps = 1;
  for (size_t i = 2; i < dims.size(); ++i) taps *= dims[i];
  if (linear.Is("Conv")) return Layout{1, 1, dims[0], dims[1] * taps};
  const int64_t groups = linear.GetInt("group", 1);
  if (groups < 1 || dims[0] % groups != 0) return std::nullopt;
  return Layout{groups, dims[0] / groups, dims[1], taps};
}

bool IsVector(const Tensor* tensor, int64_t size) {
  return tensor && tensor->dtype() == DType::kFloat && tensor->size() == size;
}

// Gemm's C may be any shape that broadcasts to [rows, N]: one that is the same for all rows.
bool IsRowBias(const Tensor& bias, int64_t size) {
  if (bias.dtype() != DType::kFloat) return false;
  if (bias.size() == 1) return true;
  return bias.size() == size && bias.dims().back() == size;
}

// Why `norm` cannot be folded into what produces its input; fills `fold` otherwise.
std::string Examine(Node& norm, const Context& context, Fold& fold) {
  Node* linear = norm.input(0) ? norm.input(0)->producer() : nullptr;
  if (!linear || !(linear->Is("Conv") || linear->Is("ConvTranspose") || linear->Is("Gemm"))) {
    return "its input does not come from a convolution or Gemm";
  }
  if (context.Excluded(norm) || context.Excluded(*linear)) return "excluded";
  if (linear->graph() != norm.graph()) return "its convolution lies in another graph";
  if (InFunction(*norm.graph())) return "it lies in a function's body";
  if (norm.GetInt("training_mode", 0)) return "it is in training mode";
  if (norm.GetInt("spatial", 1) != 1) return "spatial = 0";
  for (size_t i = 1; i < norm.outputs().size(); ++i) {
    if (norm.output(i)) return "it is in training form (more than one output)";
  }
  if (!linear->output(0)->has_single_use()) return "the convolution's output has another use";
  const Value* weight = linear->input(1);
  if (!weight || !weight->constant()) {
    return weight && weight->initializer()
               ? "the convolution's weight is a graph input too, which a caller may override"
               : "the convolution's weight is not constant";
  }
  if (!weight->has_single_use()) return "the convolution's weight has another use";
  if (weight->constant()->dtype() != DType::kFloat) return "the convolution's weight is not float";
  const std::optional<Layout> layout = LayoutOf(*linear, *weight->constant());
  if (!layout) return "the convolution's weight has an unexpected rank";

  const int64_t channels = layout->groups * layout->channels;
  for (size_t i = 1; i <= 4; ++i) {
    if (!IsVector(norm.constant_input(i), channels)) {
      return "its parameters are not constant float vectors, one entry a channel";
    }
  }
  if (linear->input(2)) {
    const Tensor* bias = linear->constant_input(2);
    if (!bias || !(linear->Is("Gemm") ? IsRowBias(*bias, channels) : IsVector(bias, channels))) {
      return "the convolution's bias is not a constant float vector, one entry a channel";
    }
  }
  fold.linear = linear;
  fold.norm = &norm;
  fold.layout = *layout;
  return {};
}

// Fills the new weight and bias, in double precision until the end; false when a number is not
// finite.
bool Compute(Fold& fold) {
  const Layout& layout = fold.layout;
  const auto channels = static_cast<size_t>(layout.groups * layout.channels);
  const auto Vector = [&](size_t i) { return fold.norm->constant_input(i)->ToFloats(); };
  const std::vector<float> gamma = Vector(1), beta = Vector(2), mean = Vector(3), var = Vector(4);
  const double epsilon = fold.norm->GetFloat("epsilon", 1e-5f);
  std::vector<float> old_bias(channels, 0);
  double old_factor = 1;
  if (const Tensor* bias = fold.linear->constant_input(2)) {
    old_bias = bias->ToFloats();
    if (old_bias.size() != channels) old_bias.assign(channels, old_bias.at(0));
    if (fold.linear->Is("Gemm")) old_factor = fold.linear->GetFloat("beta", 1);
  }

  std::vector<double> scale(channels);
  std::vector<float> bias(channels);
  for (size_t m = 0; m < channels; ++m) {
    scale[m] = gamma[m] / std::sqrt(var[m] + epsilon);
    bias[m] = static_cast<float>((old_factor * old_bias[m] - mean[m]) * scale[m] + beta[m]);
    if (!std::isfinite(scale[m]) || !std::isfinite(bias[m])) return false;
  }
  const Tensor& old_weight = *fold.linear->constant_input(1);
  std::vector<float> weight = old_weight.ToFloats();
  const auto inner = static_cast<size_t>(layout.inner);
  for (size_t i = 0; i < weight.size(); ++i) {
    const auto row = static_cast<int64_t>(i / inner);  // of groups · outer · channels
    const int64_t group = row / (layout.outer * layout.channels);
    const int64_t channel = group * layout.channels + row % layout.channels;
    weight[i] = static_cast<float>(weight[i] * scale[static_cast<size_t>(channel)]);
    if (!std::isfinite(weight[i])) return false;
  }
  fold.weight = Tensor::Of<float>(old_weight.dims(), weight);
  fold.bias = Tensor::Of<float>({static_cast<int64_t>(channels)}, bias);
  return true;
}

void Commit(Fold& fold, PassStats& stats) {
  Graph& graph = *fold.linear->graph();
  ReplaceConstant(*fold.linear, 1, "weight", std::move(fold.weight));
  ReplaceConstant(*fold.linear, 2, "bias", std::move(fold.bias));
  if (fold.linear->Is("Gemm")) fold.linear->RemoveAttribute("beta");

  // One constant may serve as several parameters.
  const std::vector<Value*>& norm_inputs = fold.norm->inputs();
  const std::set<Value*> parameters(norm_inputs.begin() + 1, norm_inputs.end());
  stats.Done(*fold.linear, "BatchNormalization merged into it");
  graph.SetInput(fold.norm, 0, nullptr);
  graph.MoveOutput(fold.norm->output(0), fold.linear, 0);
  graph.RemoveNode(fold.norm);
  for (Value* parameter : parameters) RemoveIfUnused(parameter);
  ++stats.nodes_removed;
  stats.tensors_rewritten += 2;
}

class FoldBatchNorm final : public Pass {
 public:
  PassStats Run(Model& model, Context& context) override {
    PassStats stats;
    if (!CanAddInitializers(model, stats)) return stats;
    // Folding one of two normalisations in a row makes the other one foldable.
    for (bool again = true; again;) {
      std::vector<Finding> skipped;
      again = false;
      for (Node* norm : Norms(model)) {
        Fold fold{};
        std::string reason = Examine(*norm, context, fold);
        if (reason.empty() && !Compute(fold)) reason = "the merged numbers would not be finite";
        if (reason.empty()) {
          Commit(fold, stats);
          again = true;
        } else {
          PassStats one;
          one.Skip(*norm, std::move(reason));
          skipped.push_back(std::move(one.findings.front()));
        }
      }
      if (!again) stats.findings.insert(stats.findings.end(), skipped.begin(), skipped.end());
    }
    return stats;
  }

 private:
  static std::vector<Node*> Norms(Model& model) {
    std::vector<Node*> norms;
    ForEachGraph(model, [&](Graph& graph) {
      for (Node* node : graph.Nodes()) {
        if (node->Is("BatchNormalization")) norms.push_back(node);
      }
    });
    return norms;
  }
};

}  // namespace

const PassInfo kFoldBatchNorm = {
    .name = "fold-batchnorm",
    .summary = "merges inference-time BatchNormalization into the convolution before it",
    .exactness = Exactness::kLossless,
    .params = {},
    .make = [](const Params&) -> std::unique_ptr<Pass> {
      return std::make_unique<FoldBatchNorm>();
    }};

}  // namespace sparsefuse
