// Element types and ranks that follow from the operators alone: ONNX Runtime's inference of the
// model without its annotations, which exporters sometimes get wrong.

#ifndef SPARSEFUSE_PASSES_CLEANUP_KNOWN_TYPES_H_
#define SPARSEFUSE_PASSES_CLEANUP_KNOWN_TYPES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>

#include "onnx_io/model.h"

namespace sparsefuse {

// Inferred on the first question, so that a pass that asks none costs nothing. Answers for values
// of the main graph as it was at construction; later ones, values in subgraphs and function bodies,
// and every value of a model that ONNX Runtime cannot load are unknown.
class KnownTypes {
 public:
  explicit KnownTypes(const Model& model);

  DType dtype(const Value& value);                  // kUndefined: unknown
  std::optional<int64_t> rank(const Value& value);  // nullopt: unknown
  std::optional<ValueType> type(const Value& value);

 private:
  const ValueType* Find(const Value& value);

  Model model_;
  bool inferred_ = false;
  std::unordered_map<std::string, ValueType> types_;
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_CLEANUP_KNOWN_TYPES_H_
