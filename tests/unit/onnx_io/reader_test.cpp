// Bad inputs: one clear line each, the documented code, nothing allocated or followed blindly.

#include "onnx_io/reader.h"

#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <random>

#include "onnx_io/wire.h"
#include "onnx_io/writer.h"
#include "tests/support/support.h"
#include "tests/unit/onnx_io/protos.h"

namespace sparsefuse {
namespace {

using test::AddNode;
using test::Contains;
using test::ErrorOf;
using test::LoadError;

std::string BytesError(ErrorCode code, const std::string& bytes) {
  return ErrorOf(code, [&] { ReadModelFromBytes(test::AsBytes(bytes)); });
}

std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}

// A length-delimited protobuf field.
std::string Field(uint64_t number, const std::string& payload) {
  return Varint(number << 3 | 2) + Varint(payload.size()) + payload;
}

// A model whose single node holds a subgraph that holds a node … `depth` times.
std::string Nested(int depth) {
  std::string node;
  for (int i = depth; i >= 0; --i) {
    const std::string name = "o" + std::to_string(i);
    std::string graph_output = Field(12, Field(1, name));
    std::string attribute;
    if (i < depth) attribute = Field(5, Field(1, "g") + node + "\xa0\x01\x05");
    const std::string body = Field(1, Field(2, name) + Field(4, "Op") + attribute) + graph_output;
    node = Field(6, body);
  }
  // `node` is now attribute field 6 (graph); the model's graph is field 7.
  return "\x08\x08" + Field(8, std::string("\x10\x11")) + "\x3a" + node.substr(1);
}

}  // namespace

TEST_CASE("files that are no models say what they are") {
  const auto is = [](const std::string& bytes, std::string_view what) {
    return Contains(BytesError(ErrorCode::kModel, bytes), what);
  };
  using namespace std::string_literals;
  CHECK(is("", "is empty"));
  CHECK(is("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
           "is a git-lfs pointer, not the file itself; run `git lfs pull`"));
  CHECK(is("<!DOCTYPE html>\n<html><body>404</body></html>", "is an HTML page"));
  CHECK(is("\n\n  <HTML>", "is an HTML page"));
  CHECK(is("<?xml version=\"1.0\"?><net/>", "is an XML file"));
  CHECK(is("{\"a\": 1}", "is a JSON file"));
  CHECK(is("Hello, this is no model.\n", "is a text file"));
  CHECK(is("Grüße aus einer Textdatei", "is a text file"));
  CHECK(is("\x1f\x8b\x08\x00 rest"s, "is gzip-compressed; unpack it first"));
  CHECK(is("\x28\xb5\x2f\xfd rest", "is zstd-compressed"));
  CHECK(is("PK\x03\x04 rest", "is a zip archive"));
  CHECK(is("\x80\x02}q\x00."s, "is a Python pickle"));
  CHECK(is("\x93NUMPY\x01", "is a NumPy array"));
  CHECK(is("\x89HDF\r\n", "is an HDF5 file"));
  CHECK(is("GGUF\x03", "is a GGUF file"));
  CHECK(is("\x1c\0\0\0TFL3"s, "is a TensorFlow Lite model"));
  CHECK(is("\x40\0\0\0\0\0\0\0{\"w\":{}}"s, "is a safetensors file"));
  CHECK(is(std::string(5000, '\0'), "begins with zeros only"));
  CHECK(is("\0"s, "begins with zeros only"));
}

TEST_CASE("damaged models say where") {
  const std::string good = test::SmallProto().SerializeAsString();
  const std::string half = BytesError(ErrorCode::kModel, good.substr(0, good.size() / 2));
  CHECK(Contains(half, "is damaged"));
  CHECK(Contains(half, "the file looks truncated"));
  CHECK(Contains(BytesError(ErrorCode::kModel, good.substr(0, good.size() - 1)), "truncated"));
  CHECK(Contains(BytesError(ErrorCode::kModel, good + "\xff\xff\xff\xff"), "is damaged"));
  CHECK(Contains(BytesError(ErrorCode::kModel, good + good), "\"graph\" appears twice"));
  CHECK(Contains(BytesError(ErrorCode::kModel, "\x3a\xff\xff\xff\xff\x07" + std::string(16, 'x')),
                 "a field of 2147483647 bytes has 16"));
  CHECK(Contains(BytesError(ErrorCode::kModel, "\x08" + std::string(11, '\xff') + "\x01"),
                 "more than ten bytes"));
  CHECK(Contains(BytesError(ErrorCode::kModel, std::string(100'000, '\x0b')), "protobuf group"));
  CHECK(Contains(BytesError(ErrorCode::kModel, good + "\x0f"), "impossible wire type"));
  CHECK(Contains(BytesError(ErrorCode::kModel, good + std::string("\x00\x00", 2)),
                 "impossible field number"));
  CHECK(Contains(BytesError(ErrorCode::kModel, "\x38\x01"), "it has no graph"));  // wire type
  // Inside the graph: the initializer claims more than the graph has.
  const std::string inner = "\x08\x08" + Field(7, Field(2, "g") + "\x2a\x7f\x08");
  CHECK(Contains(BytesError(ErrorCode::kModel, inner), "in model.graph"));
  std::mt19937 random(1);
  for (int i = 0; i < 100; ++i) {
    std::string bytes(4096, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    BytesError(ErrorCode::kModel, bytes);
  }
}

TEST_CASE("what the header must have") {
  CHECK(Contains(LoadError(ErrorCode::kModel, [](auto& m) { m.clear_graph(); }), "no graph"));
  CHECK(Contains(LoadError(ErrorCode::kModel, [](auto& m) { m.clear_ir_version(); }),
                 "no ir_version"));
  CHECK(LoadError(ErrorCode::kUnsupported, [](auto& m) { m.set_ir_version(999); }) ==
        "has IR version 999, the newest known one is 14");
  CHECK(Contains(LoadError(ErrorCode::kModel, [](auto& m) { m.clear_opset_import(); }),
                 "imports no operator set"));
  LoadError(ErrorCode::kUnsupported, [](auto& m) { m.mutable_opset_import(0)->set_version(9999); });
  LoadError(ErrorCode::kModel, [](auto& m) { m.mutable_opset_import(0)->set_version(-1); });
  CHECK(Contains(LoadError(ErrorCode::kModel,
                           [](auto& m) {
                             m.add_opset_import()->set_domain("ai.onnx");
                             m.mutable_opset_import(1)->set_version(13);
                           }),
                 "is imported in versions 17 and 13"));
  CHECK(Contains(LoadError(ErrorCode::kModel, [](auto& m) { m.mutable_graph()->clear_output(); }),
                 "no outputs"));
}

TEST_CASE("inconsistent graphs name the node") {
  const auto graph_error = [](const std::function<void(onnx::GraphProto&)>& change) {
    return LoadError(ErrorCode::kModel, [&](auto& model) { change(*model.mutable_graph()); });
  };
  CHECK(graph_error([](auto& g) { g.clear_initializer(); }) ==
        "node \"add\" (Add): input 1 \"W\" is defined nowhere");
  CHECK(graph_error([](auto& g) { AddNode(g, "Neg", {"x"}, {"y"}).set_name("dup"); }) ==
        "node \"dup\" (Neg): output \"y\" is already defined in the graph");
  CHECK(graph_error([](auto& g) { AddNode(g, "Neg", {"x"}, {"W"}); }) ==
        "node \"\" (Neg): output \"W\" is already defined in the graph");
  CHECK(graph_error([](auto& g) {
          AddNode(g, "Neg", {"x"}, {"a", "a"});
        }) == "node \"a\" (Neg): output \"a\" is already defined in the graph");
  CHECK(graph_error([](auto& g) {
          AddNode(g, "Neg", {"b"}, {"a"});
          AddNode(g, "Neg", {"a"}, {"b"});
        }).find("depends on its own output") != std::string::npos);
  CHECK(Contains(graph_error([](auto& g) { AddNode(g, "Neg", {"a"}, {"a"}); }),
                 "node \"a\" (Neg): depends on its own output"));
  CHECK(graph_error([](auto& g) { *g.add_initializer() = g.initializer(0); }) ==
        "initializer \"W\": appears twice");
  CHECK(graph_error([](auto& g) { g.mutable_initializer(0)->clear_name(); }) ==
        "an initializer has no name");
  CHECK(graph_error([](auto& g) { *g.add_input() = g.input(0); }) ==
        "input \"x\": appears twice among the inputs");
  CHECK(graph_error([](auto& g) { g.add_output()->set_name("nobody"); }) ==
        "graph output \"nobody\": is defined nowhere");
  CHECK(graph_error([](auto& g) { g.clear_node(); }) == "graph output \"y\": is defined nowhere");
  CHECK(graph_error([](auto& g) { g.mutable_node(0)->clear_op_type(); }) ==
        "node \"add\" (): has no operator type");
  CHECK(Contains(graph_error([](auto& g) { AddNode(g, "Neg", {"x"}, {""}); }), "has no output"));
  CHECK(Contains(graph_error([](auto& g) {
                   auto& a = *g.mutable_node(0)->add_attribute();
                   a.set_name("k");
                   a.set_type(onnx::AttributeProto::INT);
                   a.set_ref_attr_name("outer");
                 }),
                 "attribute \"k\" refers to a function's attribute"));
  CHECK(Contains(graph_error([](auto& g) {
                   for (int i = 0; i < 2; ++i) g.mutable_node(0)->add_attribute()->set_name("k");
                 }),
                 "attribute \"k\" appears twice"));
  CHECK(Contains(graph_error([](auto& g) {
                   auto& a = *g.mutable_node(0)->add_attribute();
                   a.set_name("k");
                   a.set_type(onnx::AttributeProto::INT);
                   *a.mutable_t() = g.initializer(0);
                 }),
                 "holds values of several kinds"));
  // A branch may not pass an outer value through, and may not use what is defined nowhere.
  const auto with_branch = [&](const char* input, const char* output) {
    return graph_error([&](auto& g) {
      auto& a = *AddNode(g, "If", {"x"}, {"z"}).add_attribute();
      a.set_name("then_branch");
      a.set_type(onnx::AttributeProto::GRAPH);
      AddNode(*a.mutable_g(), "Neg", {input}, {"n"});
      a.mutable_g()->add_output()->set_name(output);
    });
  };
  CHECK(Contains(with_branch("x", "x"), "is a value of an outer graph"));
  CHECK(Contains(with_branch("nothing", "n"), "input 0 \"nothing\" is defined nowhere"));
}

TEST_CASE("names that would break tools or terminals") {
  const auto rename = [](const std::string& name) {
    return [name](onnx::ModelProto& m) {
      m.mutable_graph()->mutable_node(0)->set_output(0, name);
      m.mutable_graph()->mutable_output(0)->set_name(name);
    };
  };
  CHECK(Contains(LoadError(ErrorCode::kModel, rename("\xff\xfe\xc0\x80")), "no valid text"));
  LoadError(ErrorCode::kModel, rename(std::string("a\0b", 3)));
  const std::string line = LoadError(ErrorCode::kLimit, rename(std::string(1 << 20, 'n')));
  CHECK(line.size() < 400);
  for (const char* fine : {"\x1b[2J", "../x", "a\nb", "\"quoted\"", "größe"}) {
    onnx::ModelProto proto = test::SmallProto();
    rename(fine)(proto);
    CHECK(test::Load(proto).graph().outputs()[0]->name() == fine);
  }
}

TEST_CASE("tensors whose bytes do not fit") {
  const auto tensor_error = [](ErrorCode code, const std::function<void(onnx::TensorProto&)>& f) {
    return LoadError(code, [&](auto& m) { f(*m.mutable_graph()->mutable_initializer(0)); });
  };
  const auto bad = [&](const std::function<void(onnx::TensorProto&)>& f) {
    return tensor_error(ErrorCode::kTensor, f);
  };
  CHECK(bad([](auto& t) { t.mutable_raw_data()->resize(12); }) ==
        "initializer \"W\": raw_data has 12 bytes, dims [4] of float need 16; the file looks "
        "truncated");
  CHECK(bad([](auto& t) { t.mutable_raw_data()->resize(80); }) ==
        "initializer \"W\": raw_data has 80 bytes, dims [4] of float need 16");
  CHECK(Contains(bad([](auto& t) { t.set_dims(0, -4); }), "negative or too large"));
  const auto dims = [](std::vector<int64_t> values) {
    return [values](onnx::TensorProto& t) {
      t.clear_dims();
      for (int64_t v : values) t.add_dims(v);
    };
  };
  bad(dims({int64_t{1} << 32, int64_t{1} << 32}));
  bad(dims({int64_t{1} << 61, 4}));
  bad(dims({int64_t{1} << 62}));
  bad(dims({int64_t{1} << 40}));
  bad(dims({0, 4}));
  bad(dims({}));
  CHECK(Contains(bad([](auto& t) { t.clear_data_type(); }), "has no element type"));
  CHECK(Contains(tensor_error(ErrorCode::kUnsupported, [](auto& t) { t.set_data_type(999); }),
                 "unknown element type 999"));
  tensor_error(ErrorCode::kUnsupported, [](auto& t) { t.set_data_type(-1); });
  CHECK(Contains(bad([](auto& t) { t.add_float_data(1); }), "holds its elements twice"));
  CHECK(Contains(bad([](auto& t) { t.set_data_type(onnx::TensorProto::STRING); }),
                 "strings must be in string_data"));
  CHECK(Contains(bad([](auto& t) {
                   t.clear_raw_data();
                   for (int i = 0; i < 3; ++i) t.add_float_data(1);
                 }),
                 "float_data has 12 bytes"));
  CHECK(Contains(bad([](auto& t) {
                   t.clear_raw_data();
                   for (int i = 0; i < 4; ++i) t.add_int32_data(1);
                 }),
                 "int32_data holds the elements of a float tensor"));
  CHECK(Contains(tensor_error(ErrorCode::kLimit,
                              [](auto& t) {
                                t.clear_dims();
                                for (int i = 0; i < 65; ++i) t.add_dims(1);
                              }),
                 "has rank 65, the limit is 64"));
  CHECK(Contains(tensor_error(ErrorCode::kUnsupported, [](auto& t) { t.mutable_segment(); }),
                 "segment"));
  CHECK(Contains(bad([](auto& t) {
                   t.set_data_type(onnx::TensorProto::INT4);
                   t.set_dims(0, 7);
                   t.set_raw_data("ab");
                 }),
                 "dims [7] of int4 need 4"));
  // The same check wherever a tensor stands.
  CHECK(Contains(
      LoadError(ErrorCode::kTensor,
                [](auto& m) {
                  auto& a = *AddNode(*m.mutable_graph(), "Constant", {}, {"k"}).add_attribute();
                  a.set_name("value");
                  a.set_type(onnx::AttributeProto::TENSOR);
                  *a.mutable_t() = test::FloatTensor("", {4}, {1});
                }),
      "node \"k\" (Constant): attribute \"value\": raw_data has 4 bytes"));
  LoadError(ErrorCode::kTensor, [](auto& m) {
    *m.add_training_info()->mutable_algorithm()->add_initializer() =
        test::FloatTensor("t", {4}, {1});
  });
  CHECK(Contains(LoadError(ErrorCode::kUnsupported,
                           [](auto& m) {
                             m.mutable_graph()
                                 ->mutable_input(0)
                                 ->mutable_type()
                                 ->mutable_tensor_type()
                                 ->set_elem_type(77);
                           }),
                 "input \"x\": has the unknown element type 77"));
}

TEST_CASE("sparse tensors must lie inside their dense shape") {
  const auto sparse_error = [](ErrorCode code,
                               const std::function<void(onnx::SparseTensorProto&)>& change) {
    return LoadError(code, [&](auto& m) {
      auto& sparse = *m.mutable_graph()->add_sparse_initializer();
      *sparse.mutable_values() = test::FloatTensor("S", {2}, {1, 2});
      sparse.mutable_indices()->set_data_type(onnx::TensorProto::INT64);
      sparse.mutable_indices()->add_dims(2);
      sparse.mutable_indices()->add_int64_data(0);
      sparse.mutable_indices()->add_int64_data(3);
      sparse.add_dims(4);
      change(sparse);
    });
  };
  const auto bad = [&](const std::function<void(onnx::SparseTensorProto&)>& change) {
    return sparse_error(ErrorCode::kTensor, change);
  };
  CHECK(bad([](auto& s) { s.mutable_indices()->set_int64_data(1, 4); }) ==
        "sparse initializer \"S\": index 1 lies outside [4]");
  bad([](auto& s) { s.mutable_indices()->set_int64_data(0, -5); });
  CHECK(Contains(bad([](auto& s) { s.mutable_indices()->set_int64_data(0, 3); }),
                 "not in ascending order"));
  bad([](auto& s) { s.set_dims(0, -4); });
  bad([](auto& s) {
    s.clear_dims();
    for (int i = 0; i < 3; ++i) s.add_dims(int64_t{1} << 32);
  });
  CHECK(Contains(bad([](auto& s) {
                   s.mutable_indices()->set_dims(0, 3);
                   s.mutable_indices()->add_int64_data(3);
                 }),
                 "indices are int64[3], expected int64[2] or int64[2,1]"));
  bad([](auto& s) { s.mutable_indices()->set_dims(0, 3); });
  sparse_error(ErrorCode::kLimit, [](auto& s) { s.set_dims(0, int64_t{1} << 40); });
  // Two columns: 1,1 comes after 0,1; 1,2 is outside [2,2].
  const auto matrix = [](std::vector<int64_t> indices) {
    return [indices](onnx::SparseTensorProto& s) {
      s.set_dims(0, 2);
      s.add_dims(2);
      s.mutable_indices()->add_dims(2);
      s.mutable_indices()->clear_int64_data();
      for (int64_t i : indices) s.mutable_indices()->add_int64_data(i);
    };
  };
  bad(matrix({0, 1, 1, 2}));
  bad(matrix({1, 1, 0, 1}));
}

TEST_CASE("nesting is bounded") {
  for (int depth : {1, 30, 32}) {
    INFO(depth);
    const std::string bytes = Nested(depth);
    int graphs = 0;
    const Model model = ReadModelFromBytes(test::AsBytes(bytes));
    ForEachGraph(model, [&](const Graph&) { ++graphs; });
    CHECK(graphs == depth + 1);
    CHECK(SerializeModel(model.Clone()) == SerializeModel(model));
  }
  BytesError(ErrorCode::kLimit, Nested(33));
  BytesError(ErrorCode::kLimit, Nested(3000));
  // Types inside types, 90 and 200 deep.
  const auto types = [](int depth) {
    std::string type = Field(1, "\x08\x01");
    for (int i = 0; i < depth; ++i) type = Field(4, Field(1, type));
    onnx::ModelProto proto = test::SmallProto();
    std::string bytes = proto.SerializeAsString();
    return bytes + Field(25, Field(1, "F") + Field(10, "d") + Field(12, Field(2, type)));
  };
  ReadModelFromBytes(test::AsBytes(types(40)));
  BytesError(ErrorCode::kLimit, types(100));
}

TEST_CASE("functions may not call themselves, and not expand without end") {
  const auto add_function = [](onnx::ModelProto& model, const std::string& name,
                               const std::vector<std::string>& calls) {
    onnx::FunctionProto& f = *model.add_functions();
    f.set_domain("d");
    f.set_name(name);
    f.add_input("a0");
    std::string last = "a0";
    for (const std::string& callee : calls) {
      onnx::NodeProto& node = *f.add_node();
      node.set_op_type(callee);
      node.set_domain(callee == "Neg" ? "" : "d");
      node.add_input(last);
      last = "a" + std::to_string(f.node_size());
      node.add_output(last);
    }
    f.add_output(last);
  };
  const auto call = [](onnx::ModelProto& model, const std::string& name) {
    AddNode(*model.mutable_graph(), name, {"x"}, {"called"}).set_domain("d");
  };
  CHECK(Contains(LoadError(ErrorCode::kModel, [&](auto& m) { add_function(m, "F", {"F"}); }),
                 "function \"d.F\": calls itself"));
  CHECK(Contains(LoadError(ErrorCode::kModel,
                           [&](auto& m) {
                             add_function(m, "F", {"G"});
                             add_function(m, "G", {"Neg", "F"});
                             call(m, "F");
                           }),
                 "calls itself"));
  CHECK(Contains(LoadError(ErrorCode::kModel,
                           [&](auto& m) {
                             add_function(m, "F", {"Neg"});
                             add_function(m, "F", {"Neg"});
                           }),
                 "function \"d.F\": is defined twice"));
  // A cycle hidden in a subgraph.
  LoadError(ErrorCode::kModel, [&](auto& m) {
    add_function(m, "F", {"Neg"});
    onnx::AttributeProto& a = *m.mutable_functions(0)->mutable_node(0)->add_attribute();
    a.set_name("body");
    a.set_type(onnx::AttributeProto::GRAPH);
    AddNode(*a.mutable_g(), "F", {"a0"}, {"inner"}).set_domain("d");
    a.mutable_g()->add_output()->set_name("inner");
  });
  const auto chain = [&](int depth) {
    onnx::ModelProto model = test::SmallProto();
    add_function(model, "f0", {"Neg"});
    for (int i = 1; i < depth; ++i) {
      add_function(model, "f" + std::to_string(i), {"f" + std::to_string(i - 1)});
    }
    call(model, "f" + std::to_string(depth - 1));
    return model;
  };
  test::Load(chain(100));
  CHECK(Contains(ErrorOf(ErrorCode::kLimit, [&] { test::Load(chain(101)); }),
                 "101 nested function calls, the limit is 100"));
  ErrorOf(ErrorCode::kLimit, [&] { test::Load(chain(5000)); });
  const auto laughs = [&](int depth) {
    onnx::ModelProto model = test::SmallProto();
    add_function(model, "f0", {"Neg"});
    for (int i = 1; i <= depth; ++i) {
      const std::string callee = "f" + std::to_string(i - 1);
      add_function(model, "f" + std::to_string(i), {callee, callee});
    }
    call(model, "f" + std::to_string(depth));
    return model;
  };
  test::Load(laughs(15));
  CHECK(Contains(ErrorOf(ErrorCode::kLimit, [&] { test::Load(laughs(30)); }),
                 "nodes with all function calls expanded"));
  ErrorOf(ErrorCode::kLimit, [&] { test::Load(laughs(80)); });  // more than 2⁶⁴
  CHECK(Contains(LoadError(ErrorCode::kModel,
                           [&](auto& m) {
                             add_function(m, "F", {"Neg"});
                             m.mutable_functions(0)->mutable_node(0)->set_input(0, "x");
                           }),
                 "function \"d.F\": node \"a1\" (Neg): input 0 \"x\" is defined nowhere"));
}

TEST_CASE("large but legal: a chain of 100,000 nodes, in reverse order") {
  onnx::ModelProto proto = test::SmallProto();
  constexpr int kNodes = 100'000;
  for (int i = kNodes; i-- > 0;) {
    AddNode(*proto.mutable_graph(), "Neg", {i ? "n" + std::to_string(i - 1) : "x"},
            {"n" + std::to_string(i)});
  }
  const auto start = std::chrono::steady_clock::now();
  const Model model = test::Load(proto);
  CHECK(model.graph().node_count() == kNodes + 1);
  const std::vector<Node*> order = model.graph().TopologicalOrder();
  CHECK(order.back()->output(0)->name() == "n" + std::to_string(kNodes - 1));
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
}

TEST_CASE("a flood of tiny messages is refused before it is parsed") {
  std::string nodes;
  for (int i = 0; i < 1000; ++i) nodes += std::string("\x0a\x00", 2);
  const std::string bytes = Field(7, nodes);
  CheckWire(test::AsBytes(bytes), {.depth = 100, .messages = 1001});
  ErrorOf(ErrorCode::kLimit,
          [&] { CheckWire(test::AsBytes(bytes), {.depth = 100, .messages = 1000}); });
}

TEST_CASE("files that cannot be read") {
  test::TempDir dir;
  const std::string missing = ErrorOf(ErrorCode::kRead, [&] { ReadModel(dir / "no.onnx"); });
  CHECK(missing == (dir / "no.onnx").string() + ": no such file");
  CHECK(Contains(ErrorOf(ErrorCode::kRead, [&] { ReadModel(dir.path()); }), "is a directory"));
  REQUIRE(mkfifo((dir / "fifo").c_str(), 0600) == 0);
  CHECK(Contains(ErrorOf(ErrorCode::kRead, [&] { ReadModel(dir / "fifo"); }), "is a FIFO"));
  ErrorOf(ErrorCode::kRead, [&] { ReadModel("/dev/zero"); });
  ErrorOf(ErrorCode::kRead, [&] { ReadModel(""); });
  ErrorOf(ErrorCode::kRead, [&] { ReadModel(dir.path() / std::string(5000, 'x')); });
  test::WriteFile(dir / "empty.onnx", "");
  CHECK(Contains(ErrorOf(ErrorCode::kModel, [&] { ReadModel(dir / "empty.onnx"); }),
                 "empty.onnx: is empty"));
  test::WriteFile(dir / "secret.onnx", test::SmallProto().SerializeAsString());
  chmod((dir / "secret.onnx").c_str(), 0);
  if (geteuid() != 0) {
    CHECK(Contains(ErrorOf(ErrorCode::kRead, [&] { ReadModel(dir / "secret.onnx"); }),
                   "Permission denied"));
  }
  // A sparse file of 3 GB: refused by its size, not read.
  test::WriteFile(dir / "huge.onnx", "");
  REQUIRE(truncate((dir / "huge.onnx").c_str(), 3'000'000'000) == 0);
  CHECK(Contains(ErrorOf(ErrorCode::kModel, [&] { ReadModel(dir / "huge.onnx"); }),
                 "larger than 2 GiB"));
}

TEST_CASE("a change while reading is noticed") {
  test::TempDir dir;
  const std::string bytes = test::SmallProto().SerializeAsString();
  test::WriteFile(dir / "m.onnx", bytes);
  const Model model = ReadModel(dir / "m.onnx");
  CHECK(model.source == (dir / "m.onnx").string());
  CheckUnchanged(model);
  CheckUnchanged(model.Clone());
  test::WriteFile(dir / "other", bytes);
  REQUIRE(rename((dir / "other").c_str(), (dir / "m.onnx").c_str()) == 0);
  CHECK(Contains(ErrorOf(ErrorCode::kChanged, [&] { CheckUnchanged(model); }),
                 "m.onnx: was changed"));
  REQUIRE(unlink((dir / "m.onnx").c_str()) == 0);
  ErrorOf(ErrorCode::kChanged, [&] { CheckUnchanged(model.Clone()); });
  CheckUnchanged(Model());
}

// Random damage to small valid files: either a model or a UserError, never anything else. More
// under tests/fuzz.
TEST_CASE("random damage never crashes the reader") {
  std::vector<std::string> seeds = {test::SmallProto().SerializeAsString(), Nested(3)};
  if (const auto assets = test::Assets()) {
    for (const char* name : {"conv.int4_weights.qdq.onnx", "sparse_initializer_handling.onnx",
                             "function_with_variadics.onnx", "three_layer_nested_subgraph_v2.onnx",
                             "conv_qdq_external_ini.onnx", "gh_issue_18338.onnx"}) {
      seeds.push_back(test::ReadFile(*assets / "zoo" / "odd" / name));
    }
  }
  std::mt19937 random(7);
  const int rounds = std::getenv("SPARSEFUSE_FUZZ_ROUNDS")
                         ? std::atoi(std::getenv("SPARSEFUSE_FUZZ_ROUNDS"))
                         : 4000;
  int read = 0, refused = 0;
  for (int i = 0; i < rounds; ++i) {
    std::string bytes = seeds[random() % seeds.size()];
    for (unsigned change = random() % 4 + 1; change > 0 && !bytes.empty(); --change) {
      const size_t at = random() % bytes.size();
      switch (random() % 5) {
        case 0:
          bytes[at] = static_cast<char>(random());
          break;
        case 1:
          bytes[at] = static_cast<char>(bytes[at] ^ 1 << random() % 8);
          break;
        case 2:
          bytes.erase(at, random() % 8);
          break;
        case 3:
          bytes.insert(at, bytes.substr(random() % bytes.size(), random() % 16));
          break;
        default:
          bytes[at] = static_cast<char>(random() % 2 ? 0xff : 0x7f);
          break;
      }
    }
    try {
      const Model model = ReadModelFromBytes(test::AsBytes(bytes));
      const std::string written = SerializeModel(model);
      if (SerializeModel(ReadModelFromBytes(test::AsBytes(written))) != written) {
        FAIL("not a fixed point, round " << i);
      }
      ++read;
    } catch (const UserError&) {
      ++refused;
    }
  }
  CHECK(read > rounds / 50);
  CHECK(refused > rounds / 50);
}

}  // namespace sparsefuse
