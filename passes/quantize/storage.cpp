#include "passes/quantize/storage.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "passes/lower/builder.h"
#include "passes/lower/unpack_filters.h"
#include "passes/quantize/convolution_plan.h"
#include "passes/quantize/filter_cache.h"
#include "passes/quantize/linear_weights.h"
#include "passes/quantize/rounding.h"

namespace sparsefuse {
namespace {

// The axis of `node`'s weight, input 1, that runs over outputs; −1: not a kind of weight that is
// stored.
int64_t OutputAxis(const Node& node, const Tensor& weight) {
  if (node.Is("MatMul")) return weight.rank() == 2 ? 1 : -1;
  if (node.Is("Gemm")) return node.GetInt("transB", 0) != 0 ? 0 : 1;
  if (node.Is("Conv")) return 0;
  if (node.Is("ConvTranspose")) return 1;
  return -1;
}

// `weight` seen as [outer, outputs, inner] ↔ rows [outputs, outer·inner].
struct AxisView {
  int64_t outer = 1, outputs = 1, inner = 1;

  AxisView(const Dims& dims, int64_t axis) {
    for (size_t i = 0; i < dims.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      (at < axis ? outer : at == axis ? outputs : inner) *= dims[i];
    }
  }
  int64_t row_length() const { return outer * inner; }
  // Where element `k` of row `n` lies in the weight.
  size_t Index(int64_t n, int64_t k) const {
    return static_cast<size_t>(((k / inner) * outputs + n) * inner + k % inner);
  }
};

// Codes and scales in the weight's own shape, scales with 1 on every other axis.
struct StoredTensor {
  Tensor codes, scales;
  double error;
};

StoredTensor QuantizeTensor(const Tensor& weight, int64_t axis, int threads) {
  const AxisView view(weight.dims(), axis);
  const std::vector<float> values = weight.ToFloats();
  std::vector<float> rows(values.size());
  for (int64_t n = 0; n < view.outputs; ++n) {
    for (int64_t k = 0; k < view.row_length(); ++k) {
      rows[static_cast<size_t>(n * view.row_length() + k)] = values[view.Index(n, k)];
    }
  }
  const QuantizedWeight quantized =
      QuantizeLinearWeight(rows, view.row_length(), view.outputs, {}, PairBound::kNone, threads);
  std::vector<int8_t> codes(values.size());
  for (int64_t n = 0; n < view.outputs; ++n) {
    for (int64_t k = 0; k < view.row_length(); ++k) {
      codes[view.Index(n, k)] = quantized.codes[static_cast<size_t>(n * view.row_length() + k)];
    }
  }
  Dims scale_dims(weight.dims().size(), 1);
  scale_dims[static_cast<size_t>(axis)] = view.outputs;
  return {Tensor::Of<int8_t>(weight.dims(), codes),
          Tensor::Of<float>(std::move(scale_dims), Scales(quantized)),
          RelativeError(rows, quantized)};
}

// The weight as floats, of int8 codes or of nibbles; what it costs in `error`, how in `action`.
class WeightStore {
 public:
  WeightStore(Model& model, const Context& context, const std::set<std::string>& packed,
              bool search)
      : model_(model),
        context_(context),
        packed_(packed),
        search_(search),
        builder_(model.graph()) {}

  Value* Store(Node* node, int64_t axis) {
    builder_.InsertBefore(node);
    const Tensor& weight = *node->constant_input(1);
    return packed_.contains(KeyOf(*node)) ? StorePacked(*node, weight) : StoreInt8(weight, axis);
  }

  double error = 0;
  std::string_view action;

 private:
  Value* StoreInt8(const Tensor& weight, int64_t axis) {
    const StoredTensor stored = QuantizeTensor(weight, axis, context_.threads);
    error = stored.error;
    action = "weight stored as int8, computed in float";
    return Scaled(builder_.Constant(stored.codes), stored.scales);
  }

  Value* StorePacked(const Node& node, const Tensor& weight) {
    const Dims& dims = weight.dims();
    std::optional<Eigen::MatrixXd> moments;
    if (search_) moments = InputMoments(model_, context_, KeyOf(node));
    const PackedFilters packed =
        RoundFilters(weight.ToFloats(), dims[0], moments ? &*moments : nullptr, context_.threads);
    error = packed.relative_error;
    action = "filters stored as int4, computed in float";
    Dims scale_dims(dims.size(), 1);
    scale_dims[0] = dims[0];
    return Scaled(UnpackedFilters(builder_, model_, packed.nibbles, packed.multipliers, dims),
                  Tensor::Of(std::move(scale_dims), packed.scales));
  }

  Value* Scaled(Value* codes, const Tensor& scales) {
    return builder_.Op("Mul", {builder_.Cast(codes, DType::kFloat), builder_.Constant(scales)});
  }

  Model& model_;
  const Context& context_;
  const std::set<std::string>& packed_;
  bool search_;
  Builder builder_;
};

}  // namespace

void StoreFloatWeights(Model& model, const Context& context, const std::set<std::string>& packed,
                       bool search, PassStats& stats) {
  Graph& graph = model.graph();
  WeightStore store(model, context, packed, search);
  for (Node* node : graph.Nodes()) {
    const Tensor* weight = node->constant_input(1);
    if (!weight || weight->dtype() != DType::kFloat || weight->size() < kMinStoredElements) {
      continue;
    }
    const int64_t axis = OutputAxis(*node, *weight);
    Value* value = node->input(1);
    if (axis < 0 || context.Excluded(*node) || !AllFinite(weight->ToFloats())) continue;
    if (!value->has_single_use() || value->is_graph_input()) {
      stats.Skip(*node, "weight has another use, so it stays stored in float");
      continue;
    }
    graph.SetInput(node, 1, store.Store(node, axis));
    if (Node* constant = value->producer()) {
      graph.RemoveNode(constant);
    } else {
      graph.RemoveInitializer(value);
    }
    stats.Done(*node, std::string(store.action), store.error);
    ++stats.tensors_rewritten;
    stats.changed = true;
  }
}

}  // namespace sparsefuse
