// Ctrl-C and termination: temporaries are removed, the exit code is 128 + signal. SIGPIPE and
// SIGXFSZ are ignored, so that a closed pipe or a file size limit becomes an error of write().

#ifndef SPARSEFUSE_CLI_SIGNALS_H_
#define SPARSEFUSE_CLI_SIGNALS_H_

#include <csignal>
#include <filesystem>
#include <string>
#include <string_view>

namespace sparsefuse {

// Handles SIGINT, SIGTERM and SIGHUP on the calling thread, which must be the one that writes
// files: while the handler runs, none is being made.
void InstallSignalHandlers();

// What the handler removes while the object lives (one at a time): every entry of `folder` whose
// name holds `mark`; data files, model-*.data, that were not there when the object was made;
// then `folder` itself and the folders around it, `created` of them, if empty.
class CleanupOnSignal {
 public:
  CleanupOnSignal(const std::filesystem::path& folder, std::string_view mark, int created);
  ~CleanupOnSignal();
  CleanupOnSignal(const CleanupOnSignal&) = delete;
  CleanupOnSignal& operator=(const CleanupOnSignal&) = delete;

 private:
  std::string keep_;  // "/a.data/b.data/": what was there
};

// Signals wait while the object lives: for the few renames that belong together.
class SignalsDeferred {
 public:
  SignalsDeferred();
  ~SignalsDeferred();
  SignalsDeferred(const SignalsDeferred&) = delete;
  SignalsDeferred& operator=(const SignalsDeferred&) = delete;

 private:
  sigset_t before_;
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_CLI_SIGNALS_H_
