// A large constant that is a causal mask (two values, split by a diagonal)
//   M[…,i,j] = above  where j > i + k        below  elsewhere
// becomes Range, comparison and Where, which are a few bytes in the file; M may be rectangular,
// with leading axes of length 1. Exact: the same bits. All inputs of the new nodes are constants,
// so that ONNX Runtime computes the mask once when it loads the model, and a run costs what it did.

#include <fmt/format.h>

#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "passes/cleanup/edits.h"
#include "passes/cleanup/passes.h"
#include "passes/lower/builder.h"

namespace sparsefuse {
namespace {

constexpr int64_t kRangeOpset = 11;  // Range; comparison of integers and Where are older

struct CausalMask {
  int64_t rows, columns, diagonal;  // k
  int64_t below, above;             // elements that hold the two values
};

bool IsTrue(const Tensor& tensor, int64_t index) {
  return tensor.bytes()[static_cast<size_t>(index)] != std::byte{0};
}

// The mask that `tensor` is, or nothing.
std::optional<CausalMask> FindMask(const Tensor& tensor) {
  const Dims& dims = tensor.dims();
  const int bits = DTypeBits(tensor.dtype());
  if (dims.size() < 2 || bits % 8 != 0 || bits == 0) return std::nullopt;
  const int64_t rows = dims[dims.size() - 2], columns = dims.back();
  if (tensor.size() != rows * columns || rows < 2 || columns < 2) return std::nullopt;

  const auto width = static_cast<size_t>(bits / 8);
  const auto Same = [&](int64_t a, int64_t b) {
    const std::byte* data = tensor.bytes().data();
    return std::memcmp(data + static_cast<size_t>(a) * width, data + static_cast<size_t>(b) * width,
                       width) == 0;
  };
  // The corners decide: top right lies above the diagonal, bottom left below.
  const int64_t above = columns - 1, below = (rows - 1) * columns;
  if (Same(above, below)) return std::nullopt;
  if (tensor.dtype() == DType::kBool && IsTrue(tensor, above) == IsTrue(tensor, below)) {
    return std::nullopt;  // two bit patterns of the same truth value
  }
  int64_t diagonal = -1;
  while (diagonal + 1 < columns && Same(diagonal + 1, below)) ++diagonal;  // along the first row
  if (diagonal < 0) {
    int64_t row = 1;
    while (!Same(row * columns, below)) ++row;  // down the first column; ends at `below`
    diagonal = -row;
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      if (!Same(i * columns + j, j > i + diagonal ? above : below)) return std::nullopt;
    }
  }
  return CausalMask{rows, columns, diagonal, below, above};
}

// Element `index` as a scalar.
Tensor Element(const Tensor& tensor, int64_t index) {
  const auto width = static_cast<size_t>(DTypeBits(tensor.dtype()) / 8);
  return Tensor::FromBytes(tensor.dtype(), {},
                           tensor.bytes().subspan(static_cast<size_t>(index) * width, width));
}

// What ONNX Runtime's Where takes on the CPU; a boolean mask is the comparison itself.
bool IsSupported(DType dtype) {
  return dtype == DType::kFloat || dtype == DType::kDouble || dtype == DType::kInt32 ||
         dtype == DType::kInt64 || dtype == DType::kUint8 || dtype == DType::kBool;
}

Value* BuildMask(Builder& builder, const Tensor& tensor, const CausalMask& mask) {
  const auto Scalar = [&](int64_t value) {
    return builder.Constant(Tensor::Scalar<int64_t>(value));
  };
  Dims column(tensor.dims().size(), 1);
  column[column.size() - 2] = mask.rows;
  Value* last_below = builder.Op(  // of each row: i + k
      "Range", {Scalar(mask.diagonal), Scalar(mask.diagonal + mask.rows), Scalar(1)});
  last_below = builder.Op("Reshape", {last_below, builder.Ints(column)});
  Value* j = builder.Op("Range", {Scalar(0), Scalar(mask.columns), Scalar(1)});
  Value* is_above = builder.Op("Less", {last_below, j});
  if (tensor.dtype() == DType::kBool) {
    return IsTrue(tensor, mask.above) ? is_above : builder.Op("Not", {is_above});
  }
  return builder.Op("Where", {is_above, builder.Constant(Element(tensor, mask.above)),
                              builder.Constant(Element(tensor, mask.below))});
}

// Two masks of the same key are the same tensor.
std::string Key(const Tensor& tensor, const CausalMask& mask) {
  std::string key =
      fmt::format("{} {} {} ", DTypeName(tensor.dtype()), ToString(tensor.dims()), mask.diagonal);
  for (int64_t index : {mask.below, mask.above}) {
    const Tensor value = Element(tensor, index);
    for (std::byte byte : value.bytes()) key.push_back(static_cast<char>(byte));
  }
  return key;
}

class FoldMasks final : public Pass {
 public:
  explicit FoldMasks(int64_t min_bytes) : min_bytes_(min_bytes) {}

  PassStats Run(Model& model, Context&) override {
    PassStats stats;
    if (!CanAddInitializers(model, stats)) return stats;
    ForEachGraph(model, [&](Graph& graph) {
      if (!InFunction(graph)) RunGraph(model, graph, stats);
    });
    return stats;
  }

 private:
  void RunGraph(const Model& model, Graph& graph, PassStats& stats) const {
    std::vector<Value*> constants = graph.Initializers();
    for (Node* node : graph.Nodes()) {
      if (node->Is("Constant") && node->output(0)) constants.push_back(node->output(0));
    }
    std::map<std::string, Value*> built;
    for (Value* constant : constants) {
      const Tensor* tensor = constant->constant();
      if (!tensor || tensor->bytes().size() < static_cast<size_t>(min_bytes_)) continue;
      const std::optional<CausalMask> mask = FindMask(*tensor);
      if (!mask || constant->uses().empty()) continue;
      const std::string reason = WhyNot(model, *constant);
      if (!reason.empty()) {
        stats.findings.push_back({.subject = constant->name(), .reason = reason});
        continue;
      }
      Value*& value = built[Key(*tensor, *mask)];
      if (!value) {
        Builder builder(graph);
        builder.InsertBefore(graph.Nodes().front());
        value = BuildMask(builder, *tensor, *mask);
      }
      stats.changed = true;
      stats.findings.push_back(
          {.subject = constant->name(),
           .action = fmt::format("causal mask {} computed instead of stored, {} bytes",
                                 ToString(tensor->dims()), tensor->bytes().size())});
      graph.ReplaceUses(constant, value);
      RemoveIfUnused(constant);
    }
  }

  static std::string WhyNot(const Model& model, const Value& mask) {
    const char* const kCausal = "a causal mask, kept because ";
    if (mask.is_graph_output()) return fmt::format("{}it is a graph output", kCausal);
    if (!IsSupported(mask.constant()->dtype())) {
      return fmt::format("{}Where does not take {}", kCausal, DTypeName(mask.constant()->dtype()));
    }
    if (model.opset() < kRangeOpset) {
      return fmt::format("{}Range needs opset {}: run raise-opset first", kCausal, kRangeOpset);
    }
    return {};
  }

  const int64_t min_bytes_;
};

}  // namespace

const PassInfo kFoldMasks = {
    .name = "fold-masks",
    .summary =
        "computes large constant causal masks when the model is loaded instead of storing them",
    .exactness = Exactness::kLossless,
    .params = {{.name = "min_bytes",
                .otherwise = int64_t{4096},
                .summary = "smaller masks stay as they are",
                .min = 1024}},
    .make = [](const Params& params) -> std::unique_ptr<Pass> {
      return std::make_unique<FoldMasks>(params.Int("min_bytes"));
    }};

}  // namespace sparsefuse
