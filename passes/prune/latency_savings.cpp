#include "passes/prune/latency_savings.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>

#include "onnx_io/error.h"
#include "passes/engine/engine.h"
#include "passes/prune/block_drop.h"
#include "passes/prune/removal.h"
#include "passes/statistics/cuts.h"
#include "passes/statistics/matrix.h"

namespace sparsefuse {
namespace {

using Points = std::vector<std::pair<double, double>>;

// Many parts, each a small one.
constexpr TimingOptions kPartTiming{.min_seconds = 0.1};

// The part of a model between two cuts; empty: its inputs, its outputs.
struct Part {
  std::string from, to;
};

class Stopwatch {
 public:
  Stopwatch(const Model& model, const std::vector<ModuleOptions>& options, const Context& context)
      : model_(model),
        options_{.threads = 1, .operator_library = context.operator_library},
        cuts_(FindCuts(model)) {
    for (const Node* node : model.graph().TopologicalOrder()) order_.emplace(node, order_.size());
    const Dataset& data = *context.calibration;
    const std::vector<int64_t> samples(
        static_cast<size_t>(std::max<int64_t>(1, data.fixed_batch())), 0);
    feeds_ = data.Gather(samples);
    std::vector<std::string> names = cuts_;
    for (const ModuleOptions& module : options) {
      if (module.prunable->block) names.push_back(Branch(*module.prunable->block));
    }
    if (names.empty()) return;
    std::vector<Tensor> values = Session(WithOutputs(model, names), options_).Run(feeds_, names);
    for (size_t i = 0; i < names.size(); ++i) values_.insert_or_assign(names[i], values[i]);
  }

  // Milliseconds that each of `choices` saves, of the part around all that they change; the first
  // number is what the part takes.
  std::vector<double> Time(std::span<const std::vector<Choice>> choices, const Part& part) const {
    std::vector<Session> sessions;
    sessions.reserve(choices.size() + 1);
    const bool whole = part.from.empty() && part.to.empty();
    const auto load = [&](const Model& model) {
      sessions.emplace_back(whole ? model.Clone() : Segment(model, part.from, part.to), options_);
    };
    load(model_);
    for (const std::vector<Choice>& some : choices) load(Without(some));
    std::vector<const Session*> pointers;
    for (const Session& session : sessions) pointers.push_back(&session);
    Feeds feeds = feeds_;
    if (!part.from.empty()) feeds.emplace_back(part.from, values_.at(part.from));
    const std::vector<Latency> latencies =
        TimeInterleaved(pointers, feeds, whole ? TimingOptions{} : kPartTiming);
    std::vector<double> saved = {latencies[0].min_ms};
    for (size_t i = 1; i < latencies.size(); ++i) {
      saved.push_back(latencies[0].min_ms - latencies[i].min_ms);
    }
    return saved;
  }

  // The least part that holds the module, and the block that goes with it.
  Part Around(const Prunable& prunable) const {
    std::vector<const Node*> nodes = prunable.module->producers;
    const auto add = [&](const std::vector<const Node*>& more) {
      nodes.insert(nodes.end(), more.begin(), more.end());
    };
    add(prunable.module->consumers);
    if (prunable.block) {
      add(prunable.block->removed);
      nodes.push_back(prunable.block->add);
    }
    size_t first = order_.size(), last = 0;
    for (const Node* node : nodes) {
      first = std::min(first, order_.at(node));
      last = std::max(last, order_.at(node));
    }
    Part part;
    for (const std::string& cut : cuts_) {
      const size_t place = order_.at(model_.graph().FindValue(cut)->producer());
      if (place < first) part.from = cut;
      if (place < last) continue;
      part.to = cut;
      break;
    }
    return part;
  }

 private:
  static std::string Branch(const Block& block) {
    return block.add->input(1 - block.kept_input)->name();
  }

  Model Without(const std::vector<Choice>& choices) const {
    std::vector<Keep> keeps;
    for (const Choice& choice : choices) {
      if (!GoneBlock(choice)) keeps.push_back({choice.prunable->module, choice.kept});
    }
    Model removed = model_.Clone();
    RemoveUnits(removed, keeps);
    for (const Choice& choice : choices) {
      const Block* block = GoneBlock(choice);
      if (!block) continue;
      // A sum that stays, as it will, and under its name, for it may be a cut.
      const Tensor one = ToTensor(values_.at(Branch(*block)).dtype(), {}, std::vector{1.0});
      RemoveBlock(removed, *block, &one);
    }
    return removed;
  }

  const Model& model_;
  const SessionOptions options_;
  const std::vector<std::string> cuts_;
  std::map<const Node*, size_t> order_;
  Feeds feeds_;
  std::map<std::string, Tensor> values_;  // at the cuts, and what blocks add
};

std::vector<double> MeasureModule(const ModuleOptions& module, const Stopwatch& stopwatch) {
  const auto units = static_cast<double>(module.prunable->module->units);
  std::vector<size_t> some;  // that keep units
  for (size_t o = 0; o < module.options.size(); ++o) {
    if (!module.options[o].kept.empty()) some.push_back(o);
  }
  if (some.size() > 3) some = {some.front(), some[some.size() / 2], some.back()};
  if (module.options.back().kept.empty()) some.push_back(module.options.size() - 1);
  std::vector<std::vector<Choice>> choices;
  for (const size_t o : some) choices.push_back({{module.prunable, module.options[o].kept}});
  const std::vector<double> times = stopwatch.Time(choices, stopwatch.Around(*module.prunable));
  Points points;
  double block = 0;
  for (size_t i = 0; i < some.size(); ++i) {
    const auto kept = static_cast<double>(module.options[some[i]].kept.size());
    if (kept == 0) {
      block = times[i + 1];
    } else {
      points.emplace_back(units - kept, times[i + 1]);
    }
  }
  std::vector<double> saved;
  for (const PruneOption& option : module.options) {
    const auto kept = static_cast<double>(option.kept.size());
    saved.push_back(kept == 0 ? block : Interpolate(points, units - kept));
    // A block that goes saves no less than some of its units.
    if (kept == 0 && saved.size() > 1) saved.back() = std::max(block, *(saved.end() - 2));
  }
  return saved;
}

std::string Subject(const Prunable& prunable) {
  return fmt::format("{} before {}", prunable.name, prunable.module->consumers.front()->Describe());
}

}  // namespace

double Interpolate(std::span<const std::pair<double, double>> points, double removed) {
  double x = 0, y = 0;
  for (const auto& [next_x, measured] : points) {
    const double next_y = std::max(measured, y);
    if (removed <= next_x) return y + (next_y - y) * (removed - x) / (next_x - x);
    x = next_x;
    y = next_y;
  }
  return x > 0 ? y * removed / x : 0;
}

Savings MeasureSavings(const Model& model, const std::vector<ModuleOptions>& options,
                       const Context& context) {
  struct State {
    Stopwatch stopwatch;
    std::vector<std::pair<std::vector<Choice>, double>> known;
  };
  const auto state = std::make_shared<State>(State{Stopwatch(model, options, context), {}});
  Savings savings;
  std::vector<const Prunable*> pruned;
  std::vector<Choice> most;
  for (size_t m = 0; m < options.size(); ++m) {
    savings.alone.emplace_back();
    if (options[m].options.empty()) continue;
    savings.alone.back() = MeasureModule(options[m], state->stopwatch);
    pruned.push_back(options[m].prunable);
    most.push_back({options[m].prunable, {0}});
    context.progress("timing", static_cast<int64_t>(m + 1), static_cast<int64_t>(options.size()));
  }
  const std::vector<double> times = state->stopwatch.Time({&most, 1}, {});
  std::vector<Keep> keeps;
  for (const Choice& choice : most) keeps.push_back({choice.prunable->module, choice.kept});
  const ProductCosts costs(model, ProductCosts::Unit::kFlops, context);
  if (!(times[1] > 0)) {
    throw UserError(ErrorCode::kUnsupported,
                    "the time of the prunable layers is too short to be measured",
                    "use \"of\": \"flops\"");
  }
  savings.whole = times[0];
  savings.all = times[1] * costs.Of(pruned) / costs.Saved(keeps);
  const double whole = savings.whole;
  savings.together = [state, whole](const std::vector<Choice>& choices) {
    const auto same = [&](const auto& entry) {
      return std::equal(entry.first.begin(), entry.first.end(), choices.begin(), choices.end(),
                        [](const Choice& a, const Choice& b) {
                          return a.prunable == b.prunable && a.kept == b.kept;
                        });
    };
    const auto known = std::find_if(state->known.begin(), state->known.end(), same);
    if (known != state->known.end()) return known->second;
    const std::vector<double> now = state->stopwatch.Time({&choices, 1}, {});
    // The machine may run at another speed than before.
    const double saved = now[1] / now[0] * whole;
    state->known.emplace_back(choices, saved);
    return saved;
  };
  return savings;
}

std::optional<LatencyDecision> RecordedDecision(const std::vector<ModuleOptions>& options,
                                                double ratio, const Context& context) {
  const auto& decisions = context.decisions;
  const nlohmann::json::json_pointer place("/prune/latency");
  if (!decisions.contains(place) || !decisions[place].is_array()) return std::nullopt;
  for (const nlohmann::json& entry : decisions[place]) {
    if (!entry.is_object() || entry.value("ratio", nlohmann::json()) != ratio) continue;
    const nlohmann::json keep = entry.value("keep", nlohmann::json());
    LatencyDecision decision;
    size_t next = 0;
    bool fits = keep.is_array();
    for (const ModuleOptions& module : options) {
      if (module.options.empty() || !fits) continue;
      const nlohmann::json row = next < keep.size() ? keep[next] : nlohmann::json();
      ++next;
      fits = row.is_array() && row.size() == 2 && row[0] == Subject(*module.prunable) &&
             row[1].is_number_integer();
      if (!fits || row[1] == module.prunable->module->units) continue;
      const auto option =
          std::find_if(module.options.begin(), module.options.end(),
                       [&](const PruneOption& o) { return row[1] == o.kept.size(); });
      fits = option != module.options.end();
      if (fits) decision.choices.push_back({module.prunable, option->kept});
    }
    if (!fits || next != keep.size()) continue;
    const auto share = [&](const char* name) {
      const nlohmann::json number = entry.value(name, nlohmann::json());
      return number.is_number() ? number.get<double>() : 0;
    };
    decision.saved = share("saved");
    decision.saved_of_model = share("saved_of_model");
    return decision;
  }
  return std::nullopt;
}

void Record(const LatencyDecision& decision, const std::vector<ModuleOptions>& options,
            double ratio, Context& context) {
  nlohmann::json keep = nlohmann::json::array();
  for (const ModuleOptions& module : options) {
    if (module.options.empty()) continue;
    int64_t count = module.prunable->module->units;
    for (const Choice& choice : decision.choices) {
      if (choice.prunable == module.prunable) count = static_cast<int64_t>(choice.kept.size());
    }
    keep.push_back({Subject(*module.prunable), count});
  }
  const auto rounded = [](double x) { return std::round(x * 1000) / 1000; };
  nlohmann::json& own = context.decisions["prune"];
  if (!own.is_object()) own = nlohmann::json::object();
  nlohmann::json& list = own["latency"];
  if (!list.is_array()) list = nlohmann::json::array();
  list.push_back({{"ratio", ratio},
                  {"keep", std::move(keep)},
                  {"saved", rounded(decision.saved)},
                  {"saved_of_model", rounded(decision.saved_of_model)}});
}

}  // namespace sparsefuse
