// The configuration of a run: file or preset, with the flags over it.

#ifndef SPARSEFUSE_CLI_COMPRESS_CONFIG_H_
#define SPARSEFUSE_CLI_COMPRESS_CONFIG_H_

#include "cli/command_line.h"
#include "passes/framework/config.h"

namespace sparsefuse {

// UserErrors of LoadConfig and LoadPreset; E_USAGE and E_CONFIG for goals that this run could not
// check, and when no model is named.
Config ConfigOf(const CompressOptions& options);

// Nodes that the command line excludes. E_USAGE for what is no expression.
NodePatterns ExcludedNodes(const std::vector<std::string>& expressions);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_CLI_COMPRESS_CONFIG_H_
