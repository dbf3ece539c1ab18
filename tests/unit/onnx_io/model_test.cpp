// Building and editing models: uses, producers and ports stay consistent (Verify checks them all).

#include "onnx_io/model.h"

#include "onnx_io/text.h"
#include "onnx_io/writer.h"
#include "tests/unit/onnx_io/protos.h"

namespace sparsefuse {
namespace {

using test::ErrorOf;

const ValueType kVector{.dtype = DType::kFloat, .has_shape = true, .dims = {"N", int64_t{4}}};

// y = Relu(x · W), y2 = Neg(x · W)
struct Fixture {
  Fixture() {
    model.opset_imports[""] = 18;
    x = graph.AddGraphInput("x", kVector);
    w = graph.AddInitializer("W", Tensor::Of<float>({4, 4}, std::vector<float>(16, 0.5f)));
    matmul = graph.AddNode({.op = "MatMul", .name = "mm", .inputs = {x, w}, .outputs = {"h"}});
    relu = graph.AddNode({.op = "Relu", .inputs = {matmul->output(0)}, .outputs = {"y"}});
    neg = graph.AddNode({.op = "Neg", .inputs = {matmul->output(0)}, .outputs = {"y2"}});
    graph.AddGraphOutput(relu->output(0));
    graph.AddGraphOutput(neg->output(0));
  }
  Model model;
  Graph& graph = model.graph();
  Value *x, *w;
  Node *matmul, *relu, *neg;
};

// If with two branches that read `x`, defined outside.
constexpr const char* kNested = R"(
  main (float[4] x, bool c) => (float[4] y) {
    h = Neg(x)
    y = If(c) <then_branch = then_graph () => (float[4] t) { t = Add(h, x) },
               else_branch = else_graph () => (float[4] e) {
                 e = If(c) <then_branch = a () => (float[4] p) { p = Relu(h) },
                            else_branch = b () => (float[4] q) { q = Identity(x) }>
               }>
  })";

std::vector<std::string> Names(const std::vector<Node*>& nodes) {
  std::vector<std::string> names;
  for (const Node* node : nodes) names.push_back(node->output(0)->name());
  return names;
}

}  // namespace

TEST_CASE("a model built from nothing is complete and can be written and read") {
  Fixture f;
  Verify(f.model);
  CHECK(f.model.opset() == 18);
  CHECK(f.graph.model() == &f.model);
  CHECK(f.x->is_graph_input());
  CHECK(f.w->constant() == f.w->initializer());
  CHECK(f.matmul->constant_input(1)->size() == 16);
  CHECK(f.matmul->constant_input(0) == nullptr);
  CHECK(f.matmul->constant_input(7) == nullptr);
  CHECK(f.matmul->output(0)->uses().size() == 2);
  CHECK_FALSE(f.matmul->output(0)->has_single_use());
  CHECK(f.matmul->Describe() == "node \"mm\" (MatMul)");
  CHECK(f.relu->Describe() == "node \"y\" (Relu)");

  const Model again = ReadModelFromBytes(test::AsBytes(SerializeModel(f.model)));
  CHECK(ToText(again) == ToText(f.model));
  CHECK(again.ir_version == 10);
  const ValueType& type = *again.graph().inputs()[0]->type();
  CHECK(type.dtype == DType::kFloat);
  CHECK(std::get<std::string>(type.dims[0]) == "N");
  CHECK(std::get<int64_t>(type.dims[1]) == 4);
}

TEST_CASE("MoveOutput keeps name, uses and place among the outputs") {
  Fixture f;
  Value* y = f.relu->output(0);
  Node* clip = f.graph.AddNode(
      {.op = "Clip", .inputs = {f.matmul->output(0)}, .outputs = {f.graph.FreshName("y")}});
  CHECK(clip->output(0)->name() != "y");
  f.graph.MoveOutput(y, clip, 0);
  CHECK(y->producer() == clip);
  CHECK(f.relu->output(0) == nullptr);
  CHECK(f.graph.outputs()[0] == y);
  f.graph.RemoveNode(f.relu);
  Verify(f.model);
  CHECK(f.graph.node_count() == 3);
  CHECK(f.matmul->output(0)->uses().size() == 2);
  CHECK(f.graph.FindValue("y_1") == nullptr);  // the output that "y" displaced

  // To a place that did not exist yet; those before it are absent.
  f.graph.MoveOutput(y, f.neg, 2);
  CHECK(f.neg->outputs().size() == 3);
  CHECK(f.neg->output(1) == nullptr);
  CHECK(y->producer_index() == 2);
}

TEST_CASE("ReplaceUses leaves graph outputs alone") {
  Fixture f;
  Node* other = f.graph.AddNode({.op = "Abs", .inputs = {f.x}, .outputs = {"h2"}}, f.matmul);
  f.graph.ReplaceUses(f.matmul->output(0), other->output(0));
  CHECK(f.matmul->output(0)->uses().empty());
  CHECK(other->output(0)->uses().size() == 2);
  CHECK(f.relu->input(0) == other->output(0));
  CHECK(f.graph.Nodes()[0] == other);
  f.graph.RemoveNode(f.matmul);
  f.graph.RemoveInitializer(f.w);
  CHECK(f.graph.FindValue("W") == nullptr);
  CHECK(f.graph.FindValue("h") == nullptr);
  CHECK(f.graph.Initializers().empty());
  Verify(f.model);
  f.graph.ReplaceUses(f.relu->output(0), f.x);  // no uses; it stays an output
  CHECK(f.graph.outputs()[0]->name() == "y");
}

TEST_CASE("what is still needed cannot be removed") {
  Fixture f;
  CHECK_THROWS_AS(f.graph.RemoveNode(f.matmul), InternalError);
  CHECK_THROWS_AS(f.graph.RemoveNode(f.relu), InternalError);  // a graph output
  CHECK_THROWS_AS(f.graph.RemoveInitializer(f.w), InternalError);
  CHECK_THROWS_AS(f.graph.AddInitializer("h", Tensor::Scalar(1.0f)), InternalError);
  CHECK_THROWS_AS(f.graph.MoveOutput(f.relu->output(0), f.matmul, 0), InternalError);
}

TEST_CASE("SetInput and AddInput") {
  Fixture f;
  f.graph.SetInput(f.relu, 0, f.x);
  CHECK(f.x->uses().size() == 2);
  CHECK(f.matmul->output(0)->has_single_use());
  f.graph.SetInput(f.relu, 0, nullptr);
  CHECK(f.x->has_single_use());
  f.graph.AddInput(f.relu, f.w);
  CHECK(f.w->uses().back().index == 1);
  Verify(f.model);
  CHECK_THROWS_AS(f.graph.SetInput(f.relu, 2, f.x), InternalError);
}

TEST_CASE("FreshName avoids every name in the model and what it gave out") {
  Model model = ModelFromText(kNested);
  Graph& graph = model.graph();
  CHECK(graph.FreshName("h") == "h_1");
  CHECK(graph.FreshName("h") == "h_2");
  CHECK(graph.FreshName("p") == "p_1");  // in a nested subgraph
  CHECK(graph.FreshName("new") == "new");
  CHECK(graph.FreshName("new") == "new_1");
  CHECK(graph.FreshName("").size() > 0);
}

TEST_CASE("uses in nested subgraphs are uses") {
  Model model = ModelFromText(kNested);
  Graph& graph = model.graph();
  Value* h = graph.FindValue("h");
  Value* x = graph.FindValue("x");
  REQUIRE(h->uses().size() == 2);
  CHECK(h->uses()[0].node->Is("Add"));
  CHECK(h->uses()[1].node->Is("Relu"));
  CHECK(h->uses()[1].node->graph()->parent()->graph()->parent()->graph() == &graph);
  CHECK(x->uses().size() == 3);
  CHECK(h->uses()[1].node->graph()->model() == &model);

  int graphs = 0;
  ForEachGraph(model, [&](const Graph&) { ++graphs; });
  CHECK(graphs == 5);

  Node* abs = graph.AddNode({.op = "Abs", .inputs = {x}, .outputs = {"k"}});  // last in the file
  graph.ReplaceUses(h, abs->output(0));
  CHECK(abs->output(0)->uses().size() == 2);
  CHECK(Names(graph.TopologicalOrder()) == std::vector<std::string>{"h", "k", "y"});
  graph.RemoveNode(h->producer());
  Verify(model);

  // The If goes, and with it every use inside.
  Node* identity = graph.AddNode({.op = "Identity", .inputs = {x}, .outputs = {"z"}});
  Value* y = graph.FindValue("y");
  Node* branch = y->producer();
  graph.MoveOutput(y, identity, 0);
  graph.RemoveNode(branch);
  CHECK(abs->output(0)->uses().empty());
  CHECK(x->uses().size() == 2);
  Verify(model);
}

TEST_CASE("replacing or removing a subgraph attribute forgets its uses") {
  Model model = ModelFromText(kNested);
  Node* branch = model.graph().FindValue("y")->producer();
  Value* h = model.graph().FindValue("h");
  branch->RemoveAttribute("else_branch");
  CHECK(h->uses().size() == 1);

  auto body = std::make_unique<Graph>();
  Node* node = body->AddNode({.op = "Neg", .inputs = {h}, .outputs = {"inner"}});
  body->AddGraphOutput(node->output(0));
  branch->SetAttribute("else_branch", std::move(body));
  CHECK(node->graph()->parent() == branch);
  CHECK(node->graph()->model() == &model);
  CHECK(h->uses().size() == 2);
  CHECK(model.graph().FreshName("inner") == "inner_1");
  branch->SetAttribute("then_branch", int64_t{0});
  CHECK(h->has_single_use());
  Verify(model);
}

TEST_CASE("an inner name hides an outer one") {
  Model model = ModelFromText(R"(
    main (float[4] x, bool c) => (float[4] y) <float[4] W = {1,1,1,1}> {
      y = If(c) <then_branch = t () => (float[4] t1) <float[4] W = {2,2,2,2}> { t1 = Add(x, W) },
                 else_branch = e () => (float[4] e1) { e1 = Add(x, W) }>
    })");
  Value* outer = model.graph().FindValue("W");
  REQUIRE(outer->has_single_use());
  CHECK(outer->uses()[0].node->output(0)->name() == "e1");
  std::vector<float> inner;
  ForEachGraph(model, [&](const Graph& graph) {
    if (graph.name() == "t") inner = graph.FindValue("W")->constant()->ToFloats();
  });
  CHECK(inner == std::vector<float>(4, 2));
}

TEST_CASE("topological order is stable with respect to the file's") {
  Model model = ModelFromText(R"(
    g (float[4] x) => (float[4] e) {
      e = Add(d, b)
      b = Neg(a)
      d = Neg(c)
      a = Abs(x)
      c = Abs(x)
    })");
  CHECK(Names(model.graph().Nodes()) == std::vector<std::string>{"e", "b", "d", "a", "c"});
  CHECK(Names(model.graph().TopologicalOrder()) ==
        std::vector<std::string>{"a", "b", "c", "d", "e"});
}

TEST_CASE("a cycle is named by a node on it") {
  Fixture f;
  f.graph.SetInput(f.matmul, 0, f.neg->output(0));  // h → y2 → h; y hangs off the cycle
  const std::string line = ErrorOf(ErrorCode::kModel, [&] { Verify(f.model); });
  const bool on_cycle =
      line.find("\"mm\"") != std::string::npos || line.find("\"y2\"") != std::string::npos;
  CHECK(on_cycle);
  CHECK(line.find("depends on its own output") != std::string::npos);
}

TEST_CASE("a cycle through a subgraph is one") {
  Model model = ModelFromText(kNested);
  Graph& graph = model.graph();
  graph.SetInput(graph.FindValue("h")->producer(), 0, graph.FindValue("y"));
  ErrorOf(ErrorCode::kModel, [&] { graph.TopologicalOrder(); });
}

TEST_CASE("attributes by kind") {
  Fixture f;
  Node* node = f.relu;
  CHECK(node->GetInt("axis", -1) == -1);
  node->SetAttribute("axis", int64_t{2});
  node->SetAttribute("alpha", 0.5f);
  node->SetAttribute("mode", std::string("linear"));
  node->SetAttribute("perm", std::vector<int64_t>{1, 0});
  CHECK(node->GetInt("axis", -1) == 2);
  CHECK(node->GetFloat("alpha", 0) == 0.5f);
  CHECK(node->GetString("mode", "") == "linear");
  CHECK(node->GetInts("perm", {}) == std::vector<int64_t>{1, 0});
  CHECK(node->GetString("absent", "x") == "x");
  node->SetAttribute("axis", int64_t{3});
  CHECK(node->GetInt("axis", -1) == 3);
  CHECK(node->attributes().size() == 4);
  const std::string line = ErrorOf(ErrorCode::kModel, [&] { node->GetInts("axis", {}); });
  CHECK(line == "node \"y\" (Relu): attribute \"axis\" is an integer, expected integers");
  node->RemoveAttribute("axis");
  node->RemoveAttribute("never there");
  CHECK(node->attribute("axis") == nullptr);
}

TEST_CASE("every form of Constant is known before running") {
  Model model;
  model.opset_imports[""] = 18;
  const auto constant = [&](const char* name, Attribute::Data data) {
    std::vector<std::pair<std::string, Attribute::Data>> attributes;
    attributes.emplace_back(name, std::move(data));
    return model.graph()
        .AddNode({.op = "Constant",
                  .outputs = {model.graph().FreshName("c")},
                  .attributes = std::move(attributes)})
        ->output(0);
  };
  CHECK(constant("value", Tensor::Of<float>({2}, {1, 2}))->constant()->dims() == Dims{2});
  CHECK(constant("value_float", 1.5f)->constant()->ToFloats() == std::vector<float>{1.5f});
  CHECK(constant("value_float", 1.5f)->constant()->dims().empty());
  CHECK(constant("value_int", int64_t{3})->constant()->ToInts() == std::vector<int64_t>{3});
  CHECK(constant("value_ints", std::vector<int64_t>{3, 4})->constant()->dims() == Dims{2});
  CHECK(constant("value_floats", std::vector<float>{})->constant()->dims() == Dims{0});
  CHECK(constant("value_string", std::string("s"))->constant()->strings()[0] == "s");
  CHECK(constant("value_strings", std::vector<std::string>{"a", "b"})->constant()->size() == 2);

  Value* changed = constant("value_int", int64_t{3});
  changed->producer()->SetAttribute("value_int", int64_t{4});
  CHECK(changed->constant()->ToInts() == std::vector<int64_t>{4});
  changed->producer()->set_op("Custom", "my.domain");
  CHECK(changed->constant() == nullptr);
  CHECK(changed->producer()->Describe().find("(my.domain.Custom)") != std::string::npos);
  changed->producer()->set_op("Constant");
  CHECK(changed->constant() != nullptr);

  // The value moves to a node that is no Constant.
  Node* add = model.graph().AddNode({.op = "Add", .outputs = {"sum"}});
  Node* old = changed->producer();
  model.graph().MoveOutput(changed, add, 0);
  CHECK(changed->constant() == nullptr);
  model.graph().RemoveNode(old);
  CHECK(model.WeightBytes() == 8 + 4 + 4 + 8 + 16 + 1 + 2);
}

TEST_CASE("an initializer that is also an input: a constant before IR version 4 only") {
  onnx::ModelProto proto = test::SmallProto();
  test::SetType(*proto.mutable_graph()->add_input(), "W");
  for (const auto& [version, is_constant] : {std::pair{3, true}, {4, false}, {8, false}}) {
    proto.set_ir_version(version);
    Model model = test::Load(proto);
    Value* w = model.graph().FindValue("W");
    CHECK(w->is_graph_input());
    CHECK(w->initializer() != nullptr);
    CHECK((w->constant() != nullptr) == is_constant);
    Model moved = std::move(model);
    CHECK((moved.Clone().graph().FindValue("W")->constant() != nullptr) == is_constant);

    moved.graph().RemoveGraphInput(w);
    CHECK(w->constant() != nullptr);
    CHECK(moved.graph().inputs().size() == 1);
    Verify(moved);
    onnx::ModelProto written;
    REQUIRE(written.ParseFromString(SerializeModel(moved)));
    CHECK(written.graph().input_size() == 1);
    CHECK(written.graph().initializer_size() == 1);
  }
}

TEST_CASE("without its default an input stays an input") {
  onnx::ModelProto proto = test::SmallProto();
  test::SetType(*proto.mutable_graph()->add_input(), "W");
  Model model = test::Load(proto);
  Value* w = model.graph().FindValue("W");
  model.graph().RemoveInitializer(w);  // used, but only the default goes
  CHECK(w->is_graph_input());
  CHECK(w->initializer() == nullptr);
  CHECK(w->uses().size() == 1);
  Verify(model);
  CHECK_THROWS_AS(model.graph().RemoveGraphInput(w), InternalError);
}

TEST_CASE("outputs and inputs that nothing needs can be taken away") {
  Model model = ModelFromText(R"(<ir_version: 8, opset_import: ["" : 13]>
    g (float[2] x, float[2] z) => (float[2] y, float[2] w) { y = Relu(x) w = Neg(z) })");
  Graph& graph = model.graph();
  Value* w = graph.FindValue("w");
  CHECK_THROWS_AS(graph.RemoveGraphInput(graph.FindValue("z")), InternalError);
  graph.RemoveGraphOutput(w);
  CHECK(!w->is_graph_output());
  graph.RemoveNode(w->producer());
  graph.RemoveGraphInput(graph.FindValue("z"));
  CHECK(!graph.FindValue("z"));
  Verify(model);
  onnx::ModelProto written;
  REQUIRE(written.ParseFromString(SerializeModel(model)));
  REQUIRE(written.graph().input_size() == 1);
  CHECK(written.graph().input(0).name() == "x");
  REQUIRE(written.graph().output_size() == 1);
  CHECK(written.graph().output(0).name() == "y");
}

TEST_CASE("a clone shares bytes and nothing else") {
  Model model = ModelFromText(kNested);
  model.graph().AddInitializer("W", Tensor::Of<float>({4}, {1, 2, 3, 4}));
  const std::string before = ToText(model);
  Model copy = model.Clone();
  Verify(copy);
  CHECK(ToText(copy) == before);
  CHECK(SerializeModel(copy) == SerializeModel(model));
  CHECK(copy.graph().FindValue("W")->initializer()->SharesBytesWith(
      *model.graph().FindValue("W")->initializer()));
  CHECK(copy.graph().FindValue("h") != model.graph().FindValue("h"));
  CHECK(copy.graph().FindValue("h")->uses().size() == 2);
  ForEachGraph(copy, [&](const Graph& graph) {
    CHECK(graph.model() == &copy);
    for (const Node* node : graph.Nodes()) CHECK(node->graph() == &graph);
  });

  copy.graph().FindValue("W")->set_initializer(Tensor::Scalar(1.0f));
  copy.graph().AddNode({.op = "Abs", .inputs = {copy.graph().FindValue("x")}, .outputs = {"k"}});
  CHECK(ToText(model) == before);
  CHECK(copy.graph().FreshName("h") == model.graph().FreshName("h"));
}

TEST_CASE("a moved model still finds itself") {
  Model model = ModelFromText(kNested);
  model.AddFunction("d", "F", {"a"}, {}, {{"", 18}});
  Model moved = std::move(model);
  ForEachGraph(moved, [&](Graph& graph) { CHECK(graph.model() == &moved); });
  model = std::move(moved);
  CHECK(model.graph().FreshName("x") == "x_1");
}

TEST_CASE("functions are built like graphs") {
  Fixture f;
  Function* function =
      f.model.AddFunction("sparsefuse", "Scale", {"X", "s"}, {"factor"}, {{"", 18}});
  Graph& body = *function->body;
  Node* constant = body.AddNode({.op = "Constant", .outputs = {"k"}});
  constant->SetAttribute("value_float", AttributeRef{"factor", 1});
  Node* mul = body.AddNode(
      {.op = "Mul", .inputs = {body.inputs()[0], constant->output(0)}, .outputs = {"Y"}});
  body.AddGraphOutput(mul->output(0));
  CHECK(constant->output(0)->constant() == nullptr);  // known only where the function is called
  f.model.opset_imports["sparsefuse"] = 1;
  Node* call = f.graph.AddNode(
      {.op = "Scale", .domain = "sparsefuse", .inputs = {f.x, f.w}, .outputs = {"scaled"}});
  call->SetAttribute("factor", 2.0f);
  f.graph.AddGraphOutput(call->output(0));
  Verify(f.model);
  CHECK(f.model.FindFunction("sparsefuse", "Scale") == function);
  CHECK(f.model.FindFunction("", "Scale") == nullptr);
  CHECK_THROWS_AS(f.model.AddFunction("sparsefuse", "Scale", {}, {}, {}), InternalError);

  onnx::ModelProto proto;
  REQUIRE(proto.ParseFromString(SerializeModel(f.model)));
  REQUIRE(proto.functions_size() == 1);
  const onnx::FunctionProto& written = proto.functions(0);
  CHECK(written.domain() == "sparsefuse");
  CHECK(written.name() == "Scale");
  CHECK(written.input_size() == 2);
  CHECK(written.output(0) == "Y");
  CHECK(written.attribute(0) == "factor");
  CHECK(written.opset_import(0).version() == 18);
  CHECK(written.node(0).attribute(0).ref_attr_name() == "factor");
  CHECK(written.node(0).attribute(0).type() == onnx::AttributeProto::FLOAT);
  const Model again = ReadModelFromBytes(test::AsBytes(SerializeModel(f.model)));
  CHECK(SerializeModel(again) == SerializeModel(f.model));
}

TEST_CASE("a type set by a pass is written wherever the value is declared") {
  Fixture f;
  Value* h = f.matmul->output(0);
  h->set_type(kVector);
  f.relu->output(0)->set_type(kVector);
  onnx::ModelProto proto;
  REQUIRE(proto.ParseFromString(SerializeModel(f.model)));
  REQUIRE(proto.graph().value_info_size() == 1);
  CHECK(proto.graph().value_info(0).name() == "h");
  CHECK(proto.graph().value_info(0).type().tensor_type().shape().dim(1).dim_value() == 4);
  CHECK(proto.graph().output(0).type().tensor_type().elem_type() == 1);
  CHECK_FALSE(proto.graph().output(1).has_type());

  h->set_type(ValueType{.dtype = DType::kFloat16});
  f.relu->output(0)->set_type(std::nullopt);
  REQUIRE(proto.ParseFromString(SerializeModel(f.model)));
  REQUIRE(proto.graph().value_info_size() == 1);
  CHECK(proto.graph().value_info(0).type().tensor_type().elem_type() == 10);
  CHECK_FALSE(proto.graph().value_info(0).type().tensor_type().has_shape());
  CHECK_FALSE(proto.graph().output(0).has_type());
  h->set_type(std::nullopt);
  REQUIRE(proto.ParseFromString(SerializeModel(f.model)));
  CHECK(proto.graph().value_info_size() == 0);
}

TEST_CASE("deleted values take their annotations with them") {
  Fixture f;
  f.matmul->output(0)->set_type(kVector);
  f.graph.ReplaceUses(f.matmul->output(0), f.x);
  f.graph.RemoveNode(f.matmul);
  f.graph.AddNode(
      {.op = "Abs", .inputs = {f.x}, .outputs = {"h"}});  // the name again, without type
  onnx::ModelProto proto;
  REQUIRE(proto.ParseFromString(SerializeModel(f.model)));
  CHECK(proto.graph().value_info_size() == 0);
  Verify(f.model);
}

TEST_CASE("WeightBytes counts shared storage once") {
  Fixture f;
  CHECK(f.model.WeightBytes() == 64);
  f.graph.AddInitializer("tied", f.w->initializer()->Reshaped({16}));
  CHECK(f.model.WeightBytes() == 64);
  f.graph.AddInitializer("other", Tensor::Scalar<int64_t>(1));
  CHECK(f.model.WeightBytes() == 72);
}

}  // namespace sparsefuse
