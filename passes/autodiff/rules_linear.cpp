#include "passes/autodiff/rules_linear.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace sparsefuse {
namespace {

// Last two axes exchanged.
Value* Swapped(Vjp& v, Value* matrix, int64_t rank) {
  std::vector<int64_t> perm = AxisRange(0, rank);
  std::swap(perm[perm.size() - 1], perm[perm.size() - 2]);
  return v.Transpose(matrix, std::move(perm));
}

// The shape of a product before its batch axes are summed back: those of the result, then the
// operand's own two.
std::optional<Lengths> BatchOf(Vjp& v, Value* operand, int64_t rank_y) {
  std::optional<Lengths> shape = v.lengths(v.y());
  const std::optional<Lengths> own = v.lengths(operand);
  if (!shape || !own || static_cast<int64_t>(shape->size()) != rank_y) return std::nullopt;
  std::copy(own->end() - 2, own->end(), shape->end() - 2);
  return shape;
}

// [anything, last axis]
Value* Flat(Vjp& v, Value* x, Value* like, int64_t rank) {
  Value* last = v.Shape(like, rank - 1, rank);
  return v.Op("Reshape", {x, v.Concat({v.Ints({-1}), last})});
}

// dA = dY·Bᵀ and dB = Aᵀ·dY for a vector A [K] or B [K]: as matrices [1, K] and [K, 1], and all
// axes of the product but the vector's own summed.
void GradVectorProduct(Vjp& v, int64_t rank_a, int64_t rank_b) {
  Value *a = v.x(0), *b = v.x(1), *g = v.dy();
  if (rank_a == 1) {
    a = v.Op("Unsqueeze", {a, v.Ints({0})});
    g = v.Op("Unsqueeze", {g, v.Ints({rank_b == 1 ? 0 : -2})});
  }
  if (rank_b == 1) {
    b = v.Op("Unsqueeze", {b, v.Ints({1})});
    g = v.Op("Unsqueeze", {g, v.Ints({-1})});
  }
  const int64_t height_a = std::max<int64_t>(rank_a, 2), height_b = std::max<int64_t>(rank_b, 2);
  const int64_t rank = std::max(height_a, height_b);
  const std::vector<int64_t> batch = AxisRange(0, rank - 2);
  if (v.Wants(0)) {
    Value* da = v.Op("MatMul", {g, Swapped(v, b, height_b)});
    if (rank_a == 1 && !batch.empty()) da = v.Sum(da, batch, false);
    v.Give(0, rank_a == 1 ? v.ReshapeLike(da, v.x(0)) : da);  // B is a vector otherwise: no batch
  }
  if (v.Wants(1)) {
    Value* db = v.Op("MatMul", {Swapped(v, a, height_a), g});
    if (rank_b == 1 && !batch.empty()) db = v.Sum(db, batch, false);
    v.Give(1, rank_b == 1 ? v.ReshapeLike(db, v.x(1)) : db);
  }
}

}  // namespace

void GradMatMul(Vjp& v) {
  Value *a = v.x(0), *b = v.x(1), *dy = v.dy();
  const int64_t rank_a = v.NeedRank(a), rank_b = v.NeedRank(b);
  if (rank_a == 1 || rank_b == 1) return GradVectorProduct(v, rank_a, rank_b);
  const int64_t rank = std::max(rank_a, rank_b);
  if (v.Wants(0)) {
    Value* da = v.Op("MatMul", {dy, Swapped(v, b, rank_b)});
    v.Give(0, rank_a == 2 && rank_b == 2 ? da : v.SumTo(da, BatchOf(v, a, rank), a));
  }
  if (!v.Wants(1)) return;
  if (rank_b == 2) {  // one product, not one a batch element
    Value* rows = rank_a == 2 ? a : Flat(v, a, a, rank_a);
    Value* g = rank_a == 2 ? dy : Flat(v, dy, b, rank_b);
    v.Give(1, v.Op("MatMul", {Swapped(v, rows, 2), g}));
  } else {
    Value* db = v.Op("MatMul", {Swapped(v, a, rank_a), dy});
    v.Give(1, v.SumTo(db, BatchOf(v, b, rank), b));
  }
}

// Y = α·A'·B' + β·C, A' = A or Aᵀ, B' = B or Bᵀ
void GradGemm(Vjp& v) {
  const float alpha = v.node().GetFloat("alpha", 1), beta = v.node().GetFloat("beta", 1);
  const int64_t turned_a = v.node().GetInt("transA", 0) != 0;
  const int64_t turned_b = v.node().GetInt("transB", 0) != 0;
  Value *a = v.x(0), *b = v.x(1), *dy = v.dy();
  const auto product = [&](Value* left, int64_t turn_left, Value* right, int64_t turn_right) {
    return v.Op("Gemm", {left, right},
                AttributeList("alpha", alpha, "transA", turn_left, "transB", turn_right));
  };
  if (v.Wants(0)) v.Give(0, turned_a ? product(b, turned_b, dy, 1) : product(dy, 0, b, !turned_b));
  if (v.Wants(1)) v.Give(1, turned_b ? product(dy, 1, a, turned_a) : product(a, !turned_a, dy, 0));
  if (v.Wants(2)) v.GiveSummed(2, beta == 1 ? dy : v.Mul(dy, v.Number(beta)));
}

}  // namespace sparsefuse
