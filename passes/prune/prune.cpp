// Heads, neurons and channels go where they are missed least, and what stays makes up for them.

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "passes/framework/pass.h"
#include "passes/prune/knapsack.h"
#include "passes/prune/removal.h"
#include "passes/prune/resolve.h"
#include "passes/sensitivity/product_costs.h"
#include "passes/sensitivity/unit_options.h"

namespace sparsefuse {
namespace {

constexpr double kMostRemovalError = 1e-4;
constexpr size_t kVerifiedSamples = 4;

// "heads" … of each kind of module.
std::string_view UnitName(ModuleKind kind) {
  switch (kind) {
    case ModuleKind::kHeads:
    case ModuleKind::kKvGroups:
    case ModuleKind::kQueryHeads:
      return "heads";
    case ModuleKind::kNeurons:
      return "neurons";
    case ModuleKind::kChannels:
    case ModuleKind::kChannelGroups:
      return "channels";
    case ModuleKind::kHeadWidthQk:
    case ModuleKind::kHeadWidthV:
      return "widths";
  }
  return "";
}

std::string_view RepairText(Repair repair) {
  switch (repair) {
    case Repair::kNone:
      return "stays as it was";
    case Repair::kRefit:
      return "was refitted";
    case Repair::kSequence:
      return "was solved block after block";
  }
  return "";
}

// "pattern=count"
struct KeepRule {
  std::string pattern;
  int64_t count;
};

std::vector<KeepRule> ParseKeep(const std::vector<std::string>& entries) {
  std::vector<KeepRule> rules;
  for (const std::string& entry : entries) {
    const size_t equals = entry.rfind('=');
    const std::string digits = equals == std::string::npos ? "" : entry.substr(equals + 1);
    if (digits.empty() || digits.size() > 9 ||
        digits.find_first_not_of("0123456789") != std::string::npos || std::stoll(digits) < 1) {
      throw UserError(ErrorCode::kConfig,
                      fmt::format("\"{}\" is not of the form node=count with a count of at least 1",
                                  Printable(entry)))
          .At("keep");
    }
    rules.push_back({entry.substr(0, equals), std::stoll(digits)});
  }
  return rules;
}

class Prune final : public Pass {
 public:
  explicit Prune(const Params& params) : params_(params) {}

  void Check(const Model&, const Context& context) const override {
    if (!context.calibration) {
      throw UserError(ErrorCode::kConfig, "prune needs calibration data",
                      "give it with --calibration or calibration_data.path");
    }
    const bool ratio = !std::isnan(params_.Double("ratio"));
    if (ratio == !params_.Strings("keep").empty()) {
      throw UserError(ErrorCode::kConfig, "prune takes either ratio or keep",
                      "\"ratio\": 0.2 removes 20 % of what prunable units cost");
    }
    ParseKeep(params_.Strings("keep"));
  }

  PassStats Run(Model& model, Context& context) override {
    const Model original = model.Clone();
    const Structure structure = FindStructure(original);
    const std::vector<Prunable> modules = Candidates(structure, context);
    Evidence evidence(original, modules, context);
    const std::vector<ModuleOptions> options = FindOptions(evidence, modules, RankedBy());
    PassStats stats;
    RequireOptions(options);
    const ProductCosts costs(original,
                             params_.String("of") == "flops" ? ProductCosts::Unit::kFlops
                                                             : ProductCosts::Unit::kParameters,
                             context);
    std::vector<Choice> choices = Choose(options, costs);
    Repair repair = RepairKind();
    std::optional<Model> removed;
    while (!choices.empty() && !removed) {
      repair = RepairKind();
      const Model masked = Repaired(evidence, choices, repair);
      removed = RemoveVerified(masked, structure, choices, context, stats);
    }
    if (removed) model = std::move(*removed);
    Report(options, choices, costs, repair, stats);
    stats.changed = !choices.empty();
    return stats;
  }

 private:
  Criterion RankedBy() const {
    const std::string& name = params_.String("criterion");
    return name == "obs"        ? Criterion::kObs
           : name == "fisher"   ? Criterion::kFisher
           : name == "gradient" ? Criterion::kGradient
                                : Criterion::kMagnitude;
  }

  // The other criteria have units of their own.
  bool PredictsKl() const {
    const Criterion criterion = RankedBy();
    return criterion == Criterion::kObs || criterion == Criterion::kFisher;
  }

  Repair RepairKind() const {
    const std::string& name = params_.String("repair");
    return name == "sequence" ? Repair::kSequence
           : name == "refit"  ? Repair::kRefit
                              : Repair::kNone;
  }

  std::vector<Prunable> Candidates(const Structure& structure, const Context& context) const;
  static Model Repaired(Evidence& evidence, const std::vector<Choice>& choices, Repair& repair);
  void RequireOptions(const std::vector<ModuleOptions>& options) const;
  std::vector<Choice> Choose(const std::vector<ModuleOptions>& options,
                             const ProductCosts& costs) const;
  std::optional<Model> RemoveVerified(const Model& masked, const Structure& structure,
                                      std::vector<Choice>& choices, const Context& context,
                                      PassStats& stats) const;
  void Report(const std::vector<ModuleOptions>& options, const std::vector<Choice>& choices,
              const ProductCosts& costs, Repair repair, PassStats& stats) const;

  Params params_;
};

std::vector<Prunable> Prune::Candidates(const Structure& structure, const Context& context) const {
  std::vector<Prunable> modules = FindPrunable(structure);
  const std::vector<std::string>& units = params_.Strings("units");
  const std::vector<KeepRule> rules = ParseKeep(params_.Strings("keep"));
  std::vector<bool> used(rules.size());
  for (Prunable& prunable : modules) {
    const Module& module = *prunable.module;
    for (const Node* node : module.consumers) {
      if (context.Excluded(*node)) prunable.reason = "excluded by the configuration";
    }
    if (std::find(units.begin(), units.end(), UnitName(module.kind)) == units.end() &&
        prunable.reason.empty()) {
      prunable.reason = "not among the units to prune";
    }
    if (rules.empty()) {
      prunable.counts =
          KeepCounts(module, params_.Int("neuron_multiple"), params_.Int("channel_multiple"));
      continue;
    }
    for (size_t r = 0; r < rules.size(); ++r) {
      const bool matches =
          std::any_of(module.consumers.begin(), module.consumers.end(), [&](const Node* node) {
            return fnmatch(rules[r].pattern.c_str(), node->name().c_str(), 0) == 0;
          });
      if (!matches) continue;
      used[r] = true;
      if (rules[r].count < module.units) prunable.counts = {rules[r].count};
    }
    if (prunable.reason.empty() && prunable.counts.empty()) prunable.reason = "all are kept";
  }
  for (size_t r = 0; r < rules.size(); ++r) {
    if (used[r]) continue;
    throw UserError(ErrorCode::kConfig,
                    fmt::format("keep \"{}\" matches no node that sums over prunable units",
                                Printable(rules[r].pattern)),
                    "`sparsefuse inspect --json` lists them");
  }
  return modules;
}

// Blocks solved in sequence come near the original's one by one; what counts is the last one's
// answer, so the plain refit competes; `repair` tells which won.
Model Prune::Repaired(Evidence& evidence, const std::vector<Choice>& choices, Repair& repair) {
  Model best = RepairSurvivors(evidence, choices, repair);
  if (repair != Repair::kSequence) return best;
  Model refitted = RepairSurvivors(evidence, choices, Repair::kRefit);
  if (evidence.kl().Of(best) <= evidence.kl().Of(refitted)) return best;
  repair = Repair::kRefit;
  return refitted;
}

void Prune::RequireOptions(const std::vector<ModuleOptions>& options) const {
  std::string reasons;
  bool data = false;
  for (const ModuleOptions& module : options) {
    if (!module.options.empty()) return;
    if (module.reason.find("rows of data") != std::string::npos) data = true;
    const Module& of = *module.prunable->module;
    if (reasons.size() < 300 && !of.consumers.empty()) {
      reasons +=
          fmt::format("{}{} before {}: {}", reasons.empty() ? "" : "; ", module.prunable->name,
                      of.consumers.front()->Describe(), module.reason);
    }
  }
  if (reasons.empty()) reasons = "no heads, neurons or channels were found";
  throw UserError(data ? ErrorCode::kData : ErrorCode::kUnsupported,
                  fmt::format("nothing can be pruned: {}", reasons),
                  data ? "give more calibration samples" : "leave the pass out");
}

std::vector<Choice> Prune::Choose(const std::vector<ModuleOptions>& options,
                                  const ProductCosts& costs) const {
  std::vector<const Prunable*> pruned;
  std::vector<std::vector<KnapsackOption>> menu;
  std::vector<const ModuleOptions*> owners;
  for (const ModuleOptions& module : options) {
    if (module.options.empty()) continue;
    pruned.push_back(module.prunable);
    owners.push_back(&module);
    menu.push_back({{0, 0}});
    double least = 0;  // more removed never costs less
    for (const PruneOption& option : module.options) {
      const Keep keep{module.prunable->module, option.kept};
      least = std::max(least, module.Expected(option));
      menu.back().push_back({least, costs.Saved(std::span(&keep, 1))});
    }
  }
  const auto choose = [&](const std::vector<size_t>& picked) {
    std::vector<Choice> choices;
    for (size_t m = 0; m < picked.size(); ++m) {
      if (picked[m] == 0) continue;
      choices.push_back({owners[m]->prunable, owners[m]->options[picked[m] - 1].kept});
    }
    return choices;
  };
  if (!params_.Strings("keep").empty()) return choose(std::vector<size_t>(menu.size(), 1));
  const auto saved = [&](const std::vector<Choice>& choices) {
    std::vector<Keep> keeps;
    for (const Choice& choice : choices) keeps.push_back({choice.prunable->module, choice.kept});
    return costs.Saved(keeps);
  };
  const double ratio = params_.Double("ratio"), all = costs.Of(pruned);
  // Savings of modules that share a product overlap: ask for more until it is enough.
  for (double wanted = ratio * all;; wanted *= 1.01) {
    const auto picked = ChooseOptions(menu, wanted);
    if (!picked) break;
    std::vector<Choice> choices = choose(*picked);
    if (saved(choices) >= ratio * all * (1 - 1e-9)) return choices;
  }
  std::vector<size_t> most;
  for (const auto& module : menu) most.push_back(module.size() - 1);
  throw UserError(
      ErrorCode::kConfig,
      fmt::format("ratio {} cannot be reached: {:.3f} is the most that these units can save", ratio,
                  std::floor(saved(choose(most)) / all * 1000) / 1000),
      "ask for less, allow more units, or smaller multiples");
}

std::optional<Model> Prune::RemoveVerified(const Model& masked, const Structure& structure,
                                           std::vector<Choice>& choices, const Context& context,
                                           PassStats& stats) const {
  const Structure found = FindStructure(masked);
  const auto same = [&](const Module* module) -> const Module* {
    const auto index = static_cast<size_t>(module - structure.modules.data());
    if (found.modules.size() != structure.modules.size()) return nullptr;
    const Module& twin = found.modules[index];
    return twin.kind == module->kind && twin.units == module->units ? &twin : nullptr;
  };
  std::vector<int64_t> samples = context.splits.select;
  const int64_t fixed = context.calibration->fixed_batch();
  samples.resize(fixed > 0 ? static_cast<size_t>(fixed)
                           : std::min(samples.size(), kVerifiedSamples));
  const Feeds feeds = context.calibration->Gather(samples);
  const auto error = [&](std::span<const Choice> some) {
    std::vector<Keep> keeps;
    for (const Choice& choice : some) {
      const Module* module = same(choice.prunable->module);
      if (!module) return std::pair(INFINITY, std::optional<Model>());
      keeps.push_back({module, choice.kept});
    }
    Model removed = masked.Clone();
    RemoveUnits(removed, keeps);
    const double worst = RemovalError(masked, removed, feeds, {.threads = context.threads});
    return std::pair(static_cast<float>(worst), std::optional<Model>(std::move(removed)));
  };
  auto [all, removed] = error(choices);
  if (all <= kMostRemovalError) return std::move(removed);
  const size_t before = choices.size();
  std::erase_if(choices, [&](const Choice& choice) {
    const double alone = error(std::span(&choice, 1)).first;
    if (alone <= kMostRemovalError) return false;
    stats.Skip(*choice.prunable->module->consumers.front(),
               fmt::format("{}: removing units changed the answers by {:.1e} of their size; left "
                           "whole",
                           choice.prunable->name, alone));
    return true;
  });
  if (choices.size() == before) {
    throw InternalError(fmt::format(
        "units that can each be removed cannot be removed together (error {:.1e})", all));
  }
  return std::nullopt;
}

void Prune::Report(const std::vector<ModuleOptions>& options, const std::vector<Choice>& choices,
                   const ProductCosts& costs, Repair repair, PassStats& stats) const {
  std::vector<const Prunable*> pruned;
  std::vector<Keep> keeps;
  for (const ModuleOptions& module : options) {
    const Module& of = *module.prunable->module;
    const Node& node = *(of.consumers.empty() ? of.producers : of.consumers).front();
    if (module.options.empty()) {
      stats.Skip(node, fmt::format("{}: {}", module.prunable->name, module.reason));
      continue;
    }
    pruned.push_back(module.prunable);
    const auto choice = std::find_if(choices.begin(), choices.end(), [&](const Choice& c) {
      return c.prunable == module.prunable;
    });
    if (choice == choices.end()) {
      stats.Skip(node, fmt::format("{}: all stay, others are missed less", module.prunable->name));
      continue;
    }
    keeps.push_back({module.prunable->module, choice->kept});
    const auto option = std::find_if(module.options.begin(), module.options.end(),
                                     [&](const PruneOption& o) { return o.kept == choice->kept; });
    std::string action = fmt::format("{} → {} {}", of.units, choice->kept.size(), Name(of.kind));
    const double kl = module.Expected(*option);
    if (PredictsKl())
      action += kl < 1e-3 ? ", KL below 0.001 alone" : fmt::format(", KL {:.3f} alone", kl);
    stats.Done(node, std::move(action));
  }
  const double saved = costs.Saved(keeps);
  stats.findings.push_back(
      {.subject = "model",
       .op = "",
       .action = fmt::format(
           "removed {:.1f} % of the {} of prunable layers, {:.1f} % of all; the rest {}",
           100 * saved / costs.Of(pruned),
           params_.String("of") == "flops" ? "multiply-adds" : "parameters",
           100 * saved / costs.total(), RepairText(repair)),
       .reason = ""});
}

}  // namespace

extern const PassInfo kPrune;
const PassInfo kPrune = {
    .name = "prune",
    .summary =
        "remove attention heads, neurons and channels that are missed least; the rest is "
        "refitted",
    .exactness = Exactness::kLossy,
    .params = {{.name = "ratio",
                .otherwise = kUnset,
                .summary = "Share to remove of what the layers with prunable units cost.",
                .min = 0.001,
                .max = 0.99},
               {.name = "of",
                .otherwise = std::string("flops"),
                .summary = "What ratio is a share of: multiply-adds of a sample, or weights.",
                .choices = {"flops", "parameters"}},
               {.name = "keep",
                .otherwise = std::vector<std::string>{},
                .summary =
                    "Instead of ratio: \"node=count\", units that stay before the nodes that "
                    "match; * and ? as in file names."},
               {.name = "units",
                .otherwise = std::vector<std::string>{"heads", "neurons", "channels"},
                .summary = "Kinds of units that may go.",
                .choices = {"heads", "neurons", "channels"}},
               {.name = "criterion",
                .otherwise = std::string("obs"),
                .summary = "How units are ranked: by the error that is left after repair (obs), by "
                           "gradients of masks, squared or not, or by their weights.",
                .choices = {"obs", "fisher", "gradient", "magnitude"}},
               {.name = "repair",
                .otherwise = std::string("sequence"),
                .summary =
                    "How the survivors make up for what went: solved block after block on the "
                    "pruned model's own inputs, on the original's, or not at all.",
                .choices = {"sequence", "refit", "none"}},
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
      return std::make_unique<Prune>(params);
    }};

}  // namespace sparsefuse
