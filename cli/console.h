// What the program shows: results on stdout, logs and progress on stderr.

#ifndef SPARSEFUSE_CLI_CONSOLE_H_
#define SPARSEFUSE_CLI_CONSOLE_H_

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "cli/command_line.h"
#include "passes/framework/context.h"

namespace sparsefuse {

// Opens what the caller closed of the three standard streams, so that no file of ours gets such a
// number and then our messages. First thing in main.
void OpenStandardStreams();

// Warnings to stderr (-q: errors only, -v: everything), everything to the log file if one is named.
// UserError E_WRITE if that cannot be opened.
void SetUpLogging(const CommonOptions& options);

// To stdout, at once. UserError E_WRITE when it is closed or full: a result that nobody got is no
// success.
void Print(std::string_view text);
// Indented, with a line end; bytes that are no UTF-8 replaced.
std::string JsonText(const nlohmann::ordered_json& document);
void PrintJson(const nlohmann::ordered_json& document);

// One line on the terminal that is written over: step, share done, time left. Does nothing unless
// stderr is a terminal and `options` allow it.
Progress MakeProgress(const CommonOptions& options);
// Wipes that line; before anything else is shown.
void ClearProgress();

}  // namespace sparsefuse

#endif  // SPARSEFUSE_CLI_CONSOLE_H_
