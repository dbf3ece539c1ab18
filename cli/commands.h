// The verbs. Each prints its result to stdout and throws UserErrors; a missed goal is one, thrown
// after the result is saved and shown.

#ifndef SPARSEFUSE_CLI_COMMANDS_H_
#define SPARSEFUSE_CLI_COMMANDS_H_

#include "cli/command_line.h"

namespace sparsefuse {

void Run(const HelpOptions& options);
void Run(const VersionOptions& options);
void Run(const CompressOptions& options);
void Run(const AnalyzeOptions& options);
void Run(const CompileOptions& options);
void Run(const EvalOptions& options);
void Run(const BenchmarkOptions& options);
void Run(const InspectOptions& options);
void Run(const PassesOptions& options);
void Run(const KernelsOptions& options);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_CLI_COMMANDS_H_
