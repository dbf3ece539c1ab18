// write(read(m)) = m, field by field.

#include <filesystem>
#include <fstream>
#include <set>

#include "onnx_io/writer.h"
#include "tests/support/support.h"
#include "tests/unit/onnx_io/protos.h"

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> AllModels() {
  std::set<fs::path> found;  // sorted
  if (const auto assets = test::Assets()) {
    for (const auto& entry : fs::recursive_directory_iterator(*assets)) {
      if (entry.path().extension() == ".onnx") found.insert(entry.path());
    }
  }
  return {found.begin(), found.end()};
}

// Where a tensor's bytes lie may differ: external data becomes raw data. Tensors that went through
// a data file also lose the typed fields; the types that occur so in the assets are converted here.
enum class Typed { kKeep, kToRaw };

template <typename Values>
void MoveToRaw(Values* values, onnx::TensorProto& tensor) {
  if (values->empty()) return;
  tensor.set_raw_data(values->data(),
                      static_cast<size_t>(values->size()) * sizeof(*values->data()));
  values->Clear();
}

void Unify(onnx::TensorProto& tensor, const fs::path& directory, Typed typed) {
  if (typed == Typed::kToRaw) {
    MoveToRaw(tensor.mutable_float_data(), tensor);
    MoveToRaw(tensor.mutable_int64_data(), tensor);
    if (tensor.data_type() == onnx::TensorProto::INT32) {
      MoveToRaw(tensor.mutable_int32_data(), tensor);
    }
  }
  if (tensor.data_location() != onnx::TensorProto::EXTERNAL) return;
  std::string location;
  size_t offset = 0, length = std::string::npos;
  for (const auto& entry : tensor.external_data()) {
    if (entry.key() == "location") location = entry.value();
    if (entry.key() == "offset") offset = std::stoull(entry.value());
    if (entry.key() == "length") length = std::stoull(entry.value());
  }
  tensor.set_raw_data(test::ReadFile(directory / location).substr(offset, length));
  tensor.clear_external_data();
  tensor.clear_data_location();
}

void Unify(onnx::GraphProto& graph, const fs::path& directory, Typed typed) {
  for (auto& tensor : *graph.mutable_initializer()) Unify(tensor, directory, typed);
  for (auto& node : *graph.mutable_node()) {
    for (auto& attribute : *node.mutable_attribute()) {
      if (attribute.has_t()) Unify(*attribute.mutable_t(), directory, typed);
      if (attribute.has_g()) Unify(*attribute.mutable_g(), directory, typed);
    }
  }
}

std::string Canonical(const fs::path& path, Typed typed) {
  onnx::ModelProto proto;
  std::ifstream in(path, std::ios::binary);
  REQUIRE(proto.ParseFromIstream(&in));
  Unify(*proto.mutable_graph(), path.parent_path(), typed);
  return proto.SerializeAsString();
}

std::string RoundTrip(const onnx::ModelProto& proto) { return SerializeModel(test::Load(proto)); }

}  // namespace

TEST_CASE("every asset comes back field by field") {
  test::TempDir dir;
  int models = 0;
  for (const fs::path& path : AllModels()) {
    if (path.filename() == "test_evil_weights.onnx") continue;  // see "every asset that …"
    INFO(path);
    ++models;
    const Model model = ReadModel(path);
    const fs::path out = dir / "out.onnx";
    WriteModel(model, out, ExternalData::kNever);
    CHECK((Canonical(out, Typed::kKeep) == Canonical(path, Typed::kKeep)));
    const std::string inline_bytes = test::ReadFile(out);
    CHECK((inline_bytes == SerializeModel(model.Clone())));
    CHECK((inline_bytes == SerializeModel(ReadModel(out))));

    WriteModel(model.Clone(), out, ExternalData::kAlways);
    CHECK((Canonical(out, Typed::kToRaw) == Canonical(path, Typed::kToRaw)));
    CHECK(ReadModel(out).WeightBytes() == model.WeightBytes());
  }
  if (models == 0) WARN("SKIPPED: no assets");
}

TEST_CASE("an asset that reaches for memory is refused") {
  const auto assets = test::Assets();
  if (!assets) return;
  const std::string line = test::ErrorOf(
      ErrorCode::kPath, [&] { ReadModel(*assets / "zoo" / "odd" / "test_evil_weights.onnx"); });
  CHECK(line.find("initializer \"evil_weights\"") != std::string::npos);
  CHECK(line.find("is a memory address") != std::string::npos);
}

TEST_CASE("fields that the tool does not know or touch come back") {
  onnx::ModelProto proto = test::SmallProto();
  proto.set_doc_string("doc");
  proto.set_domain("org.example");
  proto.set_model_version(-7);
  proto.set_producer_name("");  // present, but empty
  for (const char* key : {"b", "a", "b"}) {
    auto& entry = *proto.add_metadata_props();
    entry.set_key(key);
    entry.set_value("v");
  }
  proto.add_configuration()->set_name("two devices");
  onnx::GraphProto& graph = *proto.mutable_graph();
  graph.set_doc_string("graph doc");
  graph.add_metadata_props()->set_key("k");
  auto& annotation = *graph.add_quantization_annotation();
  annotation.set_tensor_name("W");
  annotation.add_quant_parameter_tensor_names()->set_key("SCALE_TENSOR");
  onnx::NodeProto& node = *graph.mutable_node(0);
  node.set_doc_string("node doc");
  node.set_domain("");
  node.set_overload("");
  node.add_metadata_props()->set_key("k");
  node.add_device_configurations()->set_configuration_id("two devices");
  graph.mutable_initializer(0)->set_doc_string("weight doc");
  graph.mutable_initializer(0)->set_data_location(onnx::TensorProto::DEFAULT);
  graph.mutable_input(0)->set_doc_string("input doc");
  graph.mutable_input(0)->mutable_type()->set_denotation("IMAGE");
  // Annotations: twice, contradictory, and of names that do not exist.
  for (const char* name : {"y", "nowhere", "x", "y", "nowhere"}) {
    test::SetType(*graph.add_value_info(), name, {7});
  }
  onnx::TrainingInfoProto& training = *proto.add_training_info();
  *training.mutable_algorithm() = graph;
  // Unknown fields: number 900, and one inside a node and a tensor.
  const std::string unknown =
      "\xa2\x38\x03"
      "abc";
  proto.mutable_unknown_fields()->append(unknown);
  node.mutable_unknown_fields()->append(unknown);
  graph.mutable_initializer(0)->mutable_unknown_fields()->append(unknown);
  graph.mutable_output(0)->mutable_unknown_fields()->append(unknown);
  CHECK((RoundTrip(proto) == proto.SerializeAsString()));
}

TEST_CASE("the default domain comes back in either spelling") {
  onnx::ModelProto proto = test::SmallProto();
  proto.mutable_opset_import(0)->set_domain("ai.onnx");
  proto.mutable_graph()->mutable_node(0)->set_domain("ai.onnx");
  auto& again = *proto.add_opset_import();
  again.set_version(17);  // no domain at all: the same one
  auto& other = *proto.add_opset_import();
  other.set_domain("com.microsoft");
  other.set_version(1);
  CHECK((RoundTrip(proto) == proto.SerializeAsString()));

  Model model = test::Load(proto);
  CHECK(model.opset() == 17);
  CHECK(model.graph().Nodes()[0]->Is("Add"));
  model.opset_imports[""] = 18;
  model.opset_imports["sparsefuse"] = 1;
  model.opset_imports.erase("com.microsoft");
  onnx::ModelProto written;
  REQUIRE(written.ParseFromString(SerializeModel(model)));
  REQUIRE(written.opset_import_size() == 3);
  CHECK(written.opset_import(0).domain() == "ai.onnx");
  CHECK(written.opset_import(0).version() == 18);
  CHECK(written.opset_import(1).version() == 18);
  CHECK(written.opset_import(2).domain() == "sparsefuse");
}

TEST_CASE("attributes of every kind come back, absent zeros too") {
  using P = onnx::AttributeProto;
  onnx::ModelProto proto = test::SmallProto();
  onnx::NodeProto& node = *proto.mutable_graph()->mutable_node(0);
  node.set_domain("custom");
  const auto add = [&](const char* name, P::AttributeType type) -> P& {
    P& attribute = *node.add_attribute();
    attribute.set_name(name);
    attribute.set_type(type);
    return attribute;
  };
  add("f", P::FLOAT).set_f(-0.0f);
  add("f0", P::FLOAT);
  add("i", P::INT).set_i(0);
  add("i0", P::INT);
  add("s", P::STRING).set_s(std::string("a\0\xff", 3));
  add("s0", P::STRING);
  add("t", P::TENSOR).mutable_t()->CopyFrom(test::FloatTensor("named", {0}, {}));
  add("floats", P::FLOATS).add_floats(1);
  add("ints0", P::INTS);
  add("strings", P::STRINGS).add_strings("");
  auto& tensors = add("tensors", P::TENSORS);
  *tensors.add_tensors() = test::FloatTensor("", {1}, {1});
  *tensors.add_tensors() = test::FloatTensor("b", {1}, {2});
  tensors.mutable_tensors(1)->set_doc_string("second");
  onnx::GraphProto inner;
  inner.set_name("inner");
  test::AddNode(inner, "Neg", {"x"}, {"o"});
  inner.add_output()->set_name("o");
  *add("g", P::GRAPH).mutable_g() = inner;
  auto& graphs = add("graphs", P::GRAPHS);
  *graphs.add_graphs() = inner;
  *graphs.add_graphs() = inner;
  add("tp", P::TYPE_PROTO).mutable_tp()->mutable_tensor_type()->set_elem_type(1);
  add("tps", P::TYPE_PROTOS).add_type_protos()->mutable_sequence_type();
  auto& sparse = *add("sparse", P::SPARSE_TENSOR).mutable_sparse_tensor();
  sparse.add_dims(9);
  *sparse.mutable_values() = test::FloatTensor("", {1}, {5});
  sparse.mutable_indices()->set_data_type(onnx::TensorProto::INT64);
  sparse.mutable_indices()->add_dims(1);
  sparse.mutable_indices()->add_int64_data(8);
  add("documented", P::INT).set_doc_string("why");
  CHECK((RoundTrip(proto) == proto.SerializeAsString()));
  Model model = test::Load(proto);
  CHECK((SerializeModel(model.Clone()) == proto.SerializeAsString()));
  CHECK(model.graph().Nodes()[0]->GetString("s", "").size() == 3);
  CHECK(model.graph().Nodes()[0]->GetInt("i0", 5) == 0);
}

TEST_CASE("attributes without a type, as in IR version 1") {
  onnx::ModelProto proto = test::SmallProto();
  proto.set_ir_version(1);
  proto.clear_opset_import();
  onnx::AttributeProto& axis = *proto.mutable_graph()->mutable_node(0)->add_attribute();
  axis.set_name("axis");
  axis.set_i(3);
  const Model model = test::Load(proto);
  CHECK(model.graph().Nodes()[0]->GetInt("axis", 0) == 3);
  CHECK(model.opset() == 1);
  CHECK((SerializeModel(model) == proto.SerializeAsString()));
}

TEST_CASE("functions come back with everything") {
  onnx::ModelProto proto = test::SmallProto();
  auto& import = *proto.add_opset_import();
  import.set_domain("d");
  import.set_version(1);
  onnx::FunctionProto& function = *proto.add_functions();
  function.set_domain("d");
  function.set_name("F");
  function.set_overload("v2");
  function.set_doc_string("doc");
  function.add_input("a");
  function.add_output("b");
  function.add_output("b");
  function.add_attribute("alpha");
  auto& with_default = *function.add_attribute_proto();
  with_default.set_name("beta");
  with_default.set_type(onnx::AttributeProto::TENSOR);
  *with_default.mutable_t() = test::FloatTensor("", {1}, {1});
  auto& node = *function.add_node();
  node.set_op_type("LeakyRelu");
  node.add_input("a");
  node.add_output("b");
  auto& reference = *node.add_attribute();
  reference.set_name("alpha");
  reference.set_ref_attr_name("alpha");
  reference.set_type(onnx::AttributeProto::FLOAT);
  function.add_opset_import()->set_domain("");
  function.mutable_opset_import(0)->set_version(17);
  test::SetType(*function.add_value_info(), "a");
  function.add_metadata_props()->set_key("k");
  function.mutable_unknown_fields()->append("\xa2\x38\x01z");
  test::AddNode(*proto.mutable_graph(), "F", {"x"}, {"z", "z2"}).set_domain("d");
  proto.mutable_graph()->mutable_node(1)->set_overload("v2");
  CHECK((RoundTrip(proto) == proto.SerializeAsString()));
  const Model model = test::Load(proto);
  CHECK((SerializeModel(model.Clone()) == proto.SerializeAsString()));
  CHECK(model.functions()[0]->overload == "v2");
}

TEST_CASE("typed fields come back typed, whatever the element type") {
  struct Case {
    int type;
    std::vector<int64_t> dims;
    std::function<void(onnx::TensorProto&)> fill;
    size_t bytes;
  };
  const auto ints = [](std::vector<int> values) {
    return [values](onnx::TensorProto& t) {
      for (int v : values) t.add_int32_data(v);
    };
  };
  using T = onnx::TensorProto;
  const std::vector<Case> cases = {
      {T::FLOAT,
       {2},
       [](T& t) {
         t.add_float_data(1);
         t.add_float_data(-0.0f);
       },
       8},
      {T::DOUBLE, {1}, [](T& t) { t.add_double_data(0.1); }, 8},
      {T::COMPLEX64,
       {1},
       [](T& t) {
         t.add_float_data(1);
         t.add_float_data(2);
       },
       8},
      {T::COMPLEX128,
       {1},
       [](T& t) {
         t.add_double_data(1);
         t.add_double_data(2);
       },
       16},
      {T::INT64,
       {2},
       [](T& t) {
         t.add_int64_data(-1);
         t.add_int64_data(INT64_MIN);
       },
       16},
      {T::UINT64, {1}, [](T& t) { t.add_uint64_data(UINT64_MAX); }, 8},
      {T::UINT32, {1}, [](T& t) { t.add_uint64_data(UINT32_MAX); }, 4},
      {T::INT32, {2}, ints({INT32_MIN, INT32_MAX}), 8},
      {T::INT16, {2}, ints({-32768, 32767}), 4},
      {T::UINT16, {1}, ints({65535}), 2},
      {T::INT8, {2}, ints({-128, 127}), 2},
      {T::UINT8, {2}, ints({0, 255}), 2},
      {T::BOOL, {2}, ints({0, 1}), 2},
      {T::FLOAT16, {2}, ints({0xFC00, 0x3C00}), 4},
      {T::BFLOAT16, {1}, ints({0xFFFF}), 2},
      {T::FLOAT8E4M3FN, {2}, ints({0x80, 0xFF}), 2},
      {T::FLOAT8E8M0, {1}, ints({127}), 1},
      {T::INT4, {3}, ints({0xF8, 0x07}), 2},
      {T::UINT4, {4}, ints({0xF8, 0x07}), 2},
      {T::FLOAT4E2M1, {1}, ints({7}), 1},
      {T::UINT2, {5}, ints({0xFF, 1}), 2},
      {T::FLOAT, {0, 3}, [](T&) {}, 0},
  };
  for (const Case& c : cases) {
    INFO(DTypeName(static_cast<DType>(c.type)));
    onnx::ModelProto proto = test::SmallProto();
    T& tensor = *proto.mutable_graph()->add_initializer();
    tensor.set_name("typed");
    tensor.set_data_type(c.type);
    for (int64_t dim : c.dims) tensor.add_dims(dim);
    c.fill(tensor);
    const Model model = test::Load(proto);
    const Tensor& read = *model.graph().FindValue("typed")->initializer();
    CHECK(read.form == TensorForm::kTyped);
    CHECK(read.bytes().size() == c.bytes);
    CHECK((SerializeModel(model) == proto.SerializeAsString()));
  }
  onnx::ModelProto proto = test::SmallProto();
  T& tensor = *proto.mutable_graph()->add_initializer();
  tensor.set_name("raw and empty");
  tensor.set_data_type(T::FLOAT);
  tensor.add_dims(0);
  tensor.set_raw_data("");
  CHECK((RoundTrip(proto) == proto.SerializeAsString()));
  tensor.clear_raw_data();
  tensor.set_data_type(T::STRING);
  tensor.set_dims(0, 2);
  tensor.add_string_data("a");
  tensor.add_string_data("");
  CHECK((RoundTrip(proto) == proto.SerializeAsString()));
}

TEST_CASE("typed values that do not fit their type are refused") {
  const auto error = [](int type, int value) {
    return test::LoadError(ErrorCode::kTensor, [&](onnx::ModelProto& proto) {
      auto& tensor = *proto.mutable_graph()->add_initializer();
      tensor.set_name("bad");
      tensor.set_data_type(type);
      tensor.add_dims(1);
      tensor.add_int32_data(value);
    });
  };
  CHECK(error(onnx::TensorProto::INT8, 255) ==
        "initializer \"bad\": int32_data[0] = 255 is outside -128 … 127");
  error(onnx::TensorProto::UINT8, -1);
  error(onnx::TensorProto::FLOAT16, -1);
  error(onnx::TensorProto::BOOL, 2);
  error(onnx::TensorProto::INT4, 256);
  error(onnx::TensorProto::UINT16, 65536);
}

TEST_CASE("types that are no tensors stay as they were") {
  onnx::ModelProto proto = test::SmallProto();
  onnx::GraphProto& graph = *proto.mutable_graph();
  auto& sequence = *graph.add_input();
  sequence.set_name("s");
  sequence.mutable_type()->mutable_sequence_type()->mutable_elem_type()->mutable_tensor_type();
  auto& unknown = *graph.add_input();
  unknown.set_name("u");
  auto& tensor = *unknown.mutable_type()->mutable_tensor_type();
  tensor.set_elem_type(1);
  tensor.mutable_shape()->add_dim()->set_dim_value(-1);
  tensor.mutable_shape()->add_dim()->set_denotation("DATA_BATCH");
  CHECK((RoundTrip(proto) == proto.SerializeAsString()));
  const Model model = test::Load(proto);
  CHECK(model.graph().FindValue("s")->type()->dtype == DType::kUndefined);
  const ValueType& type = *model.graph().FindValue("u")->type();
  CHECK(std::get<std::string>(type.dims.at(0)).empty());
  CHECK(std::get<std::string>(type.dims.at(1)).empty());
}

TEST_CASE("a sparse initializer is a value without a tensor") {
  onnx::ModelProto proto = test::SmallProto();
  onnx::GraphProto& graph = *proto.mutable_graph();
  auto& sparse = *graph.add_sparse_initializer();
  *sparse.mutable_values() = test::FloatTensor("S", {2}, {1, 2});
  sparse.mutable_indices()->set_data_type(onnx::TensorProto::INT64);
  sparse.mutable_indices()->add_dims(2);
  sparse.mutable_indices()->add_dims(2);
  for (int64_t index : {0, 1, 1, 0}) sparse.mutable_indices()->add_int64_data(index);
  sparse.add_dims(2);
  sparse.add_dims(2);
  test::AddNode(graph, "Neg", {"S"}, {"n"});
  CHECK((RoundTrip(proto) == proto.SerializeAsString()));
  Model model = test::Load(proto);
  Value* value = model.graph().FindValue("S");
  CHECK(value->is_sparse_initializer());
  CHECK(value->constant() == nullptr);
  model.graph().RemoveNode(value->uses()[0].node);
  model.graph().RemoveInitializer(value);
  onnx::ModelProto written;
  REQUIRE(written.ParseFromString(SerializeModel(model)));
  CHECK(written.graph().sparse_initializer_size() == 0);
}

}  // namespace sparsefuse
