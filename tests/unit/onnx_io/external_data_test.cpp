// External data: found where it may be, refused everywhere else.

#include "onnx_io/external_data.h"

#include <sys/stat.h>
#include <unistd.h>

#include "onnx_io/writer.h"
#include "tests/support/support.h"
#include "tests/unit/onnx_io/protos.h"

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;
using test::Contains;
using test::ErrorOf;

using Entries = std::vector<std::pair<std::string, std::string>>;

void MakeExternal(onnx::TensorProto& tensor, const Entries& entries) {
  tensor.clear_raw_data();
  tensor.clear_external_data();
  tensor.set_data_location(onnx::TensorProto::EXTERNAL);
  for (const auto& [key, value] : entries) {
    auto& entry = *tensor.add_external_data();
    entry.set_key(key);
    entry.set_value(value);
  }
}

std::string FloatBytes(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

// box/model.onnx with W in external data; box/w.bin beside it, secret.bin outside.
struct Box {
  Box() : root(dir / "box") {
    fs::create_directory(root);
    test::WriteFile(root / "w.bin", FloatBytes({1, 2, 3, 4}));
    test::WriteFile(dir / "secret.bin", FloatBytes({5, 6, 7, 8}));
  }
  fs::path Write(const Entries& entries) {
    onnx::ModelProto proto = test::SmallProto();
    MakeExternal(*proto.mutable_graph()->mutable_initializer(0), entries);
    test::WriteFile(root / "model.onnx", proto.SerializeAsString());
    return root / "model.onnx";
  }
  std::vector<float> Read(const Entries& entries) {
    const Model model = ReadModel(Write(entries));
    return model.graph().FindValue("W")->initializer()->ToFloats();
  }
  std::string Error(ErrorCode code, const Entries& entries) {
    return ErrorOf(code, [&] { Read(entries); });
  }
  test::TempDir dir;
  fs::path root;
};

}  // namespace

TEST_CASE("external data is read where it lies") {
  Box box;
  const std::vector<float> want = {1, 2, 3, 4};
  CHECK(box.Read({{"location", "w.bin"}, {"offset", "0"}, {"length", "16"}}) == want);
  CHECK(box.Read({{"location", "w.bin"}}) == want);
  CHECK(box.Read({{"location", "./w.bin"}, {"checksum", "whatever"}}) == want);
  test::WriteFile(box.root / "w.bin", "x" + FloatBytes(want) + "rest");
  CHECK(box.Read({{"location", "w.bin"}, {"offset", "1"}}) == want);  // unaligned is legal
  fs::create_directory(box.root / "sub dir");
  test::WriteFile(box.root / "sub dir" / "größe %s.bin", FloatBytes(want));
  CHECK(box.Read({{"location", "sub dir/größe %s.bin"}}) == want);

  const Model model = ReadModel(box.root / "model.onnx");
  CHECK(model.graph().FindValue("W")->initializer()->form == TensorForm::kExternal);
  CheckUnchanged(model);
  test::WriteFile(box.root / "sub dir" / "größe %s.bin", FloatBytes({1}));
  CHECK(Contains(ErrorOf(ErrorCode::kChanged, [&] { CheckUnchanged(model); }), "größe"));
}

TEST_CASE("a relative model path finds its data") {
  Box box;
  box.Write({{"location", "w.bin"}});
  const fs::path old = fs::current_path();
  fs::current_path(box.root);
  CHECK(ReadModel("model.onnx").graph().FindValue("W")->initializer()->size() == 4);
  fs::current_path(box.dir.path());
  CHECK(ReadModel("box/model.onnx").graph().FindValue("W")->initializer()->size() == 4);
  fs::current_path(old);
}

TEST_CASE("locations that leave the model's directory") {
  Box box;
  const auto refused = [&](const std::string& location) {
    return box.Error(ErrorCode::kPath, {{"location", location}});
  };
  CHECK(Contains(refused("../secret.bin"),
                 "model.onnx: initializer \"W\": external data location "
                 "\"../secret.bin\" leaves the model's directory"));
  refused("a/../../secret.bin");
  refused("./../secret.bin");
  refused("..");
  refused("..\\..\\secret.bin");
  CHECK(Contains(refused((box.dir / "secret.bin").string()), "is an absolute path"));
  refused("C:\\secret.bin");
  refused("file:///etc/passwd");
  CHECK(Contains(refused("*/_ORT_MEM_ADDR_/*"), "is a memory address"));
  refused("*/_ORT_NATIVE_ENDIAN_MEM_ADDR_/*");
  CHECK(Contains(refused(""), "is empty"));
  refused(std::string("w.bin\0", 6));
  CHECK(Contains(refused("."), "leads outside"));
  fs::create_directory(box.root / "folder");
  CHECK(Contains(refused("folder"), "is no regular file"));
  REQUIRE(mkfifo((box.root / "fifo").c_str(), 0600) == 0);
  CHECK(Contains(refused("fifo"), "is no regular file"));
  CHECK(Contains(refused("model.onnx"), "is the model file itself"));

  fs::create_symlink(box.dir / "secret.bin", box.root / "link.bin");
  CHECK(Contains(refused("link.bin"), "leads outside the model's directory"));
  fs::create_symlink("../secret.bin", box.root / "relative.bin");
  refused("relative.bin");
  fs::create_directory(box.dir / "outside");
  fs::copy_file(box.dir / "secret.bin", box.dir / "outside" / "w.bin");
  fs::create_directory_symlink(box.dir / "outside", box.root / "sub");
  refused("sub/w.bin");
  fs::create_symlink("/dev/zero", box.root / "zero");
  refused("zero");
  fs::create_symlink("/proc/self/mem", box.root / "mem");
  refused("mem");
  fs::create_hard_link(box.dir / "secret.bin", box.root / "hard.bin");
  CHECK(Contains(refused("hard.bin"), "is a hard link"));
  // A neighbour whose name merely begins like the directory's.
  fs::create_directory(box.dir / "box2");
  fs::copy_file(box.dir / "secret.bin", box.dir / "box2" / "w.bin");
  fs::create_symlink(box.dir / "box2" / "w.bin", box.root / "prefix.bin");
  refused("prefix.bin");
  fs::create_symlink("loop", box.root / "loop");
  box.Error(ErrorCode::kRead, {{"location", "loop"}});
  CHECK(Contains(box.Error(ErrorCode::kRead, {{"location", "absent.bin"}}),
                 "external data file \"absent.bin\": No such file or directory"));
}

TEST_CASE("links inside the directory are fine") {
  Box box;
  fs::create_symlink("w.bin", box.root / "link.bin");
  CHECK(box.Read({{"location", "link.bin"}})[3] == 4);
  fs::create_directory(box.root / "deep");
  fs::create_symlink("../w.bin", box.root / "deep" / "up.bin");
  CHECK(box.Read({{"location", "deep/up.bin"}})[3] == 4);
}

TEST_CASE("a Hugging Face cache loads, and only that cache") {
  Box box;
  const fs::path repo = box.dir / "models--org--name";
  const fs::path snapshot = repo / "snapshots" / "abc";
  fs::create_directories(snapshot / "onnx");
  fs::create_directories(repo / "blobs");
  fs::copy_file(box.Write({{"location", "model.onnx_data"}}), repo / "blobs" / "1111");
  fs::copy_file(box.root / "w.bin", repo / "blobs" / "2222");
  fs::create_symlink("../../../blobs/1111", snapshot / "onnx" / "model.onnx");
  fs::create_symlink("../../../blobs/2222", snapshot / "onnx" / "model.onnx_data");
  CHECK(ReadModel(snapshot / "onnx" / "model.onnx").graph().FindValue("W")->constant() != nullptr);

  // The same with links to outside the cache.
  fs::remove(snapshot / "onnx" / "model.onnx_data");
  fs::create_symlink(box.dir / "secret.bin", snapshot / "onnx" / "model.onnx_data");
  ErrorOf(ErrorCode::kPath, [&] { ReadModel(snapshot / "onnx" / "model.onnx"); });
  const fs::path other = box.dir / "models--org--other";
  fs::create_directories(other);
  fs::copy_file(box.root / "w.bin", other / "w.bin");
  fs::remove(snapshot / "onnx" / "model.onnx_data");
  fs::create_symlink(other / "w.bin", snapshot / "onnx" / "model.onnx_data");
  ErrorOf(ErrorCode::kPath, [&] { ReadModel(snapshot / "onnx" / "model.onnx"); });
}

TEST_CASE("a linked model may have its data linked from beside the link") {
  Box box;
  box.Write({{"location", "w.bin"}});
  const fs::path links = box.dir / "links";
  fs::create_directory(links);
  fs::create_symlink(box.root / "model.onnx", links / "model.onnx");
  ErrorOf(ErrorCode::kRead, [&] { ReadModel(links / "model.onnx"); });
  fs::create_symlink(box.root / "w.bin", links / "w.bin");
  CHECK(ReadModel(links / "model.onnx").graph().FindValue("W")->constant() != nullptr);
}

TEST_CASE("sizes and offsets must be plain numbers inside the file") {
  Box box;
  const auto error = [&](Entries entries) {
    entries.insert(entries.begin(), {"location", "w.bin"});
    return box.Error(ErrorCode::kTensor, entries);
  };
  CHECK(Contains(error({{"offset", "1000"}}),
                 "external data at offset 1000 needs 16 bytes, file "
                 "\"w.bin\" has 16"));
  error({{"offset", "1"}});
  error({{"offset", "9223372036854775807"}});
  for (const char* bad : {"18446744073709551608", "-8", "+0", "abc", "0x0", "0 ;rm", "", " 0",
                          "1e3", "99999999999999999999999"}) {
    CHECK(Contains(error({{"offset", bad}}), "is no size in bytes"));
    CHECK(Contains(error({{"length", bad}}), "is no size in bytes"));
  }
  CHECK(Contains(error({{"length", "8"}}), "external data has 8 bytes, dims [4] of float need 16"));
  error({{"length", "64"}});
  error({{"length", "0"}});
  CHECK(Contains(error({{"location", "../secret.bin"}}), "has \"location\" twice"));
  CHECK(Contains(error({{"offset", "0"}, {"offset", "0"}}), "twice"));
  CHECK(Contains(error({{"__class__", "x"}}), "unknown key \"__class__\""));
  error({{"basepath", "/"}});
  CHECK(Contains(box.Error(ErrorCode::kTensor, {{"offset", "0"}}), "without a location"));
  box.Error(ErrorCode::kTensor, {});
  test::WriteFile(box.root / "w.bin", FloatBytes({1, 2, 3, 4}).substr(0, 15));
  CHECK(Contains(error({}), "the file looks truncated"));
}

TEST_CASE("external and something else at once") {
  const auto error = [](const std::function<void(onnx::TensorProto&)>& change) {
    Box box;
    const fs::path path = box.Write({{"location", "w.bin"}});
    onnx::ModelProto proto;
    REQUIRE(proto.ParseFromString(test::ReadFile(path)));
    change(*proto.mutable_graph()->mutable_initializer(0));
    test::WriteFile(path, proto.SerializeAsString());
    return ErrorOf(ErrorCode::kTensor, [&] { ReadModel(path); });
  };
  CHECK(Contains(error([](auto& t) { t.set_raw_data(FloatBytes({1, 2, 3, 4})); }), "twice"));
  CHECK(Contains(error([](auto& t) { t.set_data_type(onnx::TensorProto::STRING); }), "strings"));
  CHECK(Contains(error([](auto& t) { t.clear_data_location(); }), "not marked as external"));
}

TEST_CASE("every place where a tensor can stand is confined") {
  Box box;
  onnx::TensorProto evil = test::FloatTensor("evil", {4}, {});
  MakeExternal(evil, {{"location", "../secret.bin"}});
  const auto refused = [&](const std::function<void(onnx::ModelProto&)>& place) {
    onnx::ModelProto proto = test::SmallProto();
    place(proto);
    test::WriteFile(box.root / "model.onnx", proto.SerializeAsString());
    ErrorOf(ErrorCode::kPath, [&] { ReadModel(box.root / "model.onnx"); });
  };
  using P = onnx::AttributeProto;
  const auto add_attribute = [](onnx::NodeProto& node, P::AttributeType type) -> P& {
    P& attribute = *node.add_attribute();
    attribute.set_name("a");
    attribute.set_type(type);
    return attribute;
  };
  const auto add_sparse = [&](onnx::SparseTensorProto& sparse, bool in_values) {
    *sparse.mutable_values() = in_values ? evil : test::FloatTensor("s", {1}, {1});
    *sparse.mutable_indices() = in_values ? test::FloatTensor("", {1}, {1}) : evil;
    sparse.add_dims(4);
  };
  const auto main_node = [](onnx::ModelProto& m) -> onnx::NodeProto& {
    return *m.mutable_graph()->mutable_node(0);
  };
  refused([&](auto& m) { *m.mutable_graph()->add_initializer() = evil; });
  refused([&](auto& m) { *add_attribute(main_node(m), P::TENSOR).mutable_t() = evil; });
  refused([&](auto& m) { *add_attribute(main_node(m), P::TENSORS).add_tensors() = evil; });
  for (bool in_values : {true, false}) {
    refused([&](auto& m) { add_sparse(*m.mutable_graph()->add_sparse_initializer(), in_values); });
    refused([&](auto& m) {
      add_sparse(*add_attribute(main_node(m), P::SPARSE_TENSOR).mutable_sparse_tensor(), in_values);
    });
    refused([&](auto& m) {
      add_sparse(*add_attribute(main_node(m), P::SPARSE_TENSORS).add_sparse_tensors(), in_values);
    });
  }
  refused([&](auto& m) {
    *add_attribute(main_node(m), P::GRAPH).mutable_g()->add_initializer() = evil;
  });
  refused([&](auto& m) {
    *add_attribute(main_node(m), P::GRAPHS).add_graphs()->add_initializer() = evil;
  });
  refused([&](auto& m) {
    auto& function = *m.add_functions();
    function.set_name("F");
    test::AddNode(*m.mutable_graph(), "Neg", {"x"}, {"q"});
    auto& node = *function.add_node();
    node.set_op_type("Constant");
    node.add_output("o");
    *add_attribute(node, P::TENSOR).mutable_t() = evil;
  });
  refused([&](auto& m) {
    auto& function = *m.add_functions();
    function.set_name("F");
    auto& attribute = *function.add_attribute_proto();
    attribute.set_type(P::TENSOR);
    *attribute.mutable_t() = evil;
  });
  refused(
      [&](auto& m) { *m.add_training_info()->mutable_initialization()->add_initializer() = evil; });
  refused([&](auto& m) {
    auto& graph = *m.add_training_info()->mutable_algorithm();
    auto& node = test::AddNode(graph, "If", {}, {"o"});
    *add_attribute(node, P::GRAPH).mutable_g()->add_initializer() = evil;
  });
  // An attribute without a type, holding a tensor all the same.
  refused([&](auto& m) {
    P& attribute = *main_node(m).add_attribute();
    attribute.set_name("a");
    *attribute.mutable_t() = evil;
  });
}

TEST_CASE("external bytes of sparse and training tensors move into the file") {
  Box box;
  onnx::ModelProto proto = test::SmallProto();
  auto& sparse = *proto.mutable_graph()->add_sparse_initializer();
  *sparse.mutable_values() = test::FloatTensor("S", {4}, {});
  MakeExternal(*sparse.mutable_values(), {{"location", "w.bin"}});
  sparse.mutable_indices()->set_data_type(onnx::TensorProto::INT64);
  sparse.mutable_indices()->add_dims(4);
  for (int i = 0; i < 4; ++i) sparse.mutable_indices()->add_int64_data(i);
  sparse.add_dims(100);
  test::WriteFile(box.root / "model.onnx", proto.SerializeAsString());
  onnx::ModelProto written;
  REQUIRE(written.ParseFromString(SerializeModel(ReadModel(box.root / "model.onnx"))));
  const auto& values = written.graph().sparse_initializer(0).values();
  CHECK(values.raw_data() == FloatBytes({1, 2, 3, 4}));
  CHECK(values.external_data_size() == 0);
  CHECK_FALSE(values.has_data_location());
}

TEST_CASE("without a directory external data is refused") {
  onnx::ModelProto proto = test::SmallProto();
  MakeExternal(*proto.mutable_graph()->mutable_initializer(0), {{"location", "w.bin"}});
  CHECK(Contains(ErrorOf(ErrorCode::kPath, [&] { test::Load(proto); }), "has no directory"));
  Box box;
  const std::string bytes = proto.SerializeAsString();
  CHECK(ReadModelFromBytes(test::AsBytes(bytes), box.root).graph().FindValue("W")->constant());
}

}  // namespace sparsefuse
