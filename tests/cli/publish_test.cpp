// Where results go, and that they get there whole or not at all.

#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>
#include <thread>

#include "onnx_io/reader.h"
#include "onnx_io/writer.h"
#include "tests/cli/fixtures.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

RunResult Succeed(const std::vector<std::string>& arguments) {
  RunResult run = RunTool(arguments);
  INFO(run.err);
  CHECK(run.exit_code == 0);
  return run;
}

TEST_CASE("a result is a folder with model, configuration, metrics and library") {
  const Workplace work;
  const RunResult run = Succeed(work.Compress(
      {"--calibration-data", work / "calibration.npz", "--eval-data", work / "evaluation.npz"}));
  INFO(run.out);
  for (const char* part :
       {"model     model.onnx", "data      96 samples (fit 57, select 19, audit 20)",
        "evaluation 128 labelled", "fc2 (MatMul): int8 linear 96→32", "accuracy",
        "verified   full"}) {
    CHECK(Contains(run.out, part));
  }
  CHECK(run.err.empty());
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(work / "out")) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  CHECK(names == std::vector<std::string>{"libsparsefuse_ops.so", "metrics.json", "model.onnx",
                                          "resolved_config.json"});
  const Model result = ReadModel(work / "out/model.onnx");
  std::map<std::string, std::string> metadata(result.metadata.begin(), result.metadata.end());
  CHECK(metadata["sparsefuse.verified"] == "full");
  CHECK(metadata["sparsefuse.config_sha256"].size() == 64);
  CHECK(metadata.contains("sparsefuse.version"));
  const json metrics = json::parse(ReadFile(work / "out/metrics.json"));
  CHECK(metrics["changed"] == true);
  CHECK(Contains(metrics.dump(), "of its inputs' codes are 0"));  // of fc2's, after a Relu
  CHECK(metrics["result"]["bytes"] == fs::file_size(work / "out/model.onnx"));
  CHECK(metrics["model"]["bytes"] == fs::file_size(work / "model.onnx"));
  CHECK(metrics["result"]["scores"]["metric"]["name"] == "accuracy");
  CHECK(metrics["result"]["scores"]["metric"]["before"] == Approx(0.9).margin(0.05));
  CHECK(ReadFile(work / "out/libsparsefuse_ops.so") == ReadFile(SPARSEFUSE_OPS_LIBRARY));
}

TEST_CASE("JSON output is one document") {
  const Workplace work;
  const RunResult run =
      Succeed(work.Compress({"--format", "json", "--calibration-data", work / "calibration.npz"}));
  const json document = json::parse(run.out);
  CHECK(document["output"] == work / "out/model.onnx");
  CHECK(document["passes"][0]["done"].size() == 3);  // two layers, and all weights together
  CHECK(document["passes"][0]["done"][2]["subject"] == "model");
  CHECK(document["result"]["scores"]["samples_of"] == "audit split");
  CHECK(document["result"]["verification"]["function_bodies"]["mean_cosine"] > 0.999);
}

TEST_CASE("without data the structure is verified, and said to be no more") {
  const Workplace work;
  const RunResult run = Succeed(work.Compress());
  CHECK(Contains(run.out, "data      none"));
  CHECK(Contains(run.out, "verified   structure only (no calibration data)"));
  const Model result = ReadModel(work / "out/model.onnx");
  CHECK(std::count(result.metadata.begin(), result.metadata.end(),
                   std::pair<std::string, std::string>("sparsefuse.verified", "structure")) == 1);
}

TEST_CASE("a dry run writes nothing") {
  const Workplace work;
  const std::string before = Snapshot(work.path());
  const RunResult human =
      Succeed(work.Compress({"--dry-run", "--calibration-data", work / "calibration.npz"}));
  CHECK(Contains(human.out, "quantize"));
  CHECK(Contains(human.out, "96 samples"));
  const json plan = json::parse(Succeed(work.Compress({"--dry-run", "--format", "json"})).out);
  CHECK(plan["dry_run"] == true);
  CHECK(plan["config"]["passes"][0]["type"] == "quantize");
  CHECK(Snapshot(work.path()) == before);
}

TEST_CASE("an existing result needs --overwrite, other files are left alone") {
  const Workplace work;
  fs::create_directory(work / "out");
  WriteFile(work / "out/notes.txt", "mine");
  Succeed(work.Compress());
  const std::string before = Snapshot(work / "out");
  CheckFails(work.Compress(), "E_OUTPUT_EXISTS", 6, "--overwrite");
  CHECK(Snapshot(work / "out") == before);
  Succeed(work.Compress({"--overwrite", "--emit", "standard"}));
  CHECK(Snapshot(work / "out") != before);
  CHECK(ReadFile(work / "out/notes.txt") == "mine");
}

TEST_CASE("the output never replaces the input, by whatever name") {
  const Workplace work;
  const std::string bytes = ReadFile(work / "model.onnx");
  fs::create_directory(work / "same");
  fs::copy_file(work / "model.onnx", work / "same/model.onnx");
  fs::create_directory(work / "hard");
  fs::create_hard_link(work / "model.onnx", work / "hard/model.onnx");
  fs::create_directory(work / "soft");
  fs::create_symlink(work / "model.onnx", work / "soft/model.onnx");
  fs::create_directory_symlink(work / "same", work / "linked");
  const auto fails = [&](const std::string& model, const std::string& output) {
    CheckFails({"compress", "-m", model, "-o", output, "--overwrite"}, "E_USAGE", 2,
               "would replace the input");
  };
  fails(work / "same/model.onnx", work / "same");
  fails(work / "same/model.onnx", work / "same/");
  fails(work / "same/model.onnx", work / "linked/../same/.");
  fails(work / "linked/model.onnx", work / "same");
  fails(work / "model.onnx", work / "hard");
  fails(work / "model.onnx", work / "soft");
  CHECK(ReadFile(work / "model.onnx") == bytes);
}

TEST_CASE("a symbolic link in the way is replaced, not followed") {
  const Workplace work;
  fs::create_directory(work / "out");
  WriteFile(work / "precious", "mine");
  fs::create_symlink(work / "precious", work / "out/model.onnx");
  Succeed(work.Compress({"--overwrite"}));
  CHECK(ReadFile(work / "precious") == "mine");
  CHECK_FALSE(fs::is_symlink(work / "out/model.onnx"));
}

TEST_CASE("outputs that cannot be written") {
  const Workplace work;
  WriteFile(work / "file", "");
  CheckFails({"compress", "-m", work / "model.onnx", "-o", work / "file"}, "E_WRITE", 6,
             "is not a folder");
  CheckFails({"compress", "-m", work / "model.onnx", "-o", work / "file/below"}, "E_WRITE", 6,
             "is not a folder");
  CheckFails({"inspect", work / "model.onnx", "--log-file", work / "file/log"}, "E_WRITE", 6,
             "file/log");
  // A file system that lets nobody make folders.
  const RunResult run = RunTool({"compress", "-m", work / "model.onnx", "-o", "/proc/out"});
  CHECK(run.exit_code == 6);
  CHECK(Contains(run.err, "/proc"));
  fs::create_directories(work / "out/model.onnx");
  CheckFails(work.Compress({"--overwrite"}), "E_WRITE", 6, "out/model.onnx");
}

TEST_CASE("a folder that another run writes to is busy") {
  const Workplace work;
  fs::create_directory(work / "out");
  const int directory = open((work / "out").c_str(), O_RDONLY | O_DIRECTORY);
  REQUIRE(flock(directory, LOCK_EX | LOCK_NB) == 0);
  const RunResult run = RunTool(work.Compress({"-q"}));
  CHECK(run.exit_code == 11);
  CHECK(run.err.starts_with("sparsefuse: error[" + std::string("E_BUSY") + "]: "));
  CHECK(fs::is_empty(work / "out"));
  close(directory);
  Succeed(work.Compress());
}

// A run of the tool that the test can disturb.
class Process {
 public:
  // `out`, `err`: files for what it prints; null: closed. `limit`: largest file that it may write;
  // 0: any.
  explicit Process(std::vector<std::string> arguments, const char* out = "/dev/null",
                   rlim_t limit = 0, std::string err = "/dev/null") {
    arguments.insert(arguments.begin(), SPARSEFUSE_TOOL);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    // Until exec the child would treat a signal as Catch does, so it gets none.
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    pid_ = fork();
    if (pid_ != 0) {
      sigprocmask(SIG_SETMASK, &before, nullptr);
      return;
    }
    for (int signal : {SIGINT, SIGTERM, SIGHUP}) std::signal(signal, SIG_DFL);
    sigprocmask(SIG_SETMASK, &before, nullptr);
    dup2(open(err.c_str(), O_WRONLY | O_CREAT, 0600), 2);
    if (out) {
      dup2(open(out, O_WRONLY), 1);
    } else {
      close(1);
    }
    if (limit > 0) {
      const rlimit size = {limit, limit};
      setrlimit(RLIMIT_FSIZE, &size);
    }
    execv(argv[0], argv.data());
    _exit(127);
  }
  ~Process() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      Wait();
    }
  }

  void Signal(int signal) const { kill(pid_, signal); }
  bool running() const {
    return waitid(P_PID, static_cast<id_t>(pid_), &info_, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info_.si_pid == 0;
  }
  // Exit code, or −signal.
  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
  mutable siginfo_t info_{};
};

TEST_CASE("a full disk leaves nothing behind") {
  const Workplace work;
  for (const rlim_t limit : {1, 2000, 12000, 20000}) {
    INFO(limit);
    Process run(work.Compress({"-q"}), "/dev/null", limit);
    CHECK(run.Wait() == 6);
    CHECK_FALSE(fs::exists(work / "out"));
  }
  Succeed(work.Compress());
  const std::string before = Snapshot(work / "out");
  Process run(work.Compress({"-q", "--overwrite"}), "/dev/null", 2000);
  CHECK(run.Wait() == 6);
  CHECK(Snapshot(work / "out") == before);
}

TEST_CASE("standard output that takes nothing is an error") {
  const Workplace work;
  CHECK(Process({"inspect", work / "model.onnx"}, "/dev/full").Wait() == 6);
  CHECK(Process({"inspect", work / "model.onnx"}, nullptr).Wait() == 6);
  CHECK(Process({"--help"}, "/dev/full").Wait() == 6);
  // The reader of a pipe is gone.
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  close(ends[0]);
  Process run({"inspect", work / "model.onnx"},
              ("/proc/self/fd/" + std::to_string(ends[1])).c_str());
  CHECK(run.Wait() > 0);
  close(ends[1]);
  // No result of a closed standard output lands in a file.
  CHECK(Process(work.Compress(), nullptr).Wait() == 6);
}

TEST_CASE("interrupted at any moment, a run leaves the old result or the new one") {
  const Workplace work;
  WriteModel(SmallClassifier(2), work / "other.onnx");
  const std::vector<std::string> first =
      work.Compress({"-q", "--calibration-data", work / "calibration.npz"});
  std::vector<std::string> second = first;
  second[2] = work / "other.onnx";
  second.push_back("--overwrite");
  Succeed(second);
  const std::string model_of_second = ReadFile(work / "out/model.onnx");
  fs::remove_all(work / "out");
  Succeed(first);
  const std::string model_of_first = ReadFile(work / "out/model.onnx");
  REQUIRE(model_of_first != model_of_second);

  // Delays spread over a run; the seed of each is its index.
  for (int i = 0; i < 24; ++i) {
    const std::string before = Snapshot(work / "out");
    const int signal = i % 3 == 0 ? SIGINT : i % 3 == 1 ? SIGTERM : SIGKILL;
    Process run(second);
    std::this_thread::sleep_for(std::chrono::milliseconds(15 * i));
    run.Signal(signal);
    const int code = run.Wait();
    INFO("signal " << signal << " after " << 15 * i << " ms, exit " << code);
    const std::string now = ReadFile(work / "out/model.onnx");
    if (code == 0) {
      CHECK(now == model_of_second);
    } else if (signal == SIGKILL) {
      CHECK(code == -SIGKILL);
      CHECK((now == model_of_first || now == model_of_second));
    } else {
      // Before the handler is installed the signal itself ends the process.
      CHECK((code == 128 + signal || code == -signal));
      CHECK((now == model_of_second || Snapshot(work / "out") == before));
    }
    // What a killed run left is gone after the next.
    std::vector<std::string> restore = first;
    restore.push_back("--overwrite");
    Succeed(restore);
    for (const auto& entry : fs::directory_iterator(work / "out")) {
      CHECK_FALSE(Contains(entry.path().filename().string(), ".sparsefuse-"));
    }
  }
}

TEST_CASE("an interrupted run removes the folder that it made") {
  const Workplace work;
  for (int i = 0; i < 12; ++i) {
    std::vector<std::string> arguments = work.Compress({"-q"});
    arguments[4] = work / "new/deep/out";
    Process run(arguments);
    std::this_thread::sleep_for(std::chrono::milliseconds(20 * i));
    run.Signal(SIGTERM);
    const int code = run.Wait();
    INFO("after " << 20 * i << " ms, exit " << code);
    // A signal that comes among the last renames waits for them: then the result is whole.
    if (code == 0 || fs::exists(work / "new/deep/out/model.onnx")) {
      ReadModel(work / "new/deep/out/model.onnx");
      fs::remove_all(work / "new");
    } else {
      CHECK_FALSE(fs::exists(work / "new"));
    }
  }
}

TEST_CASE("external data is published with its model, and superseded with it") {
  const Workplace work;
  WriteFile(work / "fast.json",
            R"({"measure": false, "passes": [{"type": "quantize"}],
                "output": {"external_data": "always"}})");
  const auto data_files = [&] {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(work / "out")) {
      if (entry.path().extension() == ".data") names.push_back(entry.path().filename().string());
    }
    return names;
  };
  Succeed(work.Compress());
  REQUIRE(data_files().size() == 1);
  const std::string old = data_files().front();
  ReadModel(work / "out/model.onnx");
  WriteModel(SmallClassifier(2), work / "model.onnx");
  Succeed(work.Compress({"--overwrite"}));
  REQUIRE(data_files().size() == 1);
  CHECK(data_files().front() != old);
  ReadModel(work / "out/model.onnx");
  // Another model in the folder may need the data: it stays.
  fs::copy_file(work / "out/model.onnx", work / "out/copy.onnx");
  WriteModel(SmallClassifier(3), work / "model.onnx");
  Succeed(work.Compress({"--overwrite"}));
  CHECK(data_files().size() == 2);
  ReadModel(work / "out/copy.onnx");
}

TEST_CASE("a model that changes while it is read is refused") {
  const Workplace work;
  Process run(work.Compress({"-q", "--calibration-data", work / "calibration.npz"}), "/dev/null", 0,
              work / "err");
  // The output folder is made after the model is read.
  for (int i = 0; i < 2000 && !fs::exists(work / "out") && run.running(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  fs::last_write_time(work / "model.onnx", fs::file_time_type::clock::now());
  CHECK(run.Wait() == 5);
  CHECK(ReadFile(work / "err").starts_with("sparsefuse: error[" + std::string("E_CHANGED") + "]"));
  CHECK_FALSE(fs::exists(work / "out"));
}

TEST_CASE("a result that fails its verification is not published") {
  const Workplace work;
  WriteFile(work / "strict.json", R"({"measure": false, "passes": [{"type": "quantize"}],
                                      "verification": {"min_cosine": 1}})");
  const RunResult run =
      RunTool({"compress", "-m", work / "model.onnx", "-o", work / "out", "-c",
               work / "strict.json", "--calibration-data", work / "calibration.npz"});
  CHECK(run.exit_code == 8);
  CHECK(run.err.starts_with("sparsefuse: error[" + std::string("E_VERIFY") + "]: "));
  CHECK_FALSE(fs::exists(work / "out"));
}

TEST_CASE("a missed goal is exit 9, and the result is saved and named") {
  const Workplace work;
  const RunResult run = RunTool(work.Compress({"--target-size", "0.01"}));
  CHECK(run.exit_code == 9);
  CHECK(run.err.starts_with("sparsefuse: error[" + std::string("E_GOAL") +
                            "]: " + (work / "out/model.onnx")));
  CHECK(Contains(run.err, "size_ratio is 0."));
  CHECK(Contains(run.out, "wanted: missed"));
  ReadModel(work / "out/model.onnx");

  const RunResult met = RunTool(work.Compress({"--overwrite", "--max-drop", "0.05", "--target-size",
                                               "0.5", "--eval-data", work / "evaluation.npz"}));
  INFO(met.err);
  CHECK(met.exit_code == 0);
  CHECK(Contains(met.out, "max_drop"));
}

TEST_CASE("nothing to compress is a success that says why") {
  const Workplace work;
  const RunResult run = Succeed(work.Compress({"--op-types-to-exclude", "MatMul"}));
  CHECK(Contains(run.out, "kept fp32  excluded"));
  const json metrics = json::parse(ReadFile(work / "out/metrics.json"));
  CHECK(metrics["changed"] == false);
  CHECK(metrics["kept_fp32"] == "excluded");
  CHECK_FALSE(fs::exists(work / "out/libsparsefuse_ops.so"));
  const RunResult goal = RunTool(
      work.Compress({"--overwrite", "--op-types-to-exclude", "MatMul", "--target-size", "1"}));
  CHECK(goal.exit_code == 9);
}

TEST_CASE("an exclusion that matches nothing is warned about") {
  const Workplace work;
  const RunResult run = Succeed(work.Compress({"--nodes-to-exclude", "fc9"}));
  CHECK(Contains(run.err, "\"fc9\" matches no node"));
  CHECK(Contains(Succeed(work.Compress({"--overwrite", "--nodes-to-exclude", "fc1"})).out,
                 "skipped fc1 (MatMul): excluded"));
}

TEST_CASE("the same again: bytes do not depend on threads, and a result repeats itself") {
  const Workplace work;
  const auto compress = [&](const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> arguments = {"compress", "-o", work / out};
    arguments.insert(arguments.end(), more.begin(), more.end());
    Succeed(arguments);
    return ReadFile(work / (out + "/model.onnx"));
  };
  // Timed: decisions are made and recorded.
  WriteFile(work / "timed.json", R"({"input_model": "model.onnx",
      "calibration_data": {"path": "calibration.npz"}, "passes": [{"type": "quantize"}]})");
  const std::string once = compress("a", {"-c", work / "timed.json", "--threads", "2"});
  const std::string replay = work / "a/resolved_config.json";
  CHECK(compress("b", {"-c", replay}) == once);
  CHECK(compress("c", {"-c", replay, "--threads", "1"}) == once);
  CHECK(compress("d", {"-c", replay, "--threads", "3"}) == once);
  CHECK(ReadFile(work / "b/resolved_config.json") == ReadFile(replay));
  CHECK_FALSE(Contains(ReadFile(replay), work.path().string()));
}

TEST_CASE("dumps show the model after a pass") {
  const Workplace work;
  Succeed(work.Compress({"--dump-after", "quantize"}));
  CHECK(Contains(ReadFile(work / "out/dumps/01-quantize.txt"), "QuantizedLinear8"));
  const RunResult run = RunTool(work.Compress({"--overwrite", "--dump-after", "quantise"}));
  CHECK(run.exit_code == 2);
  CHECK(Contains(run.err, "did you mean \"quantize\"?"));
}

}  // namespace
}  // namespace sparsefuse::test
