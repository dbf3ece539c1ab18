#include "cli/signals.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "onnx_io/error.h"

namespace sparsefuse {
namespace {

// Read by the handler: plain memory, written before `active` is set.
struct Cleanup {
  volatile std::sig_atomic_t active = 0;
  char folder[PATH_MAX];
  char mark[64];
  const char* keep;
  int created;
};
Cleanup cleanup;
pid_t main_thread;

// As the kernel's getdents64 gives it; readdir may allocate, which no handler may.
struct DirectoryEntry {
  uint64_t inode;
  int64_t offset;
  unsigned short length;
  unsigned char type;
  char name[1];
};

bool IsOurs(const char* name) {
  if (std::strstr(name, cleanup.mark)) return true;
  const size_t length = std::strlen(name);
  if (length > NAME_MAX || length < 5 || std::strcmp(name + length - 5, ".data") != 0 ||
      std::strncmp(name, "model-", 6) != 0) {
    return false;
  }
  char entry[NAME_MAX + 3] = "/";
  std::memcpy(entry + 1, name, length);
  std::memcpy(entry + 1 + length, "/", 2);
  return !std::strstr(cleanup.keep, entry);
}

// One pass over the folder; true if something was removed. Entries may move while others are
// removed, so the caller repeats it.
bool RemoveMarked(int directory) {
  alignas(DirectoryEntry) char buffer[8192];
  bool removed = false;
  lseek(directory, 0, SEEK_SET);
  for (;;) {
    const long bytes = syscall(SYS_getdents64, directory, buffer, sizeof buffer);
    if (bytes <= 0) return removed;
    for (long at = 0; at < bytes;) {
      const char* entry = buffer + at;
      unsigned short length;
      std::memcpy(&length, entry + offsetof(DirectoryEntry, length), sizeof length);
      const char* name = entry + offsetof(DirectoryEntry, name);
      if (IsOurs(name) && unlinkat(directory, name, 0) == 0) removed = true;
      at += length;
    }
  }
}

void RemoveAll() {
  const int directory = open(cleanup.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return;
  while (RemoveMarked(directory)) {
  }
  for (int level = 0; level < cleanup.created && rmdir(cleanup.folder) == 0; ++level) {
    char* last = std::strrchr(cleanup.folder, '/');
    if (!last) break;
    *last = '\0';
  }
}

// Only async-signal-safe calls from here on.
void OnSignal(int signal) {
  const int error = errno;
  if (static_cast<pid_t>(syscall(SYS_gettid)) != main_thread) {
    syscall(SYS_tgkill, getpid(), main_thread, signal);
    errno = error;
    return;
  }
  if (cleanup.active) RemoveAll();
  _exit(128 + signal);
}

sigset_t Handled() {
  sigset_t set;
  sigemptyset(&set);
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, signal);
  return set;
}

}  // namespace

void InstallSignalHandlers() {
  main_thread = static_cast<pid_t>(syscall(SYS_gettid));
  struct sigaction action {};
  action.sa_handler = OnSignal;
  action.sa_mask = Handled();
  action.sa_flags = SA_RESTART;
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction before {};
    // What the caller told us to ignore (nohup, a shell's background job) stays ignored.
    if (sigaction(signal, nullptr, &before) == 0 && before.sa_handler == SIG_IGN) continue;
    sigaction(signal, &action, nullptr);
  }
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, nullptr);
  sigaction(SIGXFSZ, &ignore, nullptr);
}

CleanupOnSignal::CleanupOnSignal(const std::filesystem::path& folder, std::string_view mark,
                                 int created) {
  const std::string path = folder.string();
  SF_CHECK(!cleanup.active && !mark.empty() && mark.size() < sizeof cleanup.mark);
  // A longer path could not have been opened either.
  SF_CHECK(path.size() < sizeof cleanup.folder);
  std::memcpy(cleanup.folder, path.c_str(), path.size() + 1);
  std::memcpy(cleanup.mark, mark.data(), mark.size());
  cleanup.mark[mark.size()] = '\0';
  keep_ = "/";
  std::error_code ignored;
  for (std::filesystem::directory_iterator at(folder, ignored), end; at != end;
       at.increment(ignored)) {
    const std::string name = at->path().filename().string();
    if (name.ends_with(".data")) keep_ += name + "/";
  }
  cleanup.keep = keep_.c_str();
  cleanup.created = created;
  cleanup.active = 1;
}

CleanupOnSignal::~CleanupOnSignal() { cleanup.active = 0; }

SignalsDeferred::SignalsDeferred() {
  const sigset_t handled = Handled();
  pthread_sigmask(SIG_BLOCK, &handled, &before_);
}

SignalsDeferred::~SignalsDeferred() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

}  // namespace sparsefuse
