// Heads, neurons and channels go where they are missed least, and what stays makes up for them.

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "passes/framework/pass.h"
#include "passes/prune/block_drop.h"
#include "passes/prune/choose.h"
#include "passes/prune/latency_savings.h"
#include "passes/prune/resolve.h"
#include "passes/prune/verified_removal.h"
#include "passes/sensitivity/product_costs.h"
#include "passes/sensitivity/unit_options.h"

namespace sparsefuse {
namespace {

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
        digits.find_first_not_of("0123456789") != std::string::npos) {
      throw UserError(
          ErrorCode::kConfig,
          fmt::format("\"{}\" is not of the form node=count with a number of units that stay",
                      Printable(entry)))
          .At("keep");
    }
    rules.push_back({entry.substr(0, equals), std::stoll(digits)});
  }
  return rules;
}

// For a module that should lose all units and ends no block.
UserError NoBlock(const std::string& pattern, const Prunable& prunable,
                  const std::vector<KeptBlock>& kept_blocks) {
  std::string why = "no residual block ends there";
  for (const KeptBlock& kept : kept_blocks) {
    const std::vector<const Node*>& inside = kept.block->removed;
    const Node* consumer = prunable.module->consumers.front();
    if (std::find(inside.begin(), inside.end(), consumer) == inside.end()) continue;
    why = fmt::format("the {} block that it is in stays: {}", Name(kept.block->kind), kept.reason);
  }
  return {
      ErrorCode::kConfig,
      fmt::format("keep \"{}=0\" would leave none of the {} before {}, and {}", Printable(pattern),
                  prunable.name, prunable.module->consumers.front()->Describe(), why),
      "keep at least 1"};
}

class Prune final : public Pass {
 public:
  explicit Prune(const Params& params) : params_(params) {}

  void Check(const Model&, const Context& context) const override {
    if (!context.calibration) {
      throw UserError(ErrorCode::kConfig, "prune needs calibration data",
                      "give it with --calibration-data or calibration_data.path");
    }
    const bool ratio = !std::isnan(params_.Double("ratio"));
    if (ratio == !params_.Strings("keep").empty()) {
      throw UserError(ErrorCode::kConfig, "prune takes either ratio or keep",
                      "\"ratio\": 0.2 removes 20 % of what prunable units cost");
    }
    ParseKeep(params_.Strings("keep"));
    if (ByTime() && !context.measure && !context.decisions.contains("prune")) throw CannotMeasure();
  }

  PassStats Run(Model& model, Context& context) override {
    const Model original = model.Clone();
    const Structure structure = FindStructure(original);
    std::vector<KeptBlock> kept_blocks;
    const std::vector<Prunable> modules = Candidates(structure, context, kept_blocks);
    Evidence evidence(original, modules, context);
    const std::vector<ModuleOptions> options = FindOptions(evidence, modules, RankedBy());
    PassStats stats;
    RequireOptions(options);
    const ProductCosts costs(original,
                             params_.String("of") == "parameters" ? ProductCosts::Unit::kParameters
                                                                  : ProductCosts::Unit::kFlops,
                             context);
    Result result{.choices = Choose(original, options, costs, context), .repair = RepairKind()};
    const size_t chosen = result.choices.size();
    std::optional<Model> removed;
    while (!result.choices.empty() && !removed) {
      result.repair = RepairKind();
      Model masked = Repaired(evidence, result.choices, result.repair);
      if (result.repair != Repair::kNone) {
        result.biased = PreferLastBiases(evidence, result.choices, masked);
      }
      removed = RemoveVerified(masked, structure, result.choices, context, stats);
    }
    if (removed) model = std::move(*removed);
    result.as_chosen = result.choices.size() == chosen;
    Report(options, result, costs, stats);
    for (const KeptBlock& block : kept_blocks) {
      stats.Skip(*block.block->add,
                 fmt::format("{} block: {}", Name(block.block->kind), block.reason));
    }
    stats.changed = !result.choices.empty();
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

  // Of ratio; keep is no share of anything.
  bool ByTime() const {
    return params_.String("of") == "latency" && params_.Strings("keep").empty();
  }

  static UserError CannotMeasure() {
    return {ErrorCode::kConfig, "a share of the time has to be measured, and \"measure\" is false",
            "set it to true, or give the decisions of a run with the same model, data and ratio"};
  }

  // What became of the choices.
  struct Result {
    std::vector<Choice> choices;
    Repair repair;
    std::vector<const Prunable*> biased;  // left whole blocks a constant: the last bias
    bool as_chosen = true;                // none was taken back
  };

  std::vector<Prunable> Candidates(const Structure& structure, const Context& context,
                                   std::vector<KeptBlock>& kept_blocks) const;
  void SetCounts(std::vector<Prunable>& modules, const std::vector<KeptBlock>& kept_blocks) const;
  static Model Repaired(Evidence& evidence, const std::vector<Choice>& choices, Repair& repair);
  void RequireOptions(const std::vector<ModuleOptions>& options) const;
  std::vector<Choice> Choose(const Model& original, const std::vector<ModuleOptions>& options,
                             const ProductCosts& costs, Context& context);
  void Report(const std::vector<ModuleOptions>& options, const Result& result,
              const ProductCosts& costs, PassStats& stats) const;
  std::string SavedText(const std::vector<ModuleOptions>& options, const Result& result,
                        const ProductCosts& costs) const;

  std::optional<LatencyDecision> timed_;  // with a ratio of the time
  Params params_;
};

std::vector<Prunable> Prune::Candidates(const Structure& structure, const Context& context,
                                        std::vector<KeptBlock>& kept_blocks) const {
  std::vector<Prunable> modules = FindPrunable(structure);
  const std::vector<std::string>& units = params_.Strings("units");
  for (Prunable& prunable : modules) {
    const Module& module = *prunable.module;
    for (const Node* node : module.consumers) {
      if (context.Excluded(*node)) prunable.reason = "excluded by the configuration";
    }
    if (std::find(units.begin(), units.end(), UnitName(module.kind)) == units.end() &&
        prunable.reason.empty()) {
      prunable.reason = "not among the units to prune";
    }
  }
  const bool ratio = params_.Strings("keep").empty();
  if (!ratio || params_.Bool("block_drop")) {
    kept_blocks = FindDroppable(structure, context, modules);
  }
  if (!ratio) {
    SetCounts(modules, kept_blocks);
    kept_blocks.clear();  // nobody asked for them
    return modules;
  }
  for (Prunable& prunable : modules) {
    prunable.counts = KeepCounts(*prunable.module, params_.Int("neuron_multiple"),
                                 params_.Int("channel_multiple"));
    if (prunable.block) prunable.counts.push_back(0);
  }
  return modules;
}

// As `keep` says.
void Prune::SetCounts(std::vector<Prunable>& modules,
                      const std::vector<KeptBlock>& kept_blocks) const {
  const std::vector<KeepRule> rules = ParseKeep(params_.Strings("keep"));
  std::vector<bool> used(rules.size());
  for (Prunable& prunable : modules) {
    const Module& module = *prunable.module;
    for (size_t r = 0; r < rules.size(); ++r) {
      const bool matches =
          std::any_of(module.consumers.begin(), module.consumers.end(), [&](const Node* node) {
            return fnmatch(rules[r].pattern.c_str(), node->name().c_str(), 0) == 0;
          });
      if (!matches) continue;
      used[r] = true;
      if (rules[r].count < module.units) prunable.counts = {rules[r].count};
      if (rules[r].count > 0 || prunable.block || !prunable.reason.empty()) continue;
      throw NoBlock(rules[r].pattern, prunable, kept_blocks);
    }
    if (prunable.reason.empty() && prunable.counts.empty()) prunable.reason = "all are kept";
    if (prunable.counts != std::vector<int64_t>{0}) prunable.block = nullptr;
  }
  for (size_t r = 0; r < rules.size(); ++r) {
    if (used[r]) continue;
    throw UserError(ErrorCode::kConfig,
                    fmt::format("keep \"{}\" matches no node that sums over prunable units",
                                Printable(rules[r].pattern)),
                    "`sparsefuse inspect --json` lists them");
  }
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
  const auto lacks_data = [](const ModuleOptions& module) {
    return module.reason.find("rows of data") != std::string::npos;
  };
  const bool data = std::any_of(options.begin(), options.end(), lacks_data);
  std::string reasons;
  for (const ModuleOptions& module : options) {
    if (!module.options.empty()) return;
    const Module& of = *module.prunable->module;
    if (data && !lacks_data(module)) continue;
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

std::vector<Choice> Prune::Choose(const Model& original, const std::vector<ModuleOptions>& options,
                                  const ProductCosts& costs, Context& context) {
  if (!params_.Strings("keep").empty()) return ChooseMildest(options);
  const double ratio = params_.Double("ratio");
  if (!ByTime()) return ChooseByRatio(options, SavingsOf(options, costs), ratio);
  timed_ = RecordedDecision(options, ratio, context);
  if (timed_) return timed_->choices;
  if (!context.measure) throw CannotMeasure();
  const Savings savings = MeasureSavings(original, options, context);
  timed_ = LatencyDecision{.choices = ChooseByRatio(options, savings, ratio)};
  const double saved = savings.together(timed_->choices);
  timed_->saved = saved / savings.all;
  timed_->saved_of_model = saved / savings.whole;
  Record(*timed_, options, ratio, context);
  return timed_->choices;
}

std::string Prune::SavedText(const std::vector<ModuleOptions>& options, const Result& result,
                             const ProductCosts& costs) const {
  const Savings savings = SavingsOf(options, costs);
  const double saved = savings.together(result.choices);
  std::string text = fmt::format(
      "removed {:.1f} % of the {} of prunable layers, {:.1f} % of all", 100 * saved / savings.all,
      params_.String("of") == "parameters" ? "parameters" : "multiply-adds",
      100 * saved / savings.whole);
  if (timed_ && result.as_chosen) {
    text += fmt::format(", which take {:.1f} % of their time and {:.1f} % of the model's",
                        100 * timed_->saved, 100 * timed_->saved_of_model);
  }
  return text + fmt::format("; the rest {}", RepairText(result.repair));
}

void Prune::Report(const std::vector<ModuleOptions>& options, const Result& result,
                   const ProductCosts& costs, PassStats& stats) const {
  for (const ModuleOptions& module : options) {
    const Module& of = *module.prunable->module;
    const Node& node = *(of.consumers.empty() ? of.producers : of.consumers).front();
    if (GoesWithBlock(of, result.choices)) {
      stats.Done(node, fmt::format("{} went with their block", module.prunable->name));
      continue;
    }
    if (module.options.empty()) {
      stats.Skip(node, fmt::format("{}: {}", module.prunable->name, module.reason));
      continue;
    }
    const auto choice =
        std::find_if(result.choices.begin(), result.choices.end(),
                     [&](const Choice& c) { return c.prunable == module.prunable; });
    if (choice == result.choices.end()) {
      stats.Skip(node, fmt::format("{}: all stay, others are missed less", module.prunable->name));
      continue;
    }
    const Block* block = GoneBlock(*choice);
    const bool biased = result.repair == Repair::kNone ||
                        std::count(result.biased.begin(), result.biased.end(), module.prunable) > 0;
    std::string action =
        block ? fmt::format("{} block removed, its output replaced by {}", Name(block->kind),
                            biased ? "the last bias" : "its mean")
              : fmt::format("{} → {} {}", of.units, choice->kept.size(), Name(of.kind));
    const auto option = std::find_if(module.options.begin(), module.options.end(),
                                     [&](const PruneOption& o) { return o.kept == choice->kept; });
    const double kl = module.Expected(*option);
    if (PredictsKl())
      action += kl < 1e-3 ? ", KL below 0.001 alone" : fmt::format(", KL {:.3f} alone", kl);
    stats.Done(node, std::move(action));
  }
  stats.findings.push_back(
      {.subject = "model", .op = "", .action = SavedText(options, result, costs), .reason = ""});
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
                .summary = "What ratio is a share of: multiply-adds of a sample, weights, or the "
                           "time that one sample takes on this machine, measured.",
                .choices = {"flops", "parameters", "latency"}},
               {.name = "keep",
                .otherwise = std::vector<std::string>{},
                .summary =
                    "Instead of ratio: \"node=count\", units that stay before the nodes that "
                    "match; * and ? as in file names. Of a residual block's last product 0, and "
                    "the block goes."},
               {.name = "units",
                .otherwise = std::vector<std::string>{"heads", "neurons", "channels"},
                .summary = "Kinds of units that may go.",
                .choices = {"heads", "neurons", "channels"}},
               {.name = "block_drop",
                .otherwise = false,
                .summary = "Whether whole residual blocks (attention, feed-forward, convolutions) "
                           "may go, too, with the mean of their output in their place."},
               {.name = "criterion",
                .otherwise = std::string("obs"),
                .summary = "How units are ranked: by the error that is left after repair (obs), by "
                           "gradients of masks, squared or not, or by their weights.",
                .choices = {"obs", "fisher", "gradient", "magnitude"}},
               {.name = "repair",
                .otherwise = std::string("sequence"),
                .summary =
                    "How the survivors make up for what went: solved block after block on the "
                    "pruned model's own inputs, with every later product; on the original's; or "
                    "not at all.",
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
