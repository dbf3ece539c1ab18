#include "cli/console.h"

#include <fcntl.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "onnx_io/error.h"

namespace sparsefuse {
namespace {

constexpr const char* kWipeLine = "\r\x1b[K";

bool progress_shown = false;

}  // namespace

void OpenStandardStreams() {
  for (int fd = 0; fd <= STDERR_FILENO; ++fd) {
    if (fcntl(fd, F_GETFD) >= 0) continue;
    // The lowest free number, so this one. Standard output stays unwritable: that is an error
    // later.
    if (open("/dev/null", fd == STDERR_FILENO ? O_WRONLY : O_RDONLY) != fd) std::abort();
  }
}

void SetUpLogging(const CommonOptions& options) {
  auto terminal = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  terminal->set_level(options.verbosity < 0   ? spdlog::level::err
                      : options.verbosity > 0 ? spdlog::level::debug
                                              : spdlog::level::warn);
  const bool may_overwrite_progress = isatty(STDERR_FILENO) && options.progress;
  terminal->set_pattern(
      fmt::format("{}sparsefuse: %l: %v", may_overwrite_progress ? kWipeLine : ""));
  std::vector<spdlog::sink_ptr> sinks{terminal};
  if (!options.log_file.empty()) {
    try {
      auto file = std::make_shared<spdlog::sinks::basic_file_sink_mt>(options.log_file.string());
      file->set_level(spdlog::level::debug);
      file->set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
      sinks.push_back(file);
    } catch (const spdlog::spdlog_ex&) {
      throw UserError(ErrorCode::kWrite, "the log cannot be written there")
          .InFile(options.log_file.string());
    }
  }
  auto logger = std::make_shared<spdlog::logger>("sparsefuse", sinks.begin(), sinks.end());
  logger->set_level(spdlog::level::debug);
  logger->flush_on(spdlog::level::debug);
  spdlog::set_default_logger(std::move(logger));
}

void Print(std::string_view text) {
  ClearProgress();
  errno = 0;
  const bool whole = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (!whole || std::fflush(stdout) != 0) {
    throw UserError(ErrorCode::kWrite,
                    fmt::format("standard output cannot be written: {}", std::strerror(errno)));
  }
}

std::string JsonText(const nlohmann::ordered_json& document) {
  return document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

void PrintJson(const nlohmann::ordered_json& document) { Print(JsonText(document)); }

Progress MakeProgress(const CommonOptions& options) {
  if (!isatty(STDERR_FILENO) || !options.progress || options.verbosity < 0) {
    return [](std::string_view, int64_t, int64_t) {};
  }
  struct State {
    std::string step;
    std::chrono::steady_clock::time_point started, shown;
  };
  return [state = State{}](std::string_view step, int64_t done, int64_t total) mutable {
    const std::chrono::steady_clock::time_point now = std::chrono::steady_clock::now();
    if (step != state.step) state = {std::string(step), now, {}};
    if (done >= total) return ClearProgress();
    if (now - state.shown < std::chrono::milliseconds(100)) return;
    state.shown = now;
    const double share = total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 0;
    const double seconds = std::chrono::duration<double>(now - state.started).count();
    std::string line = fmt::format("{}{} {}/{}", kWipeLine, state.step, done, total);
    if (share > 0.02 && seconds > 1) {
      line += fmt::format(" · {:.0f} s left", seconds / share * (1 - share));
    }
    std::fwrite(line.data(), 1, line.size(), stderr);
    progress_shown = true;
  };
}

void ClearProgress() {
  if (progress_shown) std::fputs(kWipeLine, stderr);
  progress_shown = false;
}

}  // namespace sparsefuse
