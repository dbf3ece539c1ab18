#include "passes/sparsify/gather.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>
#include <utility>

#include "passes/prune/removal.h"
#include "passes/prune/removal_sizes.h"
#include "passes/sensitivity/prunable.h"
#include "passes/sparsify/sweep.h"
#include "passes/statistics/gram.h"

namespace sparsefuse {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr double kMostError = 1e-4;
constexpr size_t kVerifiedSamples = 4;
constexpr Index kQuad = 4, kPanel = 32;

// Each row divided by its length, so that rows are compared by where they cost.
MatrixXd Directions(std::span<const UnitCosts> matrices) {
  Index columns = 0;
  for (const UnitCosts& matrix : matrices) columns += matrix.costs.cols();
  MatrixXd all(matrices[0].costs.rows(), columns);
  Index next = 0;
  for (const UnitCosts& matrix : matrices) {
    all.middleCols(next, matrix.costs.cols()) = matrix.costs;
    next += matrix.costs.cols();
  }
  for (Index u = 0; u < all.rows(); ++u) all.row(u) /= std::max(all.row(u).norm(), 1e-300);
  return all;
}

// The most expensive unit left takes the three that are most like it, and so on.
std::vector<int64_t> AlikeOrder(const std::vector<int64_t>& by_cost, const MatrixXd& directions) {
  std::vector<int64_t> left = by_cost, order;
  while (!left.empty()) {
    const int64_t first = left.front();
    left.erase(left.begin());
    order.push_back(first);
    const VectorXd alike = directions * directions.row(first).transpose();
    std::vector<int64_t> near = left;
    const auto count = std::min<size_t>(near.size(), static_cast<size_t>(kQuad) - 1);
    std::stable_sort(near.begin(), near.end(),
                     [&](int64_t a, int64_t b) { return alike[a] > alike[b]; });
    for (size_t i = 0; i < count; ++i) {
      order.push_back(near[i]);
      left.erase(std::find(left.begin(), left.end(), near[i]));
    }
  }
  return order;
}

// For each unit its positions, ascending.
std::vector<std::vector<size_t>> PositionsOf(const std::vector<int64_t>& unit_of, int64_t units) {
  std::vector<std::vector<size_t>> positions(static_cast<size_t>(units));
  for (size_t i = 0; i < unit_of.size(); ++i) {
    if (unit_of[i] >= 0) positions[static_cast<size_t>(unit_of[i])].push_back(i);
  }
  return positions;
}

// The cost of each weight alone, (w²)/[H⁻¹]_jj, summed over quads of inputs or panels of outputs,
// with the other side by unit: [units, places × sums].
UnitCosts CostsOf(const MatrixXd& costs, const std::vector<int64_t>& unit_of, int64_t units,
                  bool units_are_inputs) {
  const MatrixXd by_unit = units_are_inputs ? costs : MatrixXd(costs.transpose());
  const Index width = units_are_inputs ? kPanel : kQuad;
  const Index sums = (by_unit.cols() + width - 1) / width;
  const auto positions = PositionsOf(unit_of, units);
  const auto places = static_cast<Index>(positions[0].size());
  UnitCosts result{MatrixXd::Zero(units, places * sums), units_are_inputs ? kQuad : kPanel};
  for (Index u = 0; u < units; ++u) {
    for (Index p = 0; p < places; ++p) {
      const auto row =
          static_cast<Index>(positions[static_cast<size_t>(u)][static_cast<size_t>(p)]);
      for (Index s = 0; s < sums; ++s) {
        const Index left = s * width;
        result.costs(u, p * sums + s) =
            by_unit.row(row).segment(left, std::min(width, by_unit.cols() - left)).sum();
      }
    }
  }
  return result;
}

bool IsFree(const Module& module) {
  if (module.residual || module.units < 2 * kQuad) return false;
  if (module.kind == ModuleKind::kNeurons) return module.reason.empty();
  return module.kind == ModuleKind::kHeadWidthV;
}

// Each unit stands at as many positions as every other one, on every axis.
bool IsEven(const Module& module) {
  return std::all_of(module.axes.begin(), module.axes.end(), [&](const ModuleAxis& axis) {
    const auto positions = PositionsOf(axis.unit_of, module.units);
    return std::all_of(positions.begin(), positions.end(), [&](const auto& of) {
      return !of.empty() && of.size() == positions[0].size();
    });
  });
}

struct Products {
  std::vector<MatrixView> views;
  std::vector<const std::vector<int64_t>*> unit_of;
  std::vector<bool> consumes;
};

// The module's products that are matrices.
Products ProductsOf(const Module& module) {
  Products products;
  for (const bool consumes : {true, false}) {
    for (const Node* node : consumes ? module.consumers : module.producers) {
      const std::optional<MatrixView> view = AsMatrix(*node);
      if (!view || view->kernel != 1) continue;
      const size_t axis = view->weight_is_rows == consumes ? 1 : 0;
      for (const ModuleAxis& it : module.axes) {
        if (it.tensor != view->weight || it.axis != axis) continue;
        products.views.push_back(*view);
        products.unit_of.push_back(&it.unit_of);
        products.consumes.push_back(consumes);
      }
    }
  }
  return products;
}

std::vector<UnitCosts> MeasureCosts(const Model& model, const Module& module,
                                    const Products& products, const Batches& fit,
                                    const std::optional<std::string>& mask,
                                    const Context& context) {
  std::vector<RowRequest> requests;
  for (const MatrixView& view : products.views) requests.push_back({InputRows(view), true});
  const std::vector<RowStatistics> rows = CollectRows(model, requests, fit, mask, context);
  std::vector<UnitCosts> costs;
  for (size_t i = 0; i < rows.size(); ++i) {
    const SweepFactor factor = FactorOf(rows[i].gram / std::max(rows[i].count, 1.0));
    const VectorXd inverse = factor.upper.colwise().squaredNorm();
    const MatrixXd weights =
        inverse.cwiseInverse().asDiagonal() * Weight(products.views[i]).cwiseAbs2();
    costs.push_back(CostsOf(weights, *products.unit_of[i], module.units, products.consumes[i]));
  }
  return costs;
}

}  // namespace

double DroppedCost(std::span<const UnitCosts> matrices, std::span<const int64_t> order,
                   double share) {
  double sum = 0;
  for (const UnitCosts& matrix : matrices) {
    std::vector<double> cells;
    const auto units = static_cast<Index>(order.size());
    for (Index first = 0; first < units; first += matrix.chunk) {
      Eigen::RowVectorXd chunk = Eigen::RowVectorXd::Zero(matrix.costs.cols());
      for (Index u = first; u < std::min(first + matrix.chunk, units); ++u) {
        chunk += matrix.costs.row(order[static_cast<size_t>(u)]);
      }
      cells.insert(cells.end(), chunk.begin(), chunk.end());
    }
    std::sort(cells.begin(), cells.end());
    const auto dropped =
        static_cast<std::ptrdiff_t>(std::ceil(share * static_cast<double>(cells.size()) - 1e-9));
    sum += std::accumulate(cells.begin(), cells.begin() + dropped, 0.0);
  }
  return sum;
}

std::vector<int64_t> FindOrder(std::span<const UnitCosts> matrices, double share) {
  const auto units = static_cast<size_t>(matrices[0].costs.rows());
  VectorXd totals = VectorXd::Zero(matrices[0].costs.rows());
  for (const UnitCosts& matrix : matrices) {
    totals += matrix.costs.rowwise().sum() / std::max(matrix.costs.sum(), 1e-300);
  }
  std::vector<int64_t> best(units);
  std::iota(best.begin(), best.end(), 0);
  double least = DroppedCost(matrices, best, share);
  std::vector<int64_t> by_cost = best;
  std::stable_sort(by_cost.begin(), by_cost.end(),
                   [&](int64_t a, int64_t b) { return totals[a] > totals[b]; });
  for (const std::vector<int64_t>& order : {by_cost, AlikeOrder(by_cost, Directions(matrices))}) {
    const double cost = DroppedCost(matrices, order, share);
    if (!(cost < least)) continue;
    least = cost;
    best = order;
  }
  return best;
}

void PermuteUnits(Model& model, const Module& module, std::span<const int64_t> order) {
  for (const ModuleAxis& axis : module.axes) {
    Value* value = model.graph().FindValue(axis.tensor->name());
    SF_CHECK(value && value->constant(), "no constant \"{}\"", axis.tensor->name());
    const Tensor& tensor = *value->constant();
    const auto positions = PositionsOf(axis.unit_of, module.units);
    std::vector<size_t> source(axis.unit_of.size());
    std::iota(source.begin(), source.end(), size_t{0});
    for (size_t u = 0; u < order.size(); ++u) {
      for (size_t p = 0; p < positions[u].size(); ++p) {
        source[positions[u][p]] = positions[static_cast<size_t>(order[u])][p];
      }
    }
    const auto bits = static_cast<size_t>(DTypeBits(tensor.dtype()));
    SF_CHECK(bits % 8 == 0 && bits > 0, "cannot permute {}", DTypeName(tensor.dtype()));
    size_t outer = 1, inner = bits / 8;
    for (size_t i = 0; i < tensor.dims().size(); ++i) {
      if (i != axis.axis) (i < axis.axis ? outer : inner) *= static_cast<size_t>(tensor.dims()[i]);
    }
    std::vector<std::byte> bytes(tensor.bytes().size());
    for (size_t o = 0; o < outer; ++o) {
      for (size_t i = 0; i < source.size(); ++i) {
        std::memcpy(&bytes[(o * source.size() + i) * inner],
                    &tensor.bytes()[(o * source.size() + source[i]) * inner], inner);
      }
    }
    SetConstant(*value, Tensor::FromBytes(tensor.dtype(), tensor.dims(), bytes));
  }
}

Model GatherUnits(const Model& model, double share, const Context& context, PassStats& stats) {
  Model result = model.Clone();
  const Structure structure = FindStructure(model);
  std::vector<std::pair<const Module*, Products>> modules;
  std::vector<MatrixView> views;
  for (const Module& module : structure.modules) {
    if (!IsFree(module) || !IsEven(module)) continue;
    Products products = ProductsOf(module);
    if (products.views.empty()) continue;
    views.insert(views.end(), products.views.begin(), products.views.end());
    modules.emplace_back(&module, std::move(products));
  }
  if (modules.empty()) return result;
  const Batches fit =
      MakeBatches(*context.calibration, context.splits.fit, ChooseBatch(model, views, context));
  const std::optional<std::string> mask = FindPaddingMask(model, fit);
  std::vector<int64_t> samples = context.splits.select;
  const int64_t fixed = context.calibration->fixed_batch();
  samples.resize(fixed > 0 ? static_cast<size_t>(fixed)
                           : std::min(samples.size(), kVerifiedSamples));
  const Feeds feeds = context.calibration->Gather(samples);
  for (const auto& [module, products] : modules) {
    const std::vector<int64_t> order =
        FindOrder(MeasureCosts(model, *module, products, fit, mask, context), share);
    if (std::is_sorted(order.begin(), order.end())) continue;
    Model permuted = result.Clone();
    PermuteUnits(permuted, *module, order);
    const double error = RemovalError(model, permuted, feeds, {.threads = context.threads});
    if (error <= kMostError) {
      result = std::move(permuted);
      continue;
    }
    stats.Skip(*products.views[0].node,
               fmt::format("another order of its {} changed the answers by {:.1e} of their size; "
                           "they stay in theirs",
                           Name(module->kind), error));
  }
  return result;
}

}  // namespace sparsefuse
