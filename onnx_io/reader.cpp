#include "onnx_io/reader.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <climits>
#include <optional>

#include "onnx_io/codec.h"
#include "onnx_io/wire.h"

namespace sparsefuse {
namespace {

// Newest that this program knows: ONNX 1.23.
constexpr int64_t kNewestIrVersion = 14;
constexpr int64_t kNewestOpset = 28;

struct OtherFormat {
  std::string_view what, hint;
};

// Files that people mistake for ONNX models, by their first bytes.
struct Magic {
  size_t offset;
  std::string_view bytes;
  OtherFormat format;
};

using namespace std::string_view_literals;

constexpr Magic kMagics[] = {
    {0,
     "version https://git-lfs"sv,
     {"is a git-lfs pointer, not the file itself", "run `git lfs pull`"}},
    {0, "\x1f\x8b"sv, {"is gzip-compressed", "unpack it first"}},
    {0, "\x28\xb5\x2f\xfd"sv, {"is zstd-compressed", "unpack it first"}},
    {0,
     "\xfd"
     "7zXZ"sv,
     {"is xz-compressed", "unpack it first"}},
    {0, "BZh"sv, {"is bzip2-compressed", "unpack it first"}},
    {0, "7z\xbc\xaf"sv, {"is a 7z archive", "unpack it first"}},
    {0,
     "PK\x03\x04"sv,
     {"is a zip archive (or a PyTorch, Keras or NumPy file)",
      "unpack it, or export the model to ONNX"}},
    {0, "\x80\x02"sv, {"is a Python pickle (an old PyTorch file?)", "export the model to ONNX"}},
    {0, "\x80\x04"sv, {"is a Python pickle", "export the model to ONNX"}},
    {0, "\x89HDF"sv, {"is an HDF5 file (a Keras model?)", "export the model to ONNX"}},
    {0, "\x93NUMPY"sv, {"is a NumPy array", ""}},
    {0, "GGUF"sv, {"is a GGUF file", "export the model to ONNX"}},
    {0,
     "\x7f"
     "ELF"sv,
     {"is a program or shared library", ""}},
    {4, "TFL3"sv, {"is a TensorFlow Lite model", "convert the model to ONNX"}},
    {4, "ORTM"sv, {"is in ONNX Runtime's .ort format", "use the .onnx file it was made from"}},
};

bool ContainsNoCase(std::string_view text, std::string_view lower_case) {
  const auto same = [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a + 32 : a) == b; };
  return std::search(text.begin(), text.end(), lower_case.begin(), lower_case.end(), same) !=
         text.end();
}

std::optional<OtherFormat> RecogniseText(std::string_view head) {
  const bool text = std::all_of(head.begin(), head.end(), [](char c) {
    return (c >= ' ' && c != 0x7f) || c == '\n' || c == '\r' || c == '\t' || (c & 0x80);
  });
  if (!text) return std::nullopt;
  if (ContainsNoCase(head, "<!doctype html") || ContainsNoCase(head, "<html")) {
    return OtherFormat{"is an HTML page, perhaps an error page saved by a download",
                       "download the file again"};
  }
  const size_t first = head.find_first_not_of(" \t\r\n\xef\xbb\xbf");
  const char c = first == std::string_view::npos ? ' ' : head[first];
  if (c == '{' || c == '[') return OtherFormat{"is a JSON file", ""};
  if (c == '<') return OtherFormat{"is an XML file", ""};
  return OtherFormat{"is a text file", ""};
}

// What a file that is no ONNX model looks like.
std::optional<OtherFormat> Recognise(std::span<const std::byte> bytes) {
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  for (const Magic& magic : kMagics) {
    if (all.size() >= magic.offset && all.substr(magic.offset).starts_with(magic.bytes)) {
      return magic.format;
    }
  }
  // safetensors: the length of a JSON header in 8 bytes, then the header.
  if (all.size() > 9 && all[8] == '{' && all.substr(4, 4) == "\0\0\0\0"sv) {
    return OtherFormat{"is a safetensors file", "export the model to ONNX"};
  }
  if (!all.empty() &&
      std::all_of(all.begin(), all.begin() + std::min<ptrdiff_t>(4096, std::ssize(all)),
                  [](char c) { return c == 0; })) {
    return OtherFormat{"begins with zeros only", "the download looks incomplete"};
  }
  return RecogniseText(all.substr(0, 512));
}

void CheckHeader(const onnx::ModelProto& proto) {
  if (!proto.has_graph()) throw UserError(ErrorCode::kModel, "is no ONNX model: it has no graph");
  if (!proto.has_ir_version() || proto.ir_version() < 1) {
    throw UserError(ErrorCode::kModel, "is no ONNX model: it has no ir_version");
  }
  if (proto.ir_version() > kNewestIrVersion) {
    throw UserError(ErrorCode::kUnsupported,
                    fmt::format("has IR version {}, the newest known one is {}", proto.ir_version(),
                                kNewestIrVersion));
  }
  if (proto.opset_import_size() == 0 && proto.ir_version() >= 3) {
    throw UserError(ErrorCode::kModel, "imports no operator set (opset_import is empty)");
  }
  for (const auto& import : proto.opset_import()) {
    if (NormalDomain(import.domain()).empty() && import.version() > kNewestOpset) {
      throw UserError(
          ErrorCode::kUnsupported,
          fmt::format("has opset {}, the newest known one is {}", import.version(), kNewestOpset));
    }
  }
  if (proto.graph().output_size() == 0)
    throw UserError(ErrorCode::kModel, "the graph has no outputs");
}

onnx::ModelProto Parse(std::span<const std::byte> bytes) {
  if (bytes.empty())
    throw UserError(ErrorCode::kModel, "is empty", "the download looks incomplete");
  if (bytes.size() > INT_MAX) {
    throw UserError(ErrorCode::kModel, "is larger than 2 GiB, which no ONNX file can be",
                    "larger models keep their weights in external data files");
  }
  try {
    CheckWire(bytes);
    onnx::ModelProto proto;
    google::protobuf::io::ArrayInputStream raw(bytes.data(), static_cast<int>(bytes.size()));
    google::protobuf::io::CodedInputStream input(&raw);
    if (!proto.ParseFromCodedStream(&input) || !input.ConsumedEntireMessage()) {
      throw UserError(ErrorCode::kModel, "is damaged: protobuf cannot parse it");
    }
    CheckHeader(proto);
    return proto;
  } catch (const UserError& error) {
    if (error.code == ErrorCode::kModel) {
      if (const auto format = Recognise(bytes)) {
        throw UserError(ErrorCode::kModel, std::string(format->what), std::string(format->hint));
      }
    }
    throw;
  }
}

Model Read(std::span<const std::byte> bytes, ExternalFiles& files) {
  Model model = ModelCodec::Decode(Parse(bytes), files);
  Verify(model);
  return model;
}

}  // namespace

Model ReadModel(const std::filesystem::path& path) {
  try {
    const FileHandle file = OpenRegularFile(path);
    const FileIdentity identity = IdentityOf(file.get(), path);
    const MappedFile mapped(file.get(), identity);
    ExternalFiles files(path.has_parent_path() ? path.parent_path() : ".", &identity);
    Model model = Read(mapped.bytes(), files);
    std::vector<FileIdentity> identities = files.Identities();
    identities.push_back(identity);
    ModelCodec::SetFiles(model, std::move(identities));
    model.source = path.string();
    return model;
  } catch (UserError& error) {
    throw error.InFile(path.string());
  }
}

Model ReadModelFromBytes(std::span<const std::byte> bytes, const std::filesystem::path& directory) {
  ExternalFiles files(directory);
  Model model = Read(bytes, files);
  ModelCodec::SetFiles(model, files.Identities());
  return model;
}

void CheckUnchanged(const Model& model) {
  for (const FileIdentity& then : ModelCodec::Files(model)) {
    bool same = false;
    try {
      const FileHandle file = OpenRegularFile(then.path);
      same = IdentityOf(file.get(), then.path) == then;
    } catch (const UserError&) {
      // Gone, or something else by now: changed.
    }
    if (!same) {
      throw UserError(ErrorCode::kChanged, "was changed while it was being read",
                      "run again when nothing writes to it")
          .InFile(then.path.string());
    }
  }
}

}  // namespace sparsefuse
