// Zeros inside the weights that remain, where they are missed least; the others make up for them.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "passes/framework/pass.h"
#include "passes/sensitivity/evidence.h"
#include "passes/sparsify/apply.h"
#include "passes/sparsify/gather.h"
#include "passes/sparsify/layers.h"

namespace sparsefuse {
namespace {

std::string_view Name(Pattern pattern) {
  switch (pattern) {
    case Pattern::kBlock:
      return "blocks of 4 inputs × 32 outputs";
    case Pattern::kBlock64:
      return "blocks of 64 × 64";
    case Pattern::kBlock128:
      return "blocks of 128 × 128";
    case Pattern::kTwoOfFour:
      return "2 of 4 inputs";
    case Pattern::kUnstructured:
      return "single weights";
  }
  return "";
}

// Where such zeros save time and where not.
std::string_view Worth(Pattern pattern) {
  switch (pattern) {
    case Pattern::kBlock:
      return "faster with this tool's operators (quantize), not in others";
    case Pattern::kBlock64:
    case Pattern::kBlock128:
      return "faster with this tool's operators (quantize) and block-sparse kernels of GPUs";
    case Pattern::kTwoOfFour:
      return "stored dense: faster on GPUs with 2:4 units only, on no CPU";
    case Pattern::kUnstructured:
      return "stored dense: faster nowhere by itself; the file packs better";
  }
  return "";
}

std::string Percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

// One way to do it.
struct Outcome {
  std::optional<Model> model;
  std::vector<double> shares;
  bool by_loss = false;
  BlockChoice choice = BlockChoice::kSweep;
  bool in_sequence = false;
  double kl = 0;  // on the select split
};

// The better one stays.
void Take(Outcome& best, Model model, Outcome other, const SelectKl& kl) {
  other.kl = kl.Of(model);
  if (best.model && !(other.kl < best.kl)) return;
  other.model = std::move(model);
  best = std::move(other);
}

// On the original's inputs: the same share everywhere by either choice, then shares by loss.
Outcome ChooseZeros(Evidence& evidence, const std::vector<SparseLayer>& layers,
                    SparsifySettings settings) {
  Outcome best;
  const auto attempt = [&](bool by_loss) {
    Outcome other{.shares = DistributeShares(layers, settings, by_loss),
                  .by_loss = by_loss,
                  .choice = settings.choice};
    Model model = ApplyZeros(evidence, layers, other.shares, settings);
    Take(best, std::move(model), std::move(other), evidence.kl());
  };
  attempt(false);
  if (settings.method == Method::kSparseGpt && IsWide(settings.pattern.pattern)) {
    settings.choice = BlockChoice::kSize;
    attempt(false);
    settings.choice = best.choice;
  }
  if (settings.by_loss) attempt(true);
  return best;
}

class Sparsify final : public Pass {
 public:
  explicit Sparsify(const Params& params) : params_(params) {}

  void Check(const Model&, const Context& context) const override {
    if (!context.calibration) {
      throw UserError(ErrorCode::kConfig, "sparsify needs calibration data",
                      "give it with --calibration-data or calibration_data.path");
    }
    const bool given = !std::isnan(params_.Double("sparsity"));
    if (params_.String("pattern") == "2:4") {
      if (given && params_.Double("sparsity") != 0.5) {
        throw UserError(ErrorCode::kConfig, "pattern 2:4 is half zeros", "leave sparsity out")
            .At("sparsity");
      }
    } else if (!given) {
      throw UserError(ErrorCode::kConfig, "sparsify needs sparsity",
                      "\"sparsity\": 0.5 makes half of the weights zero");
    }
  }

  PassStats Run(Model& model, Context& context) override {
    SparsifySettings settings = Settings();
    PassStats stats;
    const Model original = params_.Bool("permute") && IsWide(settings.pattern.pattern)
                               ? GatherUnits(model, settings.sparsity, context, stats)
                               : model.Clone();
    std::vector<SparseLayer> layers = FindSparseLayers(original, settings, context);
    const Structure structure = FindStructure(original);
    const std::vector<Prunable> modules = FindPrunable(structure);
    Evidence evidence(original, modules, context);
    MeasureLayers(evidence, layers, settings);
    RequireLayers(layers);
    Outcome best = ChooseZeros(evidence, layers, settings);
    // As with prune: layers solved in sequence come near the original's one by one, but what counts
    // is the last one's answer.
    if (params_.String("repair") == "sequence" && settings.method == Method::kSparseGpt &&
        std::any_of(best.shares.begin(), best.shares.end(),
                    [](double share) { return share > 0; })) {
      Model solved = ResolveInSequence(original, *best.model, layers, best.shares,
                                       settings.pattern.pattern, context);
      Outcome sequence{.shares = best.shares,
                       .by_loss = best.by_loss,
                       .choice = best.choice,
                       .in_sequence = true};
      Take(best, std::move(solved), std::move(sequence), evidence.kl());
    }
    Report(*best.model, layers, settings, best, stats);
    if (stats.changed) model = std::move(*best.model);
    return stats;
  }

 private:
  SparsifySettings Settings() const;
  void RequireLayers(const std::vector<SparseLayer>& layers) const;
  void Report(const Model& model, const std::vector<SparseLayer>& layers,
              const SparsifySettings& settings, const Outcome& outcome, PassStats& stats) const;

  Params params_;
};

SparsifySettings Sparsify::Settings() const {
  SparsifySettings settings;
  const std::string &pattern = params_.String("pattern"), &method = params_.String("method");
  settings.pattern.pattern = pattern == "block"      ? Pattern::kBlock
                             : pattern == "block64"  ? Pattern::kBlock64
                             : pattern == "block128" ? Pattern::kBlock128
                             : pattern == "2:4"      ? Pattern::kTwoOfFour
                                                     : Pattern::kUnstructured;
  settings.pattern.scope = params_.String("compete") == "output" ? Scope::kOutput : Scope::kLayer;
  settings.pattern.quad_multiple = params_.Int("quad_multiple");
  settings.method = method == "sparsegpt" ? Method::kSparseGpt
                    : method == "wanda"   ? Method::kWanda
                                          : Method::kMagnitude;
  settings.by_loss =
      params_.String("distribute") == "loss" && settings.pattern.pattern != Pattern::kTwoOfFour;
  settings.of = params_.Strings("of");
  if (settings.pattern.pattern != Pattern::kTwoOfFour) {
    settings.sparsity = params_.Double("sparsity");
  }
  return settings;
}

void Sparsify::RequireLayers(const std::vector<SparseLayer>& layers) const {
  std::string reasons;
  bool data = false;
  for (const SparseLayer& layer : layers) {
    if (layer.reason.empty()) return;
    if (layer.reason.find("rows of data") != std::string::npos) data = true;
    if (reasons.size() < 300) {
      reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", layer.matrix.node->Describe(),
                             layer.reason);
    }
  }
  if (reasons.empty()) reasons = "there is no product with a constant matrix";
  throw UserError(data ? ErrorCode::kData : ErrorCode::kUnsupported,
                  fmt::format("no layer can take zeros: {}", reasons),
                  data ? "give more calibration samples" : "leave the pass out");
}

void Sparsify::Report(const Model& model, const std::vector<SparseLayer>& layers,
                      const SparsifySettings& settings, const Outcome& outcome,
                      PassStats& stats) const {
  double zeros = 0, taken = 0, all = 0;
  for (size_t i = 0; i < layers.size(); ++i) {
    const SparseLayer& layer = layers[i];
    const auto size = static_cast<double>(layer.existing.size());
    all += size;
    std::string existing;
    if (layer.existing_blocks > 0) {
      existing = fmt::format("{} was zero in whole 4 × 32 blocks already and stays",
                             Percent(layer.existing_blocks));
    }
    if (!layer.reason.empty() || outcome.shares[i] == 0) {
      std::string reason = !layer.reason.empty() ? layer.reason
                           : existing.empty()    ? "no zeros here, others are missed less"
                                                 : "no more zeros here";
      if (!existing.empty()) reason += "; " + existing;
      stats.Skip(*layer.matrix.node, std::move(reason));
      continue;
    }
    const double share =
        ZeroShare(ExistingZeros(Weight(SameMatrix(model, layer.matrix)), settings.pattern.pattern));
    taken += size;
    zeros += share * size;
    std::string action = fmt::format("{} zeros", Percent(share));
    if (!existing.empty()) action += " (" + existing + ")";
    if (!layer.losses.empty()) {
      const double alone = PredictedLoss(layer, outcome.shares[i], settings.sparsity);
      action += alone < 1e-3 ? ", KL below 0.001 alone" : fmt::format(", KL {:.3f} alone", alone);
    }
    stats.Done(*layer.matrix.node, std::move(action));
    ++stats.tensors_rewritten;
  }
  stats.changed = stats.tensors_rewritten > 0;
  if (!stats.changed) return;
  std::string made =
      outcome.by_loss ? ", shares by predicted loss" : ", the same share in every layer";
  if (settings.method == Method::kSparseGpt) {
    if (IsWide(settings.pattern.pattern)) {
      made +=
          outcome.choice == BlockChoice::kSweep ? ", chosen by the sweep" : ", chosen by |w|·‖x‖";
    }
    made += outcome.in_sequence ? ", the rest solved layer after layer" : ", the rest was refitted";
  }
  stats.findings.push_back(
      {.subject = "model",
       .op = "",
       .action = fmt::format("{} zeros in the layers taken, {} of all products' weights, in {}{}; "
                             "KL {:.2g}; {}",
                             Percent(zeros / std::max(taken, 1.0)),
                             Percent(zeros / std::max(all, 1.0)), Name(settings.pattern.pattern),
                             made, outcome.kl, Worth(settings.pattern.pattern)),
       .reason = ""});
}

}  // namespace

extern const PassInfo kSparsify;
const PassInfo kSparsify = {
    .name = "sparsify",
    .summary = "make weights zero, in blocks that a kernel can leave out; the rest makes up for it",
    .exactness = Exactness::kLossy,
    .params =
        {{.name = "pattern",
          .otherwise = std::string("block"),
          .summary = "Where zeros stand: blocks of 4 inputs × 32 outputs, or of 64 × 64 or 128 × "
                     "128, 2 of 4 "
                     "consecutive inputs, or anywhere.",
          .choices = {"block", "block64", "block128", "2:4", "unstructured"}},
         {.name = "sparsity",
          .otherwise = kUnset,
          .summary = "Share of zeros in the weights of all layers taken; with 2:4 it is 0.5.",
          .min = 0.001,
          .max = 0.99},
         {.name = "of",
          .otherwise = std::vector<std::string>{},
          .summary = "Names of the layers' nodes, * and ? as in file names; without: all linear "
                     "layers but the first and the last."},
         {.name = "distribute",
          .otherwise = std::string("loss"),
          .summary = "Each layer's share: as much as it is predicted to bear, or the same in all.",
          .choices = {"loss", "uniform"}},
         {.name = "method",
          .otherwise = std::string("sparsegpt"),
          .summary = "How zeros are chosen: by what is left when the rest makes up for them, or "
                     "by |w|·‖x‖ or |w|, where nothing makes up for them.",
          .choices = {"sparsegpt", "wanda", "magnitude"}},
         {.name = "repair",
          .otherwise = std::string("sequence"),
          .summary = "What sparsegpt solves on: the changed model's own inputs, layer after layer, "
                     "or the original's.",
          .choices = {"sequence", "refit"}},
         {.name = "permute",
          .otherwise = false,
          .summary = "With blocks, neurons and the width of values are put in an order in which "
                     "those that are missed least lie side by side."},
         {.name = "quad_multiple",
          .otherwise = int64_t{16},
          .summary = "With pattern block, 32 outputs keep all their quads of inputs or a multiple "
                     "of this; 16 leaves no weight group partly empty.",
          .min = 1,
          .max = 1024},
         {.name = "compete",
          .otherwise = std::string("layer"),
          .summary = "With pattern unstructured, zeros are counted in the layer or each output.",
          .choices = {"layer", "output"}}},
    .make = [](const Params& params) -> std::unique_ptr<Pass> {
      return std::make_unique<Sparsify>(params);
    }};

}  // namespace sparsefuse
