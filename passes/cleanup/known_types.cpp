#include "passes/cleanup/known_types.h"

#include <utility>

#include "passes/engine/engine.h"

namespace sparsefuse {

KnownTypes::KnownTypes(const Model& model) : model_(model.Clone()) {}

const ValueType* KnownTypes::Find(const Value& value) {
  const Graph* graph = value.graph();
  if (graph->parent() || graph != &graph->model()->graph()) return nullptr;
  if (!inferred_) {
    inferred_ = true;
    for (Node* node : model_.graph().Nodes()) {
      for (Value* output : node->outputs()) {
        if (!output || !output->type()) continue;
        // A graph output must keep its element type.
        ValueType bare = *output->type();
        bare.has_shape = false;
        bare.dims.clear();
        output->set_type(output->is_graph_output() ? std::optional(bare) : std::nullopt);
      }
    }
    try {
      for (Port& port : InferTypes(model_, {.threads = 1, .optimize = false})) {
        types_.emplace(std::move(port.name), std::move(port.type));
      }
    } catch (const UserError&) {
      types_.clear();  // a model that does not load has no inferred types: all unknown
    }
  }
  const auto found = types_.find(value.name());
  return found == types_.end() ? nullptr : &found->second;
}

DType KnownTypes::dtype(const Value& value) {
  if (const Tensor* constant = value.constant()) return constant->dtype();
  const ValueType* type = Find(value);
  return type ? type->dtype : DType::kUndefined;
}

std::optional<int64_t> KnownTypes::rank(const Value& value) {
  if (const Tensor* constant = value.constant()) return constant->rank();
  const ValueType* type = Find(value);
  if (!type || !type->has_shape) return std::nullopt;
  return static_cast<int64_t>(type->dims.size());
}

std::optional<ValueType> KnownTypes::type(const Value& value) {
  if (const Tensor* constant = value.constant()) {
    return ValueType{constant->dtype(), true, {constant->dims().begin(), constant->dims().end()}};
  }
  const ValueType* found = Find(value);
  return found ? std::optional(*found) : std::nullopt;
}

}  // namespace sparsefuse
