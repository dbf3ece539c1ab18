// All or nothing: names, modes, leftovers, full disks, large files.

#include "onnx_io/writer.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <set>

#include "onnx_io/digest.h"
#include "tests/support/support.h"
#include "tests/unit/onnx_io/protos.h"

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;
using test::Contains;
using test::ErrorOf;

std::set<std::string> Listing(const fs::path& directory) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

// y = x + small + … + page, with initializers of 400, 1,200 and 8,000 bytes.
Model ThreeSizes(float value = 1) {
  Model model;
  model.opset_imports[""] = 18;
  Graph& graph = model.graph();
  Value* sum = graph.AddGraphInput("x", ValueType{.dtype = DType::kFloat});
  for (const int64_t count : {100, 300, 2000}) {
    const std::vector<float> values(static_cast<size_t>(count), value);
    Value* weight =
        graph.AddInitializer("w" + std::to_string(count), Tensor::Of<float>({count}, values));
    sum =
        graph
            .AddNode(
                {.op = "Concat", .inputs = {sum, weight}, .outputs = {"s" + std::to_string(count)}})
            ->output(0);
    sum->producer()->SetAttribute("axis", int64_t{0});
  }
  graph.AddGraphOutput(sum);
  return model;
}

onnx::ModelProto Parse(const fs::path& path) {
  onnx::ModelProto proto;
  REQUIRE(proto.ParseFromString(test::ReadFile(path)));
  return proto;
}

std::string Entry(const onnx::TensorProto& tensor, std::string_view key) {
  for (const auto& entry : tensor.external_data()) {
    if (entry.key() == key) return entry.value();
  }
  return {};
}

// Peak resident memory of this process since the last call, in bytes.
uint64_t PeakMemory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6)) * 1024;
  }
  return 0;
}

bool ResetPeakMemory() {
  std::ofstream reset("/proc/self/clear_refs");
  reset << "5" << std::flush;
  return reset.good();
}

}  // namespace

TEST_CASE("staged: complete, hidden, removed unless published") {
  test::TempDir dir;
  const Model model = ThreeSizes();
  for (const ExternalData external : {ExternalData::kAuto, ExternalData::kAlways}) {
    {
      const StagedModel staged(model, dir / "m.onnx", external);
      CHECK_FALSE(fs::exists(dir / "m.onnx"));
      CHECK(staged.staged_path().parent_path() == dir.path());
      CHECK(staged.staged_path().filename().string().starts_with("."));
      CHECK(staged.staged_path().extension() == ".onnx");
      CHECK(SerializeModel(ReadModel(staged.staged_path())) == SerializeModel(model));
      uint64_t bytes = fs::file_size(staged.staged_path());
      CHECK(staged.data_path().empty() == (external == ExternalData::kAuto));
      if (!staged.data_path().empty()) bytes += fs::file_size(staged.data_path());
      CHECK(staged.bytes() == bytes);
    }
    CHECK(Listing(dir.path()).empty());
  }
  StagedModel staged(model, dir / "m.onnx", ExternalData::kAlways);
  const std::string data = staged.data_path().filename().string();
  staged.Publish();
  CHECK(Listing(dir.path()) == std::set<std::string>{"m.onnx", data});
  CHECK_THROWS_AS(staged.Publish(), InternalError);
}

TEST_CASE("the data file: named by its digest, aligned, small tensors stay inline") {
  test::TempDir dir;
  WriteModel(ThreeSizes(), dir / "m.onnx", ExternalData::kAlways);
  const onnx::ModelProto proto = Parse(dir / "m.onnx");
  const auto& weights = proto.graph().initializer();
  CHECK(weights[0].raw_data().size() == 400);
  const std::string location = Entry(weights[1], "location");
  CHECK(Entry(weights[1], "offset") == "0");
  CHECK(Entry(weights[1], "length") == "1200");
  CHECK(Entry(weights[2], "location") == location);
  CHECK(Entry(weights[2], "offset") == "4096");
  CHECK(Entry(weights[2], "length") == "8000");
  const std::string data = test::ReadFile(dir / location);
  CHECK(data.size() == 4096 + 8000);
  CHECK(location == "m-" + Sha256Hex(test::AsBytes(data)).substr(0, 16) + ".data");
  CHECK(SerializeModel(ReadModel(dir / "m.onnx")) == SerializeModel(ThreeSizes()));
  CHECK(ReadModel(dir / "m.onnx").graph().FindValue("w300")->initializer()->form ==
        TensorForm::kExternal);
}

TEST_CASE("same model, same bytes, same names") {
  test::TempDir a, b;
  for (const auto* dir : {&a, &b}) {
    WriteModel(ThreeSizes(), *dir / "m.onnx", ExternalData::kAlways);
    WriteModel(ThreeSizes(), *dir / "inline.onnx");
  }
  CHECK(Listing(a.path()) == Listing(b.path()));
  for (const std::string& name : Listing(a.path())) {
    CHECK(test::ReadFile(a / name) == test::ReadFile(b / name));
  }
}

TEST_CASE("an identical data file is reused and then not removed") {
  test::TempDir dir;
  WriteModel(ThreeSizes(), dir / "m.onnx", ExternalData::kAlways);
  const std::set<std::string> before = Listing(dir.path());
  const std::string data = Entry(Parse(dir / "m.onnx").graph().initializer(1), "location");
  const auto time = fs::last_write_time(dir / data);
  { const StagedModel staged(ThreeSizes(), dir / "m.onnx", ExternalData::kAlways); }
  CHECK(Listing(dir.path()) == before);
  WriteModel(ThreeSizes(), dir / "m.onnx", ExternalData::kAlways);
  CHECK(Listing(dir.path()) == before);
  CHECK(fs::last_write_time(dir / data) == time);

  // Its name with other content: somebody else's.
  test::WriteFile(dir / data, "not mine");
  CHECK(Contains(ErrorOf(ErrorCode::kWrite,
                         [&] { WriteModel(ThreeSizes(), dir / "m.onnx", ExternalData::kAlways); }),
                 "exists with other content"));
  CHECK(test::ReadFile(dir / data) == "not mine");
  CHECK(Listing(dir.path()) == before);
}

TEST_CASE("until it is replaced the old model stays a whole one") {
  test::TempDir dir;
  WriteModel(ThreeSizes(1), dir / "m.onnx", ExternalData::kAlways);
  const std::string old = SerializeModel(ReadModel(dir / "m.onnx"));
  StagedModel staged(ThreeSizes(2), dir / "m.onnx", ExternalData::kAlways);
  CHECK(SerializeModel(ReadModel(dir / "m.onnx")) == old);
  staged.Publish();
  CHECK(SerializeModel(ReadModel(dir / "m.onnx")) == SerializeModel(ThreeSizes(2)));
}

TEST_CASE("a model can be written over the file that it was read from") {
  test::TempDir dir;
  WriteModel(ThreeSizes(), dir / "m.onnx", ExternalData::kAlways);
  Model model = ReadModel(dir / "m.onnx");
  model.producer_name = "again";
  WriteModel(model, dir / "m.onnx");
  CHECK(ReadModel(dir / "m.onnx").producer_name == "again");
}

TEST_CASE("permissions: umask for new files, the old file's for replaced ones") {
  test::TempDir dir;
  const auto mode = [&](const fs::path& path) {
    struct stat status {};
    REQUIRE(stat(path.c_str(), &status) == 0);
    return status.st_mode & 07777;
  };
  const mode_t old = umask(027);
  WriteModel(ThreeSizes(), dir / "m.onnx", ExternalData::kAlways);
  umask(old);
  CHECK(mode(dir / "m.onnx") == 0640);
  CHECK(mode(dir / Entry(Parse(dir / "m.onnx").graph().initializer(1), "location")) == 0640);
  chmod((dir / "m.onnx").c_str(), 0604);
  WriteModel(ThreeSizes(2), dir / "m.onnx");
  CHECK(mode(dir / "m.onnx") == 0604);
}

TEST_CASE("a link at the target is replaced, not followed") {
  test::TempDir dir;
  test::WriteFile(dir / "victim", "precious");
  fs::create_symlink("victim", dir / "m.onnx");
  WriteModel(ThreeSizes(), dir / "m.onnx");
  CHECK(test::ReadFile(dir / "victim") == "precious");
  CHECK_FALSE(fs::is_symlink(dir / "m.onnx"));
}

TEST_CASE("odd names") {
  test::TempDir dir;
  for (const char* name : {"with space.onnx", "50%s.onnx", "-rf.onnx", "größe\n.onnx", "noext"}) {
    WriteModel(ThreeSizes(), dir / name, ExternalData::kAlways);
    CHECK(SerializeModel(ReadModel(dir / name)) == SerializeModel(ThreeSizes()));
  }
  WriteModel(ThreeSizes(), dir.path() / (std::string(245, 'n') + ".onnx"));
  const fs::path old = fs::current_path();
  fs::current_path(dir.path());
  WriteModel(ThreeSizes(), "here.onnx", ExternalData::kAlways);
  CHECK(SerializeModel(ReadModel("here.onnx")) == SerializeModel(ThreeSizes()));
  fs::current_path(old);
}

TEST_CASE("where nothing can be written") {
  test::TempDir dir;
  const auto error = [&](const fs::path& path) {
    return ErrorOf(ErrorCode::kWrite, [&] { WriteModel(ThreeSizes(), path); });
  };
  CHECK(Contains(error(dir.path() / "absent" / "m.onnx"),
                 "absent/m.onnx: cannot be written: No such file or directory"));
  test::WriteFile(dir / "file", "");
  error(dir.path() / "file" / "m.onnx");
  fs::create_directory(dir / "folder.onnx");
  CHECK(Contains(error(dir / "folder.onnx"), "folder.onnx: cannot be written"));
  CHECK(Listing(dir.path()) == std::set<std::string>{"file", "folder.onnx"});
  if (geteuid() != 0) {
    fs::create_directory(dir / "locked");
    chmod((dir / "locked").c_str(), 0500);
    error(dir.path() / "locked" / "m.onnx");
  }
}

// A limit on the size of files stands for a full disk: the same code path, without one.
TEST_CASE("a full disk: the old file stays, nothing is left over, bytes needed are named") {
  test::TempDir dir;
  test::WriteFile(dir / "m.onnx", "old");
  for (const ExternalData external : {ExternalData::kNever, ExternalData::kAlways}) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      std::signal(SIGXFSZ, SIG_IGN);
      const rlimit limit{4096, 4096};
      setrlimit(RLIMIT_FSIZE, &limit);
      int result = 1;
      try {
        WriteModel(ThreeSizes(), dir / "m.onnx", external);
      } catch (const UserError& error) {
        const bool good = error.code == ErrorCode::kWrite &&
                          error.Line().find("bytes needed") != std::string::npos;
        result = good ? 0 : 2;
      }
      _exit(result);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    CHECK(Listing(dir.path()) == std::set<std::string>{"m.onnx"});
    CHECK(test::ReadFile(dir / "m.onnx") == "old");
  }
}

TEST_CASE("kAuto goes external above the limit only, kNever refuses 2 GiB") {
  test::TempDir dir;
  const auto model_of = [](int64_t bytes) {
    Model model = ThreeSizes();
    model.graph().AddInitializer(
        "big", Tensor::FromBytes(DType::kUint8, {bytes},
                                 std::vector<std::byte>(static_cast<size_t>(bytes))));
    return model;
  };
  CHECK(StagedModel(model_of(60 << 20), dir / "m.onnx").data_path().empty());
  CHECK_FALSE(StagedModel(model_of(64 << 20), dir / "m.onnx").data_path().empty());
  CHECK(StagedModel(model_of(64 << 20), dir / "m.onnx", ExternalData::kNever).data_path().empty());
}

TEST_CASE("an external file of 4.4 GB is read and written in little memory") {
  test::TempDir dir;
  constexpr int64_t kRows = 1'100'000, kBytes = kRows * 4 * 1000;
  const fs::path data = dir / "w.bin";
  test::WriteFile(data, "");
  REQUIRE(truncate(data.c_str(), kBytes + 100) == 0);  // a hole
  // Marks beyond 4 GiB, at an offset that no 32-bit number holds.
  const float mark[2] = {42, 43};
  const int fd = open(data.c_str(), O_WRONLY);
  REQUIRE(pwrite(fd, mark, sizeof mark, 100 + kBytes - 8) == sizeof mark);
  close(fd);
  onnx::ModelProto proto = test::SmallProto();
  auto& weight = *proto.mutable_graph()->add_initializer();
  weight.set_name("big");
  weight.set_data_type(onnx::TensorProto::FLOAT);
  weight.add_dims(kRows);
  weight.add_dims(1000);
  weight.set_data_location(onnx::TensorProto::EXTERNAL);
  const auto add = [&](const char* key, const std::string& value) {
    weight.add_external_data()->set_key(key);
    weight.mutable_external_data(weight.external_data_size() - 1)->set_value(value);
  };
  add("location", "w.bin");
  add("offset", "100");
  add("length", std::to_string(kBytes));
  auto& tail = *proto.mutable_graph()->add_initializer();
  tail = weight;
  tail.set_name("tail");
  tail.clear_dims();
  tail.add_dims(2);
  tail.mutable_external_data(1)->set_value(std::to_string(kBytes + 92));
  tail.mutable_external_data(2)->set_value("8");
  test::WriteFile(dir / "m.onnx", proto.SerializeAsString());

  const bool can_reset = ResetPeakMemory();
  const uint64_t before = PeakMemory();
  const Model model = ReadModel(dir / "m.onnx");
  const std::vector<float> read = model.graph().FindValue("tail")->initializer()->ToFloats();
  CHECK(read == std::vector<float>{42, 43});
  ErrorOf(ErrorCode::kUnsupported,
          [&] { WriteModel(model, dir / "never.onnx", ExternalData::kNever); });
  ErrorOf(ErrorCode::kLimit, [&] { SerializeModel(model); });
  WriteModel(model, dir / "out.onnx");
  if (can_reset) CHECK(PeakMemory() - before < 200ull << 20);

  const Model again = ReadModel(dir / "out.onnx");
  const Tensor& big = *again.graph().FindValue("big")->initializer();
  CHECK(big.bytes().size() == static_cast<size_t>(kBytes));
  std::vector<float> last(2);
  std::memcpy(last.data(), big.bytes().last(8).data(), 8);
  CHECK(last == std::vector<float>{42, 43});
  CHECK(again.graph().FindValue("tail")->initializer()->ToFloats() == read);
}

TEST_CASE("an engine gets large weights from memory") {
  const Model model = ThreeSizes();
  std::vector<LeftOutTensor> left_out;
  onnx::ModelProto proto;
  REQUIRE(proto.ParseFromString(SerializeModelWithoutWeights(model, 1000, left_out)));
  REQUIRE(left_out.size() == 2);
  CHECK(left_out[0].name == "w300");
  CHECK(left_out[1].tensor.SharesBytesWith(*model.graph().FindValue("w2000")->initializer()));
  CHECK(proto.graph().initializer(0).raw_data().size() == 400);
  CHECK(proto.graph().initializer(1).data_location() == onnx::TensorProto::EXTERNAL);
  CHECK_FALSE(proto.graph().initializer(1).has_raw_data());
  CHECK(proto.graph().initializer(1).dims(0) == 300);
  left_out.clear();
  SerializeModelWithoutWeights(model, 1 << 20, left_out);
  CHECK(left_out.empty());
}

}  // namespace sparsefuse
