// What a gradient rule works with: one node, the gradients that arrive at its outputs, and a writer
// of nodes that knows the types of the forward values.

#ifndef SPARSEFUSE_PASSES_AUTODIFF_VJP_H_
#define SPARSEFUSE_PASSES_AUTODIFF_VJP_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "onnx_io/model.h"
#include "passes/cleanup/known_types.h"
#include "passes/lower/builder.h"

namespace sparsefuse {

// Thrown by a rule for a form of its operator that it does not cover. Nodes that it wrote before
// are removed with everything else that nothing uses.
struct NoGradient {
  std::string reason;
};

inline constexpr int64_t kScatterAddOpset = 16;  // ScatterElements with reduction

std::vector<int64_t> AxisRange(int64_t first, int64_t end);  // first, first + 1, … end − 1

// A shape as far as it is known before running; a symbol stands for the same length everywhere, an
// empty one for any.
using Lengths = std::vector<std::variant<int64_t, std::string>>;

// Builder with what is known of forward values: those of the model before the sweep. Questions
// about values that the sweep wrote have no answer.
class ShapedBuilder : public Builder {
 public:
  ShapedBuilder(Graph& graph, KnownTypes& types) : Builder(graph), graph_(graph), types_(types) {}

  Graph& graph() { return graph_; }
  DType dtype(Value* x);                  // NoGradient where it is unknown
  std::optional<int64_t> rank(Value* x);  // nullopt also for scalars that are no constants
  std::optional<Lengths> lengths(Value* x);
  std::optional<std::vector<int64_t>> fixed_shape(Value* x);  // nullopt unless all are numbers
  // As rank(), but NoGradient where it is unknown.
  int64_t NeedRank(Value* x);
  // `axis` counted from 0.
  int64_t Axis(Value* x, int64_t axis) { return axis < 0 ? axis + NeedRank(x) : axis; }

  Value* Shape(Value* x);                              // int64 [rank]; a constant where known
  Value* Shape(Value* x, int64_t first, int64_t end);  // its part; end < 0 only as "to the last"
  Value* Count(Value* x, int64_t first = 0, int64_t end = kToLast);  // product of that: int64 [1]
  Value* Number(double number, Value* like);                         // scalar of the type of `like`
  Value* Ones(std::vector<int64_t> shape, Value* like);
  Value* Filled(double number, Value* shape, Value* like);  // `shape`: int64 [rank]

  Value* Add(Value* a, Value* b) { return Op("Add", {a, b}); }
  Value* Sub(Value* a, Value* b) { return Op("Sub", {a, b}); }
  Value* Mul(Value* a, Value* b) { return Op("Mul", {a, b}); }
  Value* Div(Value* a, Value* b) { return Op("Div", {a, b}); }
  Value* Concat(std::vector<Value*> parts);  // 1-D
  Value* Sum(Value* x, std::vector<int64_t> axes, bool keep);
  Value* Mean(Value* x, const std::vector<int64_t>& axes, Value* like);  // axes kept
  Value* Transpose(Value* x, std::vector<int64_t> perm);
  Value* ReshapeLike(Value* g, Value* like) { return Op("Reshape", {g, Shape(like)}); }

  // Undoes broadcasting: g, of shape `from`, summed over the axes along which `target` was repeated
  // and shaped like it. Where lengths are not known the axes are found at run time.
  Value* SumTo(Value* g, const std::optional<Lengths>& from, Value* target);

  static constexpr int64_t kToLast = INT64_MAX;

 private:
  Value* SumToAtRunTime(Value* g, Value* target);

  Graph& graph_;
  KnownTypes& types_;
  std::map<Value*, Value*> shapes_;
};

// One node in the sweep. A rule gives a gradient for every input it Wants; what it leaves out
// becomes a barrier.
class Vjp : public ShapedBuilder {
 public:
  using ShapedBuilder::ShapedBuilder;

  // `arrived`: one an output, null where no gradient arrives; `wanted`: one an input. Returns one
  // an input, null where the rule gave none.
  std::vector<Value*> Apply(void (*rule)(Vjp&), Node& node, std::vector<Value*> arrived,
                            std::vector<bool> wanted);

  Node& node() { return *node_; }
  Value* x(size_t i = 0) { return node_->input(i); }
  Value* y(size_t i = 0) { return node_->output(i); }
  Value* dy(size_t i = 0) { return i < arrived_.size() ? arrived_[i] : nullptr; }
  bool Wants(size_t i) const { return i < wanted_.size() && wanted_[i]; }
  size_t input_count() const { return node_->inputs().size(); }

  void Give(size_t i, Value* gradient);        // shaped like input i
  void GiveSummed(size_t i, Value* gradient);  // shaped like output 0: broadcasting undone here

  // Of the type of input 0.
  Value* Number(double number) { return ShapedBuilder::Number(number, x()); }
  using ShapedBuilder::Number;
  Value* Keep(Value* mask, Value* g) { return Op("Where", {mask, g, Number(0)}); }  // else 0

  // The node's numbers and strings, for a node like it.
  Attributes PlainAttributes() const;
  // NoGradient where the model's opset is older.
  void NeedOpset(int64_t opset);

 private:
  Node* node_ = nullptr;
  std::vector<Value*> arrived_, given_;
  std::vector<bool> wanted_;
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_AUTODIFF_VJP_H_
