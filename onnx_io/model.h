// The model in memory. Own what passes change (topology, weights); borrow the rest: every object
// keeps the protobuf message it was read from, emptied of what the IR owns (its "shell"), so that
// fields and unknown fields that nobody touched come back byte for byte. Shells are shared between
// copies of a model and never modified.
//
// Ownership: Model → Graph (and functions) → Node, Value. Raw pointers are non-owning and stay
// valid until the object is removed from its graph. Not thread-safe for writing; const use is.

#ifndef SPARSEFUSE_ONNX_IO_MODEL_H_
#define SPARSEFUSE_ONNX_IO_MODEL_H_

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <variant>
#include <vector>

#include "onnx_io/tensor.h"

namespace onnx {
class AttributeProto;
class FunctionProto;
class GraphProto;
class ModelProto;
class NodeProto;
class SparseTensorProto;
class TensorProto;
class ValueInfoProto;
}  // namespace onnx

namespace sparsefuse {

class Graph;
class Model;
class Node;
class Value;
struct FileIdentity;

// Type as declared in the file or given by a pass. An annotation is a hint, never trusted:
// exporters write contradictory ones.
struct ValueType {
  DType dtype = DType::kUndefined;  // kUndefined: not a tensor (sequence, map, optional) or unknown
  bool has_shape = false;
  // One per axis: a number ≥ 0, or a symbol's name, or nothing known (empty string).
  std::vector<std::variant<int64_t, std::string>> dims;
};

struct Use {
  Node* node;
  int index;  // which input of node
};

// A tensor in a graph: a graph input, an initializer, or the output of a node.
class Value {
 public:
  const std::string& name() const { return name_; }
  Graph* graph() const { return graph_; }
  Node* producer() const { return producer_; }  // null: graph input or initializer
  int producer_index() const { return producer_index_; }
  // Each use by a node's input, in this graph and in nested subgraphs (outer-scope references).
  // Graph outputs are not uses: see is_graph_output().
  const std::vector<Use>& uses() const { return uses_; }
  bool is_graph_input() const { return is_graph_input_; }
  bool is_graph_output() const { return is_graph_output_; }
  // True when exactly one node input reads it and it is no graph output.
  bool has_single_use() const { return uses_.size() == 1 && !is_graph_output_; }
  bool is_initializer() const { return initializer_.has_value(); }
  // Has no Tensor: its two tensors stay in the shell.
  bool is_sparse_initializer() const { return sparse_shell_ != nullptr; }

  // The value known before running: an initializer that is not also a graph input (an input may
  // override it from IR version 4 on, so it is no constant there), or the output of a Constant
  // node. Null otherwise.
  const Tensor* constant() const;
  // The initializer's tensor, even when it is also a graph input.
  const Tensor* initializer() const { return initializer_ ? &*initializer_ : nullptr; }
  // Replaces an initializer's tensor.
  void set_initializer(Tensor tensor);

  // As a graph input, graph output or value_info declares it, the first that does.
  const std::optional<ValueType>& type() const { return type_; }
  // Written wherever the value is declared; a value_info entry is added if it is declared nowhere.
  void set_type(std::optional<ValueType> type);

 private:
  friend class Graph;
  friend class Model;
  friend class Node;
  friend struct ModelCodec;  // reader and writer

  void RemoveUse(Use use);

  std::string name_;
  Graph* graph_ = nullptr;
  Node* producer_ = nullptr;
  int producer_index_ = -1;
  std::vector<Use> uses_;
  bool is_graph_input_ = false;
  bool is_graph_output_ = false;
  bool type_changed_ = false;  // the shells' types are out of date
  std::optional<Tensor> initializer_;
  std::optional<Tensor> node_constant_;  // the producer is a Constant node
  std::optional<ValueType> type_;
  std::shared_ptr<const onnx::TensorProto> tensor_shell_;
  std::shared_ptr<const onnx::SparseTensorProto> sparse_shell_;
  size_t initializer_index_ = 0;     // in graph_->initializers_ or sparse_initializers_
  std::vector<size_t> annotations_;  // in graph_->annotations_
};

struct AttributeRef {
  std::string name;  // function bodies: the function's attribute that this one takes its value from
  int type;          // onnx.AttributeProto.AttributeType
};

class Attribute {
 public:
  using Data = std::variant<std::monostate,  // a kind that the IR leaves in the shell (sparse
                                             // tensors, type_protos, unknown kinds)
                            int64_t, float, std::string, Tensor, std::unique_ptr<Graph>,
                            std::vector<int64_t>, std::vector<float>, std::vector<std::string>,
                            std::vector<Tensor>, std::vector<std::unique_ptr<Graph>>, AttributeRef>;

  Attribute(std::string name, Data data) : name(std::move(name)), data(std::move(data)) {}

  std::string name;
  Data data;
  std::shared_ptr<const onnx::AttributeProto> shell;
  // Shells of the tensors in `data`, in order (names, doc strings, external data entries).
  std::vector<std::shared_ptr<const onnx::TensorProto>> tensor_shells;
};

class Node {
 public:
  const std::string& name() const { return name_; }
  void set_name(std::string name) { name_ = std::move(name); }
  const std::string& op() const { return op_; }
  const std::string& domain() const { return domain_; }  // "" = default; "ai.onnx" reads as ""
  const std::string& overload() const { return overload_; }
  // Another operator in place; inputs, outputs and attributes stay.
  void set_op(std::string op, std::string domain = "");
  bool Is(std::string_view op, std::string_view domain = "") const {
    return op_ == op && domain_ == domain;
  }
  Graph* graph() const { return graph_; }

  // An absent optional input or output is null.
  const std::vector<Value*>& inputs() const { return inputs_; }
  const std::vector<Value*>& outputs() const { return outputs_; }
  // Null also when there is no such input.
  Value* input(size_t i) const { return i < inputs_.size() ? inputs_[i] : nullptr; }
  Value* output(size_t i) const { return i < outputs_.size() ? outputs_[i] : nullptr; }
  // The constant behind input i, or null.
  const Tensor* constant_input(size_t i) const { return input(i) ? input(i)->constant() : nullptr; }

  const std::vector<Attribute>& attributes() const { return attributes_; }
  const Attribute* attribute(std::string_view name) const;
  // The attribute's value, or the default when it is absent. UserError E_MODEL on another kind.
  int64_t GetInt(std::string_view name, int64_t otherwise) const;
  float GetFloat(std::string_view name, float otherwise) const;
  std::string GetString(std::string_view name, std::string_view otherwise) const;
  std::vector<int64_t> GetInts(std::string_view name, std::vector<int64_t> otherwise) const;
  void SetAttribute(std::string name, Attribute::Data data);  // adds or replaces
  void RemoveAttribute(std::string_view name);

  // `node "name" (Op)` for messages; a nameless node is named by its first output.
  std::string Describe() const;

 private:
  friend class Graph;
  friend class Model;
  friend struct ModelCodec;

  void Adopt(const Attribute& attribute);  // its subgraphs get their place and names
  // Forgets what the nodes in the attribute's subgraphs use; before the attribute goes.
  static void DetachSubgraphs(const Attribute& attribute);
  void RefreshConstant();  // the output's known value, after any change of op or attributes

  std::string name_, op_, domain_, overload_;
  Graph* graph_ = nullptr;
  std::vector<Value*> inputs_, outputs_;
  std::vector<Attribute> attributes_;
  std::list<std::unique_ptr<Node>>::iterator position_;  // in graph_->nodes_
  std::shared_ptr<const onnx::NodeProto> shell_;
};

struct NewNode {
  std::string op;
  std::string domain;
  std::string name;                  // may be empty
  std::vector<Value*> inputs;        // null = absent
  std::vector<std::string> outputs;  // names of new values; "" = absent. Made unique by the caller
                                     // (Graph::FreshName) or fresh in the file
  std::vector<std::pair<std::string, Attribute::Data>> attributes;
};

class Graph {
 public:
  const std::string& name() const { return name_; }
  void set_name(std::string name) { name_ = std::move(name); }
  Model* model() const;                     // null in a subgraph that no node holds yet
  Node* parent() const { return parent_; }  // the node whose attribute holds this subgraph, or null

  // In the file's order, which need not be topological (ONNX Runtime accepts any). Do not add or
  // remove nodes while iterating: take a copy of the vector of pointers with Nodes().
  std::vector<Node*> Nodes() const;
  // Producers before users, stable with respect to the file's order. UserError E_MODEL on a cycle.
  // Uses inside a node's subgraphs count as uses by that node.
  std::vector<Node*> TopologicalOrder() const;
  size_t node_count() const { return nodes_.size(); }

  const std::vector<Value*>& inputs() const { return inputs_; }
  const std::vector<Value*>& outputs() const { return outputs_; }
  std::vector<Value*> Initializers() const;         // in file order
  Value* FindValue(std::string_view name) const;    // this graph only; null if none
  Value* FindInScope(std::string_view name) const;  // this graph, then the graphs around it

  // `prefix` itself if no value, node or initializer anywhere in the model has it, else with a
  // number appended. Remembers what it gave out.
  std::string FreshName(std::string_view prefix);

  // Inserted before `before`, or at the end.
  Node* AddNode(NewNode node, Node* before = nullptr);
  Value* AddInitializer(std::string name, Tensor tensor);
  // Without type in function bodies.
  Value* AddGraphInput(std::string name, std::optional<ValueType> type = {});

  void SetInput(Node* node, size_t index, Value* value);
  void AddInput(Node* node, Value* value);  // appends
  // All uses (nested ones too) of `from` read `to` instead. Graph outputs stay with `from`: use
  // MoveOutput for those.
  void ReplaceUses(Value* from, Value* to);
  // `value`, an output of some node, becomes output `index` of `to`, keeping its name, uses and
  // place among the graph outputs; the old producer loses that output (null in its place), and a
  // value that `to` had there must be unused and is deleted.
  void MoveOutput(Value* value, Node* to, size_t index);
  // The node's outputs must be unused and no graph outputs. Deletes them and the node.
  void RemoveNode(Node* node);
  // Must be unused, no graph output; if it is also a graph input only the default value goes and it
  // may be used. Sparse initializers too.
  void RemoveInitializer(Value* value);
  // The value is no longer a graph input. It must have an initializer or be unused; then it is
  // deleted.
  void RemoveGraphInput(Value* value);
  // Adds `value` to the graph's outputs (engine: intermediate tensors). Its type may be unknown.
  void AddGraphOutput(Value* value);
  void RemoveGraphOutput(Value* value);  // the value stays

 private:
  friend class Model;
  friend class Node;
  friend class Value;
  friend struct ModelCodec;

  struct NameHash {
    using is_transparent = void;  // looked up by std::string_view without a copy
    size_t operator()(std::string_view name) const noexcept {
      return std::hash<std::string_view>{}(name);
    }
  };

  // A value_info entry. Null value: names nothing in this graph; both null: deleted.
  struct Annotation {
    Value* value;
    std::shared_ptr<const onnx::ValueInfoProto> shell;
  };

  Value* NewValue(std::string name);
  void DeleteValue(Value* value);
  void Annotate(Value* value, std::shared_ptr<const onnx::ValueInfoProto> shell);

  std::string name_;
  Model* model_ = nullptr;  // only in main graphs and function bodies
  Node* parent_ = nullptr;
  std::list<std::unique_ptr<Node>> nodes_;
  std::unordered_map<std::string, std::unique_ptr<Value>, NameHash, std::equal_to<>> values_;
  std::vector<Value*> inputs_, outputs_;
  std::vector<std::shared_ptr<const onnx::ValueInfoProto>> input_shells_, output_shells_;
  std::vector<Value*> initializers_, sparse_initializers_;  // null where removed
  std::vector<Annotation> annotations_;
  std::shared_ptr<const onnx::GraphProto> shell_;
};

// A model-local function. Its body's inputs and outputs have no types.
struct Function {
  std::string domain, name, overload;
  std::vector<std::string> attributes;  // names without default
  std::map<std::string, int64_t> opset_imports;
  std::unique_ptr<Graph> body;
  std::shared_ptr<const onnx::FunctionProto> shell;
};

class Model {
 public:
  // An empty graph named "main", IR version 10, no opset imported yet.
  Model();
  ~Model();
  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;

  // Copies the topology; tensors and shells are shared.
  Model Clone() const;

  Graph& graph() { return *graph_; }
  const Graph& graph() const { return *graph_; }
  std::vector<std::unique_ptr<Function>>& functions() { return functions_; }
  const std::vector<std::unique_ptr<Function>>& functions() const { return functions_; }
  Function* FindFunction(std::string_view domain, std::string_view name) const;
  // The body gets `inputs` as graph inputs; fill it with AddNode and AddGraphOutput.
  Function* AddFunction(std::string domain, std::string name,
                        const std::vector<std::string>& inputs, std::vector<std::string> attributes,
                        std::map<std::string, int64_t> imports);

  int64_t ir_version = 10;
  // Domain → version, "" for the default domain ("ai.onnx" in the file reads as "").
  std::map<std::string, int64_t> opset_imports;
  std::vector<std::pair<std::string, std::string>> metadata;  // metadata_props
  std::string producer_name, producer_version;
  std::string source;  // path that it was read from, for messages; empty for new models

  // Of the default domain; 0 if not imported. 1 before IR version 3, which had no imports.
  int64_t opset() const;

  // Bytes of all initializers and Constant tensors, each shared storage counted once.
  uint64_t WeightBytes() const;

 private:
  friend class Graph;
  friend class Node;
  friend struct ModelCodec;
  class Cloner;

  std::unique_ptr<Graph> graph_;
  std::vector<std::unique_ptr<Function>> functions_;
  std::unordered_set<std::string> names_;  // every name in use or given out by FreshName
  std::unordered_map<std::string, uint64_t> next_suffix_;  // FreshName: first one not tried yet
  std::vector<FileIdentity> files_;                        // what it was read from
  std::shared_ptr<const onnx::ModelProto> shell_;
};

// Calls `visit` for the main graph, every function body and every nested subgraph, outer before
// inner, iteratively. The only walk offered to passes; a pass that wants only the main graph says
// model.graph().
void ForEachGraph(Model& model, const std::function<void(Graph&)>& visit);
void ForEachGraph(const Model& model, const std::function<void(const Graph&)>& visit);
// The same for one graph and its nested subgraphs.
void ForEachGraph(Graph& root, const std::function<void(Graph&)>& visit);
void ForEachGraph(const Graph& root, const std::function<void(const Graph&)>& visit);

// Deepest nesting of subgraphs. protobuf's limit of 100 nested messages allows 33.
inline constexpr int kMaxSubgraphDepth = 32;

// Structural checks: every input defined in scope, no cycles (among functions neither), every node
// with an operator and an output, attribute references only in functions; UserError E_MODEL naming
// the node. E_LIMIT where the graph is larger than any real one: kMaxNodes and its neighbours in
// verifier.cpp. InternalError if uses, producers and ports contradict each other.
void Verify(const Model& model);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_ONNX_IO_MODEL_H_
