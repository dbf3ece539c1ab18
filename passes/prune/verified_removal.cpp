#include "passes/prune/verified_removal.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <utility>

#include "passes/engine/engine.h"
#include "passes/prune/block_drop.h"
#include "passes/prune/removal.h"

namespace sparsefuse {
namespace {

constexpr double kMostError = 1e-4;
constexpr size_t kSamples = 4;
constexpr double kNever = std::numeric_limits<double>::infinity();

const Value& Branch(const Block& block) { return *block.add->input(1 - block.kept_input); }

class Remover {
 public:
  Remover(const Model& masked, const Structure& structure, const std::vector<Choice>& choices,
          const Context& context)
      : masked_(masked),
        structure_(structure),
        found_(FindStructure(masked)),
        options_{.threads = context.threads} {
    std::vector<int64_t> samples = context.splits.select;
    const int64_t fixed = context.calibration->fixed_batch();
    samples.resize(fixed > 0 ? static_cast<size_t>(fixed) : std::min(samples.size(), kSamples));
    feeds_ = context.calibration->Gather(samples);
    ReadBranches(choices);
  }

  struct Result {
    double error;
    std::optional<Model> model;
  };
  Result Remove(std::span<const Choice> choices) const {
    std::vector<Keep> keeps;
    for (const Choice& choice : choices) {
      if (GoneBlock(choice)) continue;
      const Module* module = Twin(*choice.prunable->module);
      if (!module) return {kNever, {}};
      keeps.push_back({module, choice.kept});
    }
    Model removed = masked_.Clone();
    RemoveUnits(removed, keeps);
    for (const Choice& choice : choices) {
      const Block* gone = GoneBlock(choice);
      if (!gone) continue;
      const Block* block = Twin(*gone);
      if (!block || !DropBlock(removed, *block, branches_.at(Branch(*gone).name()))) {
        return {kNever, {}};
      }
    }
    const double error = RemovalError(masked_, removed, feeds_, options_);
    return {error, std::move(removed)};
  }

 private:
  // What the blocks' f give in the masked model.
  void ReadBranches(const std::vector<Choice>& choices) {
    std::vector<std::string> names;
    for (const Choice& choice : choices) {
      if (const Block* block = GoneBlock(choice)) names.push_back(Branch(*block).name());
    }
    if (names.empty()) return;
    std::vector<Tensor> values = Session(WithOutputs(masked_, names), options_).Run(feeds_, names);
    for (size_t i = 0; i < names.size(); ++i) branches_.emplace(names[i], std::move(values[i]));
  }

  // The same in the masked model.
  const Module* Twin(const Module& module) const {
    if (found_.modules.size() != structure_.modules.size()) return nullptr;
    const Module& twin = found_.modules[static_cast<size_t>(&module - structure_.modules.data())];
    return twin.kind == module.kind && twin.units == module.units ? &twin : nullptr;
  }
  const Block* Twin(const Block& block) const {
    const auto twin = std::find_if(found_.blocks.begin(), found_.blocks.end(), [&](const Block& b) {
      return b.add->output(0)->name() == block.add->output(0)->name();
    });
    return twin == found_.blocks.end() ? nullptr : &*twin;
  }

  const Model& masked_;
  const Structure& structure_;
  const Structure found_;
  const SessionOptions options_;
  Feeds feeds_;
  std::map<std::string, Tensor> branches_;
};

}  // namespace

std::optional<Model> RemoveVerified(const Model& masked, const Structure& structure,
                                    std::vector<Choice>& choices, const Context& context,
                                    PassStats& stats) {
  const Remover remover(masked, structure, choices, context);
  Remover::Result all = remover.Remove(choices);
  if (all.error <= kMostError) return std::move(all.model);
  const size_t before = choices.size();
  std::erase_if(choices, [&](const Choice& choice) {
    const double alone = remover.Remove(std::span(&choice, 1)).error;
    if (alone <= kMostError) return false;
    const Block* block = GoneBlock(choice);
    stats.Skip(
        *choice.prunable->module->consumers.front(),
        fmt::format("{}: removing {} changed the answers by {:.1e} of their size; left whole",
                    choice.prunable->name, block ? "the whole block" : "units", alone));
    return true;
  });
  if (choices.size() == before) {
    throw InternalError(fmt::format(
        "units that can each be removed cannot be removed together (error {:.1e})", all.error));
  }
  return std::nullopt;
}

}  // namespace sparsefuse
