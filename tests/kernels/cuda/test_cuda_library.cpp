// libsparsefuse_cuda.so as a file, on a machine that needs no driver: what it needs and exports,
// and when libsparsefuse_ops.so loads it.

#include <dlfcn.h>
#include <elf.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "kernels/plugin/cuda_library.h"
#include "kernels/plugin/cuda_measure.h"
#include "tests/kernels/plugin_session.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

namespace fs = std::filesystem;

std::string ReadFile(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct Dynamic {
  std::set<std::string> needed, exported;
};

Dynamic ReadDynamic(const fs::path& path) {
  const std::string file = ReadFile(path);
  REQUIRE(file.size() > sizeof(Elf64_Ehdr));
  Elf64_Ehdr header;
  std::memcpy(&header, file.data(), sizeof header);
  std::vector<Elf64_Shdr> sections(header.e_shnum);
  std::memcpy(sections.data(), file.data() + header.e_shoff, sections.size() * sizeof sections[0]);
  Dynamic dynamic;
  for (const Elf64_Shdr& section : sections) {
    if (section.sh_type != SHT_DYNAMIC && section.sh_type != SHT_DYNSYM) continue;
    const char* names = file.data() + sections[section.sh_link].sh_offset;
    for (size_t at = 0; at < section.sh_size; at += section.sh_entsize) {
      const char* entry = file.data() + section.sh_offset + at;
      if (section.sh_type == SHT_DYNAMIC) {
        Elf64_Dyn tag;
        std::memcpy(&tag, entry, sizeof tag);
        if (tag.d_tag == DT_NEEDED) dynamic.needed.insert(names + tag.d_un.d_val);
      } else {
        Elf64_Sym symbol;
        std::memcpy(&symbol, entry, sizeof symbol);
        if (symbol.st_shndx != SHN_UNDEF) dynamic.exported.insert(names + symbol.st_name);
      }
    }
  }
  return dynamic;
}

TEST_CASE("the libraries export what others ask for, and need nothing of CUDA") {
  const Dynamic cuda = ReadDynamic(SPARSEFUSE_CUDA_OPS_LIBRARY);
  CHECK(cuda.exported == std::set<std::string>{"SparsefuseAddCudaOps", "SparsefuseCudaGateCounts",
                                               plugin::kFindCudaDevices,
                                               plugin::kMeasureCudaLayer});
  const Dynamic ops = ReadDynamic(SPARSEFUSE_OPS_LIBRARY);
  CHECK(ops.exported == std::set<std::string>{"RegisterCustomOps", "SparsefuseGateCounts"});
  for (const Dynamic& library : {cuda, ops}) {
    REQUIRE(library.needed.count("libc.so.6") == 1);
    for (const std::string& name : library.needed) {
      INFO(name);
      CHECK(name.find("cuda") == std::string::npos);
      CHECK(name.find("onnxruntime") == std::string::npos);
    }
  }
}

// --- Which operators are added
// --------------------------------------------------------------------

bool has_cuda_provider = true;
std::map<std::string, int> added;  // operators, by provider

std::string Added() {
  std::string text;
  for (const auto& [provider, count] : added) text += provider + " " + std::to_string(count) + " ";
  return text;
}

// ONNX Runtime's table of functions, but that it has a CUDA provider where a test wants it.
const OrtApi* ApiWithProviders() {
  static const OrtApi api = [] {
    OrtApi replaced = Ort::GetApi();
    replaced.GetAvailableProviders = [](char*** names, int* count) noexcept {
      static char cpu[] = "CPUExecutionProvider", cuda[] = "CUDAExecutionProvider";
      static char* all[] = {cuda, cpu};
      *names = has_cuda_provider ? all : all + 1;
      *count = has_cuda_provider ? 2 : 1;
      return static_cast<OrtStatus*>(nullptr);
    };
    replaced.ReleaseAvailableProviders = [](char**, int) noexcept {
      return static_cast<OrtStatus*>(nullptr);
    };
    replaced.CustomOpDomain_Add = [](OrtCustomOpDomain* domain, const OrtCustomOp* op) noexcept {
      const char* provider = op->GetExecutionProviderType(op);
      ++added[provider ? provider : "CPU"];
      return Ort::GetApi().CustomOpDomain_Add(domain, op);
    };
    return replaced;
  }();
  return &api;
}

// The error, or "".
std::string Message(OrtStatus* status) {
  if (!status) return "";
  std::string message = Ort::GetApi().GetErrorMessage(status);
  Ort::GetApi().ReleaseStatus(status);
  return message;
}

// A folder with a copy of the operator library, loaded anew, and whatever else a test puts there.
class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "sparsefuse-cuda-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()));
    path_ = name;
    fs::copy_file(SPARSEFUSE_OPS_LIBRARY, path_ / "libsparsefuse_ops.so");
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    if (library_) dlclose(library_);
    fs::remove_all(path_);
  }

  fs::path cuda_library() const { return path_ / "libsparsefuse_cuda.so"; }

  // The error, or "". Once.
  std::string Register(Ort::SessionOptions& options) {
    added.clear();
    library_ = dlopen((path_ / "libsparsefuse_ops.so").c_str(), RTLD_NOW | RTLD_LOCAL);
    REQUIRE(library_);
    static constexpr OrtApiBase kBase = {[](uint32_t) noexcept { return ApiWithProviders(); },
                                         []() noexcept { return "one with a CUDA provider"; }};
    return Message(reinterpret_cast<OrtStatus* (*)(OrtSessionOptions*, const OrtApiBase*)>(
        dlsym(library_, "RegisterCustomOps"))(options, &kBase));
  }
  std::string Register() {
    Ort::SessionOptions options;
    return Register(options);
  }
  void* library() const { return library_; }

 private:
  fs::path path_;
  void* library_ = nullptr;
};

TEST_CASE("operators of both providers in one domain: the CPU provider's nodes stay right") {
  Folder folder;
  fs::copy_file(SPARSEFUSE_CUDA_OPS_LIBRARY, folder.cuda_library());
  Ort::SessionOptions options = Options(2);
  REQUIRE(folder.Register(options) == "");
  REQUIRE(Added() == "CPU 80 CUDAExecutionProvider 80 ");
  for (const Encoding encoding :
       {Encoding::kInt8, Encoding::kInt4, Encoding::kNested1, Encoding::kNested4}) {
    for (const bool sparse : {false, true}) {
      const LinearLayer layer({210, 77, 2, encoding, sparse}, 1, true);
      const LayerParts parts(layer, Activation::kGelu);
      INFO(parts.op);
      std::vector<float> x = RandomRows(7, 210, 3);
      Ort::Session session = Load(parts.Model(), options);
      CheckAgainst(ExactLinear(layer, x, 7, {}, Activation::kGelu),
                   Run(session, x, {7, 210}).values);
      Ort::Session half = Load(parts.Model(onnx::TensorProto::FLOAT16), options);
      const Output y = RunHalf(half, x, {7, 210});
      CheckAgainst(ExactLinear(layer, x, 7, {}, Activation::kGelu), y.values, true);
    }
  }
  int64_t rows = -1, easy = -1;
  reinterpret_cast<void (*)(int64_t*, int64_t*)>(dlsym(folder.library(), "SparsefuseGateCounts"))(
      &rows, &easy);
  CHECK(rows == 7 * 2 * 4);  // of nested layers, on the CPU
  CHECK(easy == 0);
}

TEST_CASE("nothing of CUDA is loaded without its provider or its library") {
  {
    Folder without_library;
    REQUIRE(without_library.Register() == "");
    REQUIRE(Added() == "CPU 80 ");
  }
  Folder folder;
  std::ofstream(folder.cuda_library()) << "no library";
  has_cuda_provider = false;
  const std::string error = folder.Register();
  has_cuda_provider = true;
  REQUIRE(error == "");
  REQUIRE(Added() == "CPU 80 ");
}

TEST_CASE("a CUDA library that cannot be loaded is an error with the file's name and the reason") {
  Folder folder;
  std::ofstream(folder.cuda_library()) << "no library";
  const std::string error = folder.Register();
  REQUIRE_THAT(error, Catch::Contains(folder.cuda_library().string() + " cannot be loaded: ") &&
                          Catch::Contains("file too short"));
  Folder other;
  fs::copy_file(SPARSEFUSE_OPS_LIBRARY, other.cuda_library());
  REQUIRE_THAT(other.Register(), Catch::Contains(other.cuda_library().string()) &&
                                     Catch::Contains("it lacks SparsefuseAddCudaOps"));
}

TEST_CASE("a CUDA library of another build is refused") {
  void* library = dlopen(SPARSEFUSE_CUDA_OPS_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  REQUIRE(library);  // without a driver
  auto* add = reinterpret_cast<plugin::AddCudaOps*>(dlsym(library, plugin::kAddCudaOps));
  REQUIRE(add);
  OrtCustomOpDomain* domain = nullptr;
  Ort::ThrowOnError(Ort::GetApi().CreateCustomOpDomain("sparsefuse", &domain));
  added.clear();
  REQUIRE_THAT(Message(add("0.0.0 (before)", ApiWithProviders(), domain)),
               Catch::Contains("of build 0.0.0 (before)") &&
                   Catch::Contains(std::string("is of build ") + plugin::Build()));
  CHECK(Added() == "");
  CHECK(Message(add(plugin::Build(), ApiWithProviders(), domain)) == "");
  CHECK(Added() == "CUDAExecutionProvider 80 ");
  Ort::GetApi().ReleaseCustomOpDomain(domain);
  dlclose(library);

  // The same by way of the operator library: a file whose commit is another.
  std::string bytes = ReadFile(SPARSEFUSE_CUDA_OPS_LIBRARY);
  const std::string build = plugin::Build();
  const std::string commit =
      build.substr(build.find('(') + 1, build.find(')') - build.find('(') - 1);
  size_t places = 0;
  for (size_t at = bytes.find(commit); at != std::string::npos; at = bytes.find(commit, at)) {
    bytes.replace(at, commit.size(), std::string(commit.size(), 'x'));
    ++places;
  }
  REQUIRE(places > 0);
  Folder folder;
  std::ofstream(folder.cuda_library(), std::ios::binary) << bytes;
  REQUIRE_THAT(folder.Register(),
               Catch::Contains(folder.cuda_library().string() + ": is of build") &&
                   Catch::Contains("xxxx") && Catch::Contains(build));
}

TEST_CASE("the CUDA library measures for a tool of its own build alone") {
  void* library = dlopen(SPARSEFUSE_CUDA_OPS_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  REQUIRE(library);
  auto* find = reinterpret_cast<plugin::FindCudaDevices*>(dlsym(library, plugin::kFindCudaDevices));
  auto* measure =
      reinterpret_cast<plugin::MeasureCudaLayer*>(dlsym(library, plugin::kMeasureCudaLayer));
  REQUIRE(find);
  REQUIRE(measure);
  plugin::CudaDevices devices{};
  plugin::CudaFault fault{};
  double time = 0;
  CHECK(find("0.0.0 (before)", &devices, &fault) == plugin::CudaOutcome::kFailed);
  CHECK_THAT(fault.data(), Catch::Contains("the tool of build 0.0.0 (before)"));
  const LinearLayer layer({64, 40, 0}, 1);
  plugin::CudaMeasurement what = {
      .device = 0, .shape = layer.shape, .blocks = {}, .rows = 17, .tile_panels = 4};
  fault = {};
  CHECK(measure("0.0.0 (before)", &what, &time, &fault) == plugin::CudaOutcome::kFailed);
  CHECK_THAT(fault.data(), Catch::Contains("the tool of build 0.0.0 (before)"));
  // By its own build: where there is a GPU it says which and times the layer, else why not.
  if (find(plugin::Build(), &devices, &fault) == plugin::CudaOutcome::kDone) {
    CHECK(devices.count > 0);
    CHECK(measure(plugin::Build(), &what, &time, &fault) == plugin::CudaOutcome::kDone);
    CHECK(time > 0);
  } else {
    WARN("no GPU here: " << fault.data());
    CHECK(devices.count == 0);
    CHECK(fault[0] != 0);
    CHECK(measure(plugin::Build(), &what, &time, &fault) == plugin::CudaOutcome::kFailed);
    CHECK_THAT(fault.data(), Catch::Contains("choosing the device: "));
  }
  dlclose(library);
}

}  // namespace
}  // namespace sparsefuse::test
