#include "cli/operator_library.h"

#include <dlfcn.h>
#include <spdlog/spdlog.h>

#include "passes/analysis/inventory.h"

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;

bool IsFile(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

// Empty if it is not installed.
fs::path OwnLibrary() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (error) return {};
  const fs::path folder = program.parent_path();
  for (const fs::path& candidate :
       {folder.parent_path() / "lib" / kOperatorLibraryName, folder / kOperatorLibraryName}) {
    if (IsFile(candidate)) return candidate;
  }
  return {};
}

void RequireFile(const fs::path& named) {
  if (!IsFile(named)) {
    throw UserError(ErrorCode::kRead, "no such operator library").InFile(named.string());
  }
}

}  // namespace

fs::path FindOperatorLibrary(const fs::path& named) {
  if (!named.empty()) {
    RequireFile(named);
    return fs::absolute(named);  // a bare name would be looked for in the system's folders
  }
  fs::path own = OwnLibrary();
  if (own.empty()) {
    throw UserError(ErrorCode::kRead, "the operator library is not beside the tool",
                    "reinstall sparsefuse, or name the file with --operator-library")
        .InFile(std::string(kOperatorLibraryName));
  }
  return own;
}

fs::path FindCudaLibrary(const fs::path& named) {
  const fs::path library = named.empty() ? OwnLibrary() : FindOperatorLibrary(named);
  const fs::path cuda = library.parent_path() / kCudaLibraryName;
  return !library.empty() && IsFile(cuda) ? cuda : fs::path();
}

fs::path OperatorLibraryFor(const Model& model, const fs::path& named) {
  if (!named.empty()) return FindOperatorLibrary(named);
  if (!UsesOperatorLibrary(model)) return {};
  fs::path own = OwnLibrary();
  if (own.empty()) {
    spdlog::warn("{}: {} is not beside the tool; the operators' slower function bodies run instead",
                 model.source, kOperatorLibraryName);
  }
  return own;
}

GateCounts ReadGateCounts(const fs::path& library) {
  GateCounts counts;
  if (library.empty()) return counts;
  void* loaded = dlopen(library.c_str(), RTLD_NOW | RTLD_NOLOAD);
  if (!loaded) return counts;
  if (void* read = dlsym(loaded, "SparsefuseGateCounts")) {
    reinterpret_cast<void (*)(int64_t*, int64_t*)>(read)(&counts.rows, &counts.easy);
  }
  dlclose(loaded);
  return counts;
}

}  // namespace sparsefuse
