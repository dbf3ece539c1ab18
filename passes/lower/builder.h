// Writes chains of nodes into a graph or a function body, with short fresh names and constants
// shared by value.

#ifndef SPARSEFUSE_PASSES_LOWER_BUILDER_H_
#define SPARSEFUSE_PASSES_LOWER_BUILDER_H_

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "onnx_io/model.h"

namespace sparsefuse {

using Attributes = std::vector<std::pair<std::string, Attribute::Data>>;

// Attributes from alternating names and data. (An initialiser list would have to copy them.)
template <typename... More>
Attributes AttributeList(std::string name, Attribute::Data data, More&&... more) {
  Attributes list;
  if constexpr (sizeof...(more) > 0) list = AttributeList(std::forward<More>(more)...);
  list.emplace(list.begin(), std::move(name), std::move(data));
  return list;
}

class Builder {
 public:
  // Constants become initializers in a model's graph and Constant nodes in a function body, which
  // has no initializers.
  enum class Constants { kInitializers, kNodes };

  explicit Builder(Graph& graph, Constants constants = Constants::kInitializers)
      : graph_(graph), constants_(constants) {}

  // New nodes go before `node`; null: at the end.
  void InsertBefore(Node* node) { before_ = node; }

  // A node with one output.
  Value* Op(std::string op, std::vector<Value*> inputs, Attributes attributes = {},
            std::string domain = "");
  // The same, its output taking over `output`: name, uses, place among the graph's outputs.
  void OpAs(Value* output, std::string op, std::vector<Value*> inputs, Attributes attributes = {},
            std::string domain = "");

  Value* Cast(Value* x, DType type);
  // Each branch writes into a graph of its own, which may read this one's values, and returns its
  // result.
  using Branch = std::function<Value*(Builder&)>;
  Value* If(Value* condition, const Branch& then_branch, const Branch& else_branch);

  // A constant; up to 64 KiB the same bytes, type and shape give the same value.
  Value* Constant(const Tensor& tensor);
  Value* Ints(std::vector<int64_t> values);  // int64 [n]
  Value* Float(float value);                 // float []
  // Function bodies: the function's attribute, int64 [1] or float [].
  Value* IntsAttribute(std::string_view name);
  Value* FloatAttribute(std::string_view name);

 private:
  Node* NewNode(std::string op, std::vector<Value*> inputs, Attributes attributes,
                std::string domain);

  Graph& graph_;
  Constants constants_;
  Node* before_ = nullptr;
  std::map<std::string, Value*> shared_;  // key: dtype, dims, bytes
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_LOWER_BUILDER_H_
