// Kernels compiled for layers (passes/cuda) against the library's own, bit for bit. Needs a GPU,
// and the code that write_code made for it beside this program.

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/cuda/device_layer.h"
#include "tests/cuda/has_device.h"
#include "tests/cuda/patterns.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

// The code for this device; empty after saying that there is none.
std::string ReadCode() {
  cuda::Device device{};
  SPARSEFUSE_CHECK_CUDA(cuda::FindDevice(&device));
  const std::string name = "compiled_layers-sm_" + std::to_string(device.major) +
                           std::to_string(device.minor) + (device.is_sm90() ? "a" : "") + ".cubin";
  const auto path = std::filesystem::read_symlink("/proc/self/exe").parent_path() / name;
  std::ifstream file(path, std::ios::binary);
  if (!file) WARN("SKIPPED: there is no " << path << "; write_code makes it");
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST_CASE("kernels compiled for a layer give the bits of the library's own") {
  if (!HasDevice()) return;
  const std::string image = ReadCode();
  if (image.empty()) return;
  cuda::Code code;
  SPARSEFUSE_CHECK_CUDA(code.Load(image.data()));
  for (const LinearLayer& layer : CompiledLayers()) {
    for (const bool half : {false, true}) {
      const DeviceLayer made(layer, code, kCompiledActivation, half);
      const DeviceLayer own(layer);
      for (const int64_t rows : {1, 8, 9, 16, 17, 300}) {
        INFO("encoding " << static_cast<int>(layer.shape.encoding) << ", sparse "
                         << layer.shape.sparse << ", scale groups " << layer.shape.scale_groups
                         << ", half " << half << ", rows " << rows);
        const std::vector<float> x = RandomRows(rows, layer.shape.inputs, 3);
        CHECK(made.Run(x, rows, half, kCompiledActivation) ==
              own.Run(x, rows, half, kCompiledActivation));
      }
    }
  }
}

TEST_CASE("code that is none is refused") {
  if (!HasDevice()) return;
  cuda::Code code;
  const std::string nothing(4096, 'x');
  CHECK(code.Load(nothing.data()) != cudaSuccess);
  CHECK(code.Find({64, 32}, {}, Activation::kNone, false).made.decode8 == nullptr);
  cudaGetLastError();
}

}  // namespace
}  // namespace sparsefuse::test
