#include "passes/analysis/structure.h"

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <utility>

namespace sparsefuse {
namespace {

// All that is known about one leaf.
struct Atom {
  AxisId leaf;
  std::vector<std::pair<const Value*, size_t>> occurrences;  // constants, and the axis in each
  std::set<const Node*> producers, consumers;
  std::set<const Node*> contractions;  // products of two activations that sum over it
  bool batch = false, beside_softmax = false, convolved = false, joined = false;
};

bool IsWeightType(DType dtype) {
  const int bits = DTypeBits(dtype);
  return IsFloating(dtype) || (bits > 0 && bits <= 8 && dtype != DType::kBool);
}

class Classifier {
 public:
  Classifier(const Model& model, const AxisFlow& flow) : flow_(flow) {
    for (const Node* node : model.graph().TopologicalOrder()) {
      order_.emplace(node, order_.size());
      constants_.insert(constants_.end(), node->inputs().begin(), node->inputs().end());
    }
    Collect();
  }

  void Run(Structure& structure) {
    std::map<AxisId, std::string> stays;
    for (const AxisId leaf : leaves_) {
      const Atom& atom = atoms_.at(leaf);
      std::string why = flow_.atoms.frozen(leaf);
      const std::optional<ModuleKind> kind = why.empty() ? Classify(atom, why) : std::nullopt;
      std::optional<Module> module;
      if (kind) module = MakeModule(atom, *kind, why);
      if (module) {
        structure.modules.push_back(std::move(*module));
      } else {
        stays[leaf] = why;
      }
    }
    std::stable_sort(structure.modules.begin(), structure.modules.end(),
                     [&](const Module& a, const Module& b) { return First(a) < First(b); });
    ListFrozen(stays, structure.frozen);
  }

 private:
  void Collect();
  void Note(const AxisEvent& event);
  // A factor of an axis that counts heads, too.
  bool InsideHeads(const Atom& atom) const;
  bool WithinGroups(const Atom& atom) const;
  bool IsHead(const Atom& atom) const {
    return flow_.atoms.frozen(atom.leaf).empty() && atom.batch && atom.beside_softmax;
  }
  std::optional<ModuleKind> Classify(const Atom& atom, std::string& why) const;
  std::optional<Module> MakeModule(const Atom& atom, ModuleKind kind, std::string& why) const;
  std::vector<const Node*> Sorted(const std::set<const Node*>& nodes) const;
  // The node's activations that `leaf` runs through; no positions where the axis is open.
  void AddReads(const Node& node, AxisId leaf, std::vector<ModuleRead>& reads) const;
  void ListFrozen(const std::map<AxisId, std::string>& stays,
                  std::vector<FrozenAxes>& frozen) const;
  size_t First(const Module& module) const { return order_.at(module.producers.front()); }

  const AxisFlow& flow_;
  std::map<const Node*, size_t> order_;
  std::vector<const Value*> constants_;
  std::vector<AxisId> leaves_;  // in order of first occurrence
  std::map<AxisId, Atom> atoms_;
};

void Classifier::Collect() {
  std::vector<const Value*> unique;
  std::set<const Value*> seen;
  for (const Value* value : constants_) {
    const auto axes = value && value->constant() ? flow_.axes.find(value) : flow_.axes.end();
    if (axes == flow_.axes.end() || !seen.insert(value).second) continue;
    unique.push_back(value);
    for (size_t i = 0; i < axes->second.size(); ++i) {
      for (const AxisId leaf : flow_.atoms.Leaves(axes->second[i])) {
        const auto [atom, fresh] = atoms_.try_emplace(leaf, Atom{.leaf = leaf});
        if (fresh) leaves_.push_back(leaf);
        atom->second.occurrences.push_back({value, i});
      }
    }
  }
  constants_ = std::move(unique);
  for (const AxisEvent& event : flow_.events) Note(event);
}

void Classifier::Note(const AxisEvent& event) {
  for (const AxisId leaf : flow_.atoms.Leaves(event.axis)) {
    const auto found = atoms_.find(leaf);
    if (found == atoms_.end()) continue;
    Atom& atom = found->second;
    switch (event.role) {
      case AxisRole::kContractedWithWeight:
        atom.consumers.insert(event.node);
        break;
      case AxisRole::kProduced:
        atom.producers.insert(event.node);
        break;
      case AxisRole::kContracted:
        atom.contractions.insert(event.node);
        break;
      case AxisRole::kBatch:
        atom.batch = true;
        break;
      case AxisRole::kBesideSoftmax:
        atom.beside_softmax = true;
        break;
      case AxisRole::kConvolved:
        atom.convolved = true;
        break;
      case AxisRole::kJoined:
        atom.joined = true;
        break;
    }
  }
}

bool Classifier::InsideHeads(const Atom& atom) const {
  // In one weight is enough: tables of rotations run along the width of one head, for all.
  return std::any_of(atom.occurrences.begin(), atom.occurrences.end(), [&](const auto& occurrence) {
    const auto& [value, axis] = occurrence;
    const std::vector<AxisId> leaves = flow_.atoms.Leaves(flow_.axes.at(value)[axis]);
    return std::any_of(leaves.begin(), leaves.end(),
                       [&](AxisId leaf) { return leaf != atom.leaf && IsHead(atoms_.at(leaf)); });
  });
}

// Another head atom runs through every weight that this one runs through, and more: then that one
// counts the key-value heads, and this one the query heads in each group.
bool Classifier::WithinGroups(const Atom& atom) const {
  for (const auto& [leaf, other] : atoms_) {
    if (leaf == atom.leaf || !IsHead(other)) continue;
    const std::set<std::pair<const Value*, size_t>> theirs(other.occurrences.begin(),
                                                           other.occurrences.end());
    const bool covered = std::all_of(atom.occurrences.begin(), atom.occurrences.end(),
                                     [&](const auto& o) { return theirs.count(o) > 0; });
    if (covered && theirs.size() > atom.occurrences.size()) return true;
  }
  return false;
}

std::optional<ModuleKind> Classifier::Classify(const Atom& atom, std::string& why) const {
  if (atom.producers.empty()) {
    why = "no product with a weight makes it";
    return std::nullopt;
  }
  if (InsideHeads(atom) && !atom.batch) {
    return !atom.contractions.empty() ? ModuleKind::kHeadWidthQk : ModuleKind::kHeadWidthV;
  }
  if (atom.consumers.empty()) {
    why = "no product with a weight sums over it";
    return std::nullopt;
  }
  if (atom.batch) {
    if (!atom.beside_softmax) {
      why = "runs along a product of two activations that is no attention";
      return std::nullopt;
    }
    if (WithinGroups(atom)) return ModuleKind::kQueryHeads;
    for (const auto& [leaf, other] : atoms_) {
      if (leaf != atom.leaf && IsHead(other) && WithinGroups(other) &&
          std::includes(atom.consumers.begin(), atom.consumers.end(), other.consumers.begin(),
                        other.consumers.end())) {
        return ModuleKind::kKvGroups;
      }
    }
    return ModuleKind::kHeads;
  }
  if (!atom.contractions.empty()) {
    why = "summed over in a product of two activations";
    return std::nullopt;
  }
  return atom.convolved ? ModuleKind::kChannels : ModuleKind::kNeurons;
}

std::optional<Module> Classifier::MakeModule(const Atom& atom, ModuleKind kind,
                                             std::string& why) const {
  Module module{.kind = kind,
                .units = flow_.atoms.size(atom.leaf),
                .parameters_per_unit = 0,
                .residual = atom.joined && !atom.batch};
  const auto twice = [](const std::vector<int64_t>& unit_of) {
    return std::find(unit_of.begin(), unit_of.end(), AxisAtoms::kTwice) != unit_of.end();
  };
  for (const auto& [value, axis] : atom.occurrences) {
    ModuleAxis it{value, axis, flow_.atoms.Positions(flow_.axes.at(value)[axis], atom.leaf)};
    if (twice(it.unit_of)) {
      why = "runs twice through one axis";
      return std::nullopt;
    }
    const Tensor& tensor = *value->constant();
    const auto length = static_cast<int64_t>(it.unit_of.size());
    if (IsWeightType(tensor.dtype())) {
      module.parameters_per_unit +=
          tensor.size() / length * std::count(it.unit_of.begin(), it.unit_of.end(), 0);
    }
    module.axes.push_back(std::move(it));
  }
  for (const SizeUse& use : flow_.sizes) {
    if (flow_.atoms.size(use.axis) == AxisAtoms::kOpen) continue;
    const std::vector<AxisId> leaves = flow_.atoms.Leaves(use.axis);
    if (std::find(leaves.begin(), leaves.end(), atom.leaf) == leaves.end()) continue;
    if (kind == ModuleKind::kChannels && use.attribute == "group" && !atom.producers.empty()) {
      // The weight need not be a constant: DequantizeLinear may stand between.
      const AxisId channels_per_group = flow_.axes.at(use.node->input(1))[1];
      if (channels_per_group != AxisAtoms::kOne) module.kind = ModuleKind::kChannelGroups;
    }
    module.sizes.push_back({use, flow_.atoms.Positions(use.axis, atom.leaf)});
    if (twice(module.sizes.back().unit_of)) {
      why = "runs twice through one axis";
      return std::nullopt;
    }
  }
  module.producers = Sorted(atom.producers);
  module.consumers = Sorted(atom.consumers);
  for (const Node* node : module.consumers) AddReads(*node, atom.leaf, module.reads);
  for (const Node* node : Sorted(atom.contractions)) {
    // Zeros in one of the two factors are enough.
    const size_t count = module.reads.size();
    AddReads(*node, atom.leaf, module.reads);
    module.reads.resize(std::min(module.reads.size(), count + 1));
  }
  if (std::any_of(module.reads.begin(), module.reads.end(),
                  [](const ModuleRead& read) { return read.unit_of.empty(); })) {
    why = "summed over together with an axis of open size";
    return std::nullopt;
  }
  if (kind == ModuleKind::kHeadWidthQk || kind == ModuleKind::kHeadWidthV) {
    module.reason = "the width of all heads together is for factorize";
    module.residual = false;
  } else if (module.residual) {
    module.reason = "part of a residual stream: removing one touches every layer on it";
  }
  return module;
}

std::vector<const Node*> Classifier::Sorted(const std::set<const Node*>& nodes) const {
  std::vector<const Node*> list(nodes.begin(), nodes.end());
  std::sort(list.begin(), list.end(),
            [&](const Node* a, const Node* b) { return order_.at(a) < order_.at(b); });
  return list;
}

void Classifier::AddReads(const Node& node, AxisId leaf, std::vector<ModuleRead>& reads) const {
  for (size_t input = 0; input < node.inputs().size(); ++input) {
    const auto axes = flow_.axes.find(node.input(input));
    if (flow_.IsWeight(node.input(input)) || axes == flow_.axes.end()) continue;
    for (size_t i = 0; i < axes->second.size(); ++i) {
      const std::vector<AxisId> leaves = flow_.atoms.Leaves(axes->second[i]);
      if (std::find(leaves.begin(), leaves.end(), leaf) == leaves.end()) continue;
      const bool open = flow_.atoms.size(axes->second[i]) == AxisAtoms::kOpen;
      reads.push_back({&node, input, i, axes->second.size(), {}});
      if (!open) reads.back().unit_of = flow_.atoms.Positions(axes->second[i], leaf);
    }
  }
}

void Classifier::ListFrozen(const std::map<AxisId, std::string>& stays,
                            std::vector<FrozenAxes>& frozen) const {
  std::map<std::pair<std::string, int64_t>, size_t> rows;
  std::map<size_t, std::set<const Value*>> counted;
  for (const AxisId leaf : leaves_) {
    const auto why = stays.find(leaf);
    if (why == stays.end()) continue;
    for (const auto& [value, axis] : atoms_.at(leaf).occurrences) {
      if (!IsWeightType(value->constant()->dtype())) continue;
      const int64_t size = flow_.atoms.size(leaf);
      const auto [row, fresh] = rows.try_emplace({why->second, size}, frozen.size());
      if (fresh) frozen.push_back({size, why->second, 0, value});
      if (counted[row->second].insert(value).second) ++frozen[row->second].weights;
    }
  }
  std::stable_sort(frozen.begin(), frozen.end(),
                   [](const FrozenAxes& a, const FrozenAxes& b) { return a.weights > b.weights; });
}

}  // namespace

std::string_view Name(ModuleKind kind) {
  switch (kind) {
    case ModuleKind::kHeads:
      return "attention heads";
    case ModuleKind::kKvGroups:
      return "key-value groups";
    case ModuleKind::kQueryHeads:
      return "query heads per group";
    case ModuleKind::kHeadWidthQk:
      return "query-key width";
    case ModuleKind::kHeadWidthV:
      return "value width";
    case ModuleKind::kNeurons:
      return "neurons";
    case ModuleKind::kChannels:
      return "channels";
    case ModuleKind::kChannelGroups:
      return "channel groups";
  }
  return "";
}

Structure FindStructure(const Model& model) {
  Structure structure;
  const AxisFlow flow = TraceAxes(model);
  Classifier(model, flow).Run(structure);
  structure.blocks = FindBlocks(model, flow);
  return structure;
}

}  // namespace sparsefuse
