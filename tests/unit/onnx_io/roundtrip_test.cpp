// write(read(m)) = m, field by field, over every model there is.

#include <filesystem>
#include <fstream>
#include <set>

#include "onnx/onnx-ml.pb.h"
#include "onnx_io/reader.h"
#include "onnx_io/writer.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"

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

onnx::ModelProto Parse(const fs::path& path) {
  onnx::ModelProto proto;
  std::ifstream in(path, std::ios::binary);
  REQUIRE(proto.ParseFromIstream(&in));
  return proto;
}

// External data becomes raw data: where it lies may differ.
void Inline(onnx::TensorProto& tensor, const fs::path& directory) {
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

void Inline(onnx::GraphProto& graph, const fs::path& directory) {
  for (auto& tensor : *graph.mutable_initializer()) Inline(tensor, directory);
  for (auto& node : *graph.mutable_node()) {
    for (auto& attribute : *node.mutable_attribute()) {
      if (attribute.has_t()) Inline(*attribute.mutable_t(), directory);
      if (attribute.has_g()) Inline(*attribute.mutable_g(), directory);
    }
  }
}

std::string Canonical(const fs::path& path) {
  onnx::ModelProto proto = Parse(path);
  Inline(*proto.mutable_graph(), path.parent_path());
  return proto.SerializeAsString();
}

}  // namespace

TEST_CASE("every asset comes back field by field") {
  test::TempDir dir;
  for (const fs::path& path : AllModels()) {
    INFO(path);
    const std::string original = Canonical(path);
    for (const ExternalData external : {ExternalData::kNever, ExternalData::kAlways}) {
      const Model model = ReadModel(path);
      const fs::path out = dir / "out.onnx";
      WriteModel(model, out, external);
      CHECK((Canonical(out) == original));
      WriteModel(model.Clone(), out, external);
      CHECK((Canonical(out) == original));
    }
  }
}

}  // namespace sparsefuse
