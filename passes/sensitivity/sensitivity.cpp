// What each module and matrix contributes: predicted and measured KL of everything that later
// passes could do to it. Changes nothing; the result is context.sensitivity, for sensitivity.json.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "passes/framework/pass.h"
#include "passes/sensitivity/matrix_options.h"
#include "passes/sensitivity/product_costs.h"
#include "passes/sensitivity/rank_agreement.h"
#include "passes/sensitivity/unit_options.h"

namespace sparsefuse {
namespace {

using Json = nlohmann::json;

// KL per answer, in nats. 1e-4 moves probabilities by less than 0.7 % in sum, 1e-2 by less than 7 %
// (Pinsker's inequality).
constexpr double kFree = 1e-4;
constexpr double kCheap = 1e-2;

// Its name, or what makes it known where it has none.
std::string NameOf(const Node& node) { return node.name().empty() ? node.Describe() : node.name(); }

Json Measured(double kl) { return kl >= 0 ? Json(kl) : Json(nullptr); }

// The last of the options, which run from mild to strong, that costs at most `limit`, none dearer
// before it; null: not even the first.
template <typename Options, typename Expected, typename Describe>
Json Strongest(const Options& options, double limit, const Expected& expected,
               const Describe& describe) {
  Json strongest = nullptr;
  for (const auto& option : options) {
    if (!(expected(option) <= limit)) break;
    strongest = describe(option);
  }
  return strongest;
}

// Pairs of predicted and measured KL.
struct Pairs {
  std::vector<double> predicted, measured;
  template <typename Option>
  void Add(const Option& option) {
    if (option.measured < 0) return;
    predicted.push_back(option.predicted);
    measured.push_back(option.measured);
  }
  void Add(const Pairs& other) {
    predicted.insert(predicted.end(), other.predicted.begin(), other.predicted.end());
    measured.insert(measured.end(), other.measured.begin(), other.measured.end());
  }
  Json ToJson() const {
    const double spearman = SpearmanCorrelation(predicted, measured);
    return {{"options", predicted.size()},
            {"spearman", std::isnan(spearman) ? Json(nullptr) : Json(spearman)}};
  }
};

class Sensitivity final : public Pass {
 public:
  explicit Sensitivity(const Params& params) : params_(params) {}

  void Check(const Model&, const Context& context) const override {
    if (context.calibration) return;
    throw UserError(ErrorCode::kConfig, "sensitivity needs calibration data",
                    "give it with --calibration-data or calibration_data.path");
  }

  PassStats Run(Model& model, Context& context) override {
    const Structure structure = FindStructure(model);
    const std::vector<Prunable> modules = Candidates(structure, context);
    Evidence evidence(model, modules, context);
    PassStats stats;
    Json& found = context.sensitivity;
    found = {{"unit", "KL per answer, in nats"},
             {"free", kFree},
             {"cheap", kCheap},
             {"modules", Json::array()},
             {"matrices", Json::array()}};
    if (evidence.matrices().empty()) {
      stats.findings.push_back(
          {.subject = "model", .op = "", .action = "", .reason = "no product with weights"});
      return stats;
    }
    Pairs units, bits, ranks;
    const ProductCosts costs(model, ProductCosts::Unit::kFlops, context);
    const std::vector<ModuleOptions> options = FindOptions(evidence, modules, Criterion::kObs);
    for (const ModuleOptions& module : options) {
      found["modules"].push_back(ToJson(module, costs));
      for (const PruneOption& option : module.options) units.Add(option);
      Note(module, stats);
    }
    if (params_.Bool("matrices")) {
      for (const MatrixOptions& matrix : FindMatrixOptions(evidence)) {
        found["matrices"].push_back(ToJson(matrix));
        for (const MatrixOption& option : matrix.options) {
          (option.kind == MatrixOption::Kind::kBits ? bits : ranks).Add(option);
        }
        Note(matrix, stats);
      }
    }
    Pairs all = units;
    all.Add(bits);
    all.Add(ranks);
    found["answers_per_sample"] = evidence.curvature().answers;
    found["agreement"] = {{"all", all.ToJson()},
                          {"units", units.ToJson()},
                          {"bits", bits.ToJson()},
                          {"ranks", ranks.ToJson()}};
    stats.findings.push_back({.subject = "model",
                              .op = "",
                              .action = Summary(options, found["agreement"]["all"]),
                              .reason = ""});
    return stats;
  }

 private:
  std::vector<Prunable> Candidates(const Structure& structure, const Context& context) const {
    std::vector<Prunable> modules = FindPrunable(structure);
    for (Prunable& prunable : modules) {
      const auto& consumers = prunable.module->consumers;
      if (std::any_of(consumers.begin(), consumers.end(),
                      [&](const Node* node) { return context.Excluded(*node); })) {
        prunable.reason = "excluded by the configuration";
      }
      prunable.counts = KeepCounts(*prunable.module, params_.Int("neuron_multiple"),
                                   params_.Int("channel_multiple"));
    }
    return modules;
  }

  static Json ToJson(const ModuleOptions& module, const ProductCosts& costs) {
    const Module& of = *module.prunable->module;
    Json nodes = Json::array();
    for (const Node* node : of.consumers) nodes.push_back(NameOf(*node));
    Json json = {{"what", module.prunable->name},
                 {"kind", Name(of.kind)},
                 {"units", of.units},
                 {"before", std::move(nodes)},
                 {"parameters_per_unit", of.parameters_per_unit}};
    if (!module.reason.empty()) {
      json["left_out"] = module.reason;
      return json;
    }
    json["fisher"] = module.unit_fisher;
    json["correction"] = module.correction;
    json["options"] = Json::array();
    for (const PruneOption& option : module.options) {
      const Keep keep{&of, option.kept};
      json["options"].push_back({{"keep", option.kept.size()},
                                 {"kept", option.kept},
                                 {"saved", costs.Saved(std::span(&keep, 1)) / costs.total()},
                                 {"predicted", option.predicted},
                                 {"measured", Measured(option.measured)},
                                 {"expected", module.Expected(option)}});
    }
    const auto expected = [&](const PruneOption& o) { return module.Expected(o); };
    const auto describe = [](const PruneOption& o) { return Json(o.kept.size()); };
    json["free"] = Strongest(module.options, kFree, expected, describe);
    json["cheap"] = Strongest(module.options, kCheap, expected, describe);
    return json;
  }

  static Json ToJson(const MatrixOptions& matrix) {
    const MatrixView& view = *matrix.matrix;
    Json json = {{"node", NameOf(*view.node)},
                 {"inputs", view.inputs},
                 {"outputs", view.outputs},
                 {"rows", matrix.rows}};
    if (!matrix.reason.empty()) json["left_out"] = matrix.reason;
    std::vector<MatrixOption> bits, ranks;
    for (const MatrixOption& option : matrix.options) {
      const bool is_bits = option.kind == MatrixOption::Kind::kBits;
      (is_bits ? bits : ranks).push_back(option);
      json[is_bits ? "bits" : "ranks"].push_back({{is_bits ? "bits" : "rank", option.value},
                                                  {"error", option.error},
                                                  {"predicted", option.predicted},
                                                  {"measured", Measured(option.measured)},
                                                  {"expected", matrix.Expected(option)}});
    }
    const auto expected = [&](const MatrixOption& o) { return matrix.Expected(o); };
    const auto describe = [](const MatrixOption& o) { return Json(o.value); };
    for (const auto& [name, limit] : {std::pair("free", kFree), std::pair("cheap", kCheap)}) {
      json[name] = {{"bits", Strongest(bits, limit, expected, describe)},
                    {"rank", Strongest(ranks, limit, expected, describe)}};
    }
    return json;
  }

  static void Note(const ModuleOptions& module, PassStats& stats) {
    if (module.reason.empty()) return;
    const Module& of = *module.prunable->module;
    if (of.consumers.empty()) return;
    stats.Skip(*of.consumers.front(), fmt::format("{}: {}", module.prunable->name, module.reason));
  }

  static void Note(const MatrixOptions& matrix, PassStats& stats) {
    if (!matrix.reason.empty()) stats.Skip(*matrix.matrix->node, matrix.reason);
  }

  static std::string Summary(const std::vector<ModuleOptions>& options, const Json& agreement) {
    const auto examined = std::count_if(options.begin(), options.end(),
                                        [](const auto& o) { return !o.options.empty(); });
    std::string text = fmt::format("{} modules with units examined", examined);
    if (agreement["spearman"].is_null()) return text;
    return text + fmt::format("; predictions order {} measurements with rank correlation {:.2f}",
                              agreement["options"].get<size_t>(),
                              agreement["spearman"].get<double>());
  }

  Params params_;
};

}  // namespace

extern const PassInfo kSensitivity;
const PassInfo kSensitivity = {
    .name = "sensitivity",
    .summary = "what removing units, bits or rank would cost, predicted and measured; no change",
    .exactness = Exactness::kLossless,
    .params = {{.name = "matrices",
                .otherwise = true,
                .summary = "Fewer bits and lower ranks of each matrix, too."},
               {.name = "neuron_multiple",
                .otherwise = int64_t{32},
                .summary = "Numbers of neurons that stay are multiples of this.",
                .min = 1,
                .max = 1024},
               {.name = "channel_multiple",
                .otherwise = int64_t{16},
                .summary = "Numbers of channels that stay are multiples of this.",
                .min = 1,
                .max = 1024}},
    .make = [](const Params& params) -> std::unique_ptr<Pass> {
      return std::make_unique<Sensitivity>(params);
    }};

}  // namespace sparsefuse
