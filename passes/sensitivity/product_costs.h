// What products with weights cost, before units go and after.

#ifndef SPARSEFUSE_PASSES_SENSITIVITY_PRODUCT_COSTS_H_
#define SPARSEFUSE_PASSES_SENSITIVITY_PRODUCT_COSTS_H_

#include <span>
#include <vector>

#include "onnx_io/model.h"
#include "passes/analysis/structure.h"
#include "passes/framework/context.h"
#include "passes/sensitivity/prunable.h"

namespace sparsefuse {

// What a model's products with weights cost, and what is left of it when units go.
class ProductCosts {
 public:
  enum class Unit { kFlops, kParameters };

  // Multiply-adds of one sample (run once, for the shapes), or elements of weights. Needs
  // context.calibration for multiply-adds.
  ProductCosts(const Model& model, Unit unit, const Context& context);

  double total() const { return total_; }
  // Of the products that the modules run through, and of those in the blocks that they end.
  double Of(std::span<const Prunable* const> modules) const;
  // What the keeps and the blocks that go save, all together.
  double Saved(std::span<const Keep> keeps, std::span<const Block* const> gone = {}) const;

 private:
  struct Product {
    const Node* node;
    const Value* weight;
    double cost;  // of a weight's elements only once, with the first product that reads it
  };

  Unit unit_;
  std::vector<Product> products_;
  double total_ = 0;
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_SENSITIVITY_PRODUCT_COSTS_H_
