#include "passes/cuda/compiler.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <vector>

#include "kernels/cuda/headers.h"
#include "onnx_io/error.h"

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;

// A new folder that goes with the object.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = (fs::temp_directory_path() / "sparsefuse-cuda-XXXXXX").string();
    if (!mkdtemp(name.data())) {
      throw UserError(ErrorCode::kWrite, fmt::format("cannot be made: {}", std::strerror(errno)),
                      "TMPDIR names another place for temporary files")
          .InFile(name);
    }
    path_ = name;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

void Write(const fs::path& path, std::string_view text) {
  fs::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary);
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  file.close();
  if (!file) {
    throw UserError(ErrorCode::kWrite, "cannot be written",
                    "TMPDIR names another place for temporary files")
        .InFile(path.string());
  }
}

std::string Read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

// Runs the program with its output in `log`; the exit code, or 128 + signal.
int RunProgram(const std::vector<std::string>& arguments, const fs::path& log) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log.c_str(),
                                   O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  // The caller may hold signals back; the program may not.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_t child = 0;
  const int error = posix_spawn(&child, argv[0], &actions, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    throw UserError(ErrorCode::kEngine, fmt::format("cannot be run: {}", std::strerror(error)))
        .InFile(arguments[0]);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Folders of $PATH.
std::vector<fs::path> PathFolders() {
  std::vector<fs::path> folders;
  std::istringstream path(std::getenv("PATH") ? std::getenv("PATH") : "");
  for (std::string folder; std::getline(path, folder, ':');) folders.emplace_back(folder);
  return folders;
}

// The first that can be run; empty if none can.
fs::path FindProgram(const std::vector<fs::path>& folders, std::string_view name) {
  for (const fs::path& folder : folders) {
    if (access((folder / name).c_str(), X_OK) == 0) return folder / name;
  }
  return {};
}

// The first line that says "error" or "fatal", else the first line.
std::string FirstError(const std::string& log) {
  std::istringstream lines(log);
  std::string first;
  for (std::string line; std::getline(lines, line);) {
    if (line.find("error") != std::string::npos || line.find("fatal") != std::string::npos) {
      return line;
    }
    if (first.empty()) first = line;
  }
  return first.empty() ? "it says nothing" : first;
}

}  // namespace

fs::path FindCudaCompiler() {
  std::vector<fs::path> folders;
  if (const char* home = std::getenv("CUDA_HOME"); home && *home) {
    folders = {fs::path(home) / "bin"};
  } else {
    folders = PathFolders();
    folders.emplace_back("/usr/local/cuda/bin");
  }
  const fs::path found = FindProgram(folders, "nvcc");
  if (!found.empty()) return found;
  throw UserError(ErrorCode::kRead, "CUDA's compiler, nvcc, is not found",
                  "install the CUDA Toolkit, or name its folder in CUDA_HOME; without --target the "
                  "model runs on GPUs by the kernels of the library")
      .InFile(folders.back().string());
}

std::string CompileCuda(const fs::path& compiler, std::string_view source,
                        std::string_view architecture) {
  const ScratchFolder scratch;
  for (const cuda::Header& header : cuda::Headers())
    Write(scratch.path() / header.path, header.text);
  const fs::path input = scratch.path() / "model.cu", output = scratch.path() / "model.cubin";
  const fs::path log = scratch.path() / "log";
  Write(input, source);
  std::vector<std::string> arguments = {compiler.string(),
                                        "-std=c++20",
                                        "-O3",
                                        "--expt-relaxed-constexpr",
                                        "-cubin",
                                        fmt::format("-arch={}", architecture),
                                        "-I",
                                        scratch.path().string(),
                                        "-o",
                                        output.string(),
                                        input.string()};
  // nvcc preprocesses by g++ unless told otherwise.
  if (FindProgram(PathFolders(), "g++").empty()) {
    const fs::path clang = FindProgram(PathFolders(), "clang++");
    if (!clang.empty()) arguments.insert(arguments.end(), {"-ccbin", clang.string()});
  }
  const int code = RunProgram(arguments, log);
  std::string bytes = Read(output);
  if (code != 0 || bytes.empty()) {
    throw UserError(
        ErrorCode::kEngine,
        fmt::format("exit code {} for {}: {}", code, architecture, FirstError(Read(log))),
        "CUDA 12.8 or newer and a C++20 host compiler are needed")
        .InFile(compiler.string());
  }
  return bytes;
}

}  // namespace sparsefuse
