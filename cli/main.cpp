// The recipe, the only catch of errors and the only exit codes.

#include <cstdio>
#include <new>
#include <nlohmann/json.hpp>
#include <variant>

#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/signals.h"
#include "cli/system.h"
#include "onnx_io/error.h"

namespace sparsefuse {
namespace {

// One line on stderr, as text or as a JSON object; returns the exit code.
int Report(const UserError& error, bool json) {
  const int exit_code = ExitCode(error.code);
  std::string line;
  if (json) {
    const nlohmann::ordered_json object = {{"error",
                                            {{"code", ErrorName(error.code)},
                                             {"exit", exit_code},
                                             {"file", error.file},
                                             {"where", error.where},
                                             {"message", error.message},
                                             {"hint", error.hint}}}};
    line = object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  } else {
    line = fmt::format("sparsefuse: error[{}]: {}", ErrorName(error.code), error.Line());
  }
  line += '\n';
  ClearProgress();
  std::fwrite(line.data(), 1, line.size(), stderr);
  return exit_code;
}

int Main(int argc, const char* const* argv) {
  const bool json = WantsJson(argc, argv);
  try {
    OpenStandardStreams();
    InstallSignalHandlers();
    GiveFreedMemoryBack();
    const Command command = ParseCommandLine(argc, argv);
    std::visit(
        [](const auto& options) {
          SetUpLogging(options.common);
          Run(options);
        },
        command);
    return 0;
  } catch (const UserError& error) {
    return Report(error, json);
  } catch (const std::bad_alloc&) {
    return Report({ErrorCode::kLimit, "out of memory", "use a machine with more, or fewer threads"},
                  json);
  } catch (const std::exception& error) {
    return Report({ErrorCode::kInternal, error.what(),
                   "this is a bug of sparsefuse; please report it with the command that led here"},
                  json);
  }
}

}  // namespace
}  // namespace sparsefuse

int main(int argc, char** argv) { return sparsefuse::Main(argc, argv); }
