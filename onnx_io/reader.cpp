#include "onnx_io/reader.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <climits>

#include "onnx_io/codec.h"

namespace sparsefuse {
namespace {

Model Read(std::span<const std::byte> bytes, ExternalFiles& files) {
  if (bytes.size() > INT_MAX) {
    throw UserError(ErrorCode::kModel, "is larger than 2 GiB, which no ONNX file can be",
                    "larger models keep their weights in external data files");
  }
  onnx::ModelProto proto;
  google::protobuf::io::ArrayInputStream raw(bytes.data(), static_cast<int>(bytes.size()));
  google::protobuf::io::CodedInputStream input(&raw);
  if (!proto.ParseFromCodedStream(&input) || !input.ConsumedEntireMessage()) {
    throw UserError(ErrorCode::kModel, "is not an ONNX model, or is damaged");
  }
  if (!proto.has_graph()) throw UserError(ErrorCode::kModel, "is not an ONNX model: no graph");
  return ModelCodec::Decode(std::move(proto), files);
}

}  // namespace

Model ReadModel(const std::filesystem::path& path) {
  try {
    const FileHandle file = OpenRegularFile(path);
    const FileIdentity identity = IdentityOf(file.get(), path);
    const MappedFile mapped(file.get(), identity);
    const std::filesystem::path directory =
        path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
    ExternalFiles files(directory, &identity);
    Model model = Read(mapped.bytes(), files);
    std::vector<FileIdentity> identities = files.Identities();
    identities.push_back(identity);
    ModelCodec::SetFiles(model, std::move(identities));
    model.source = path.string();
    Verify(model);
    return model;
  } catch (UserError& error) {
    throw error.InFile(path.string());
  }
}

Model ReadModelFromBytes(std::span<const std::byte> bytes, const std::filesystem::path& directory) {
  ExternalFiles files(directory);
  Model model = Read(bytes, files);
  ModelCodec::SetFiles(model, files.Identities());
  Verify(model);
  return model;
}

void CheckUnchanged(const Model& model) {
  for (const FileIdentity& then : ModelCodec::Files(model)) {
    const FileHandle file = OpenRegularFile(then.path);
    if (IdentityOf(file.get(), then.path) != then) {
      throw UserError(ErrorCode::kChanged, "was changed while it was being read",
                      "run again when nothing writes to it")
          .InFile(then.path.string());
    }
  }
}

}  // namespace sparsefuse
