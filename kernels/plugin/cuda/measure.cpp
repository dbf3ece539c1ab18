#include "kernels/plugin/cuda/measure.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/cuda/code.h"
#include "kernels/plugin/cuda/compiled_code.h"

namespace sparsefuse::plugin {
namespace {

constexpr int kRuns = 51;

void Check(cudaError_t error, const char* step) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string(step) + ": " + cudaGetErrorString(error) + " (" +
                           cudaGetErrorName(error) + ")");
}

class DeviceMemory {
 public:
  explicit DeviceMemory(size_t bytes) : bytes_(bytes) {
    Check(cudaMalloc(&data_, std::max<size_t>(bytes, 1)), "allocating memory on the device");
  }
  // Filled with as much of `from` as there is, again and again.
  DeviceMemory(size_t bytes, std::span<const std::byte> from) : DeviceMemory(bytes) {
    for (size_t at = 0; at < bytes; at += from.size()) {
      Check(cudaMemcpy(as<std::byte>() + at, from.data(), std::min(from.size(), bytes - at),
                       cudaMemcpyHostToDevice),
            "copying to the device");
    }
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory() { cudaFree(data_); }

  void Clear() { Check(cudaMemset(data_, 0, bytes_), "clearing memory on the device"); }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  size_t bytes_;
  void* data_ = nullptr;
};

class Event {
 public:
  Event() { Check(cudaEventCreate(&event_), "making an event"); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { cudaEventDestroy(event_); }

  void Record() { Check(cudaEventRecord(event_, nullptr), "recording an event"); }
  void Wait() { Check(cudaEventSynchronize(event_), "running"); }
  float MillisecondsSince(const Event& before) const {
    float time = 0;
    Check(cudaEventElapsedTime(&time, before.event_, event_), "reading the time");
    return time;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

// Random bits, of which each word keeps some and has others set. 16 MiB, which then repeat.
DeviceMemory RandomMemory(size_t bytes, uint32_t keep, uint32_t set) {
  std::vector<uint32_t> words(std::min<size_t>(bytes / 4 + 1, 1 << 22));
  uint32_t state = 1;
  for (uint32_t& word : words) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    word = (state & keep) | set;
  }
  return {bytes, std::as_bytes(std::span(words))};
}

double Measure(const CudaMeasurement& what) {
  Check(cudaSetDevice(what.device), "choosing the device");
  int32_t workers = 0;
  Check(cuda::SuggestWorkers(&workers), "reading the device's size");
  cuda::Code code;  // before all memory: freeing that waits for kernels that still run
  const cuda::Plan plan = cuda::MakePlan(what.shape, what.blocks, workers, what.tile_panels);
  bool has_tile = plan.shared_panels == what.tile_panels;
  cuda::MadeKernels made;
  if (what.code) {
    Check(code.Load(what.code), "loading the code");
    const cuda::Code::Found found = code.Find(what.shape, plan, what.activation, what.half);
    has_tile = has_tile && found.made.prefill && found.tile_panels == what.tile_panels;
    made = found.made;
  }
  if (!has_tile) throw std::runtime_error("there is no kernel with such tiles for the layer");

  const LinearShape& shape = what.shape;
  const size_t groups = static_cast<size_t>(plan.group_ptr.back());
  const size_t element = what.half ? 2 : 4;
  const auto elements = [&](int64_t columns) {
    return static_cast<size_t>(what.rows * columns) * element;
  };
  const DeviceMemory weight =
      RandomMemory(groups * static_cast<size_t>(GroupBytes(shape.encoding)), ~uint32_t{0}, 0);
  // Of either sign and a magnitude from 1/8 to 2.
  const DeviceMemory x = what.half ? RandomMemory(elements(shape.inputs), 0x8fff8fff, 0x30003000)
                                   : RandomMemory(elements(shape.inputs), 0x81ffffff, 0x3e000000);
  const DeviceMemory y(elements(shape.outputs));
  DeviceMemory scale_code(static_cast<size_t>(plan.scale_ptr.back() * kPanelOutputs));
  DeviceMemory bias(static_cast<size_t>(shape.outputs) * sizeof(float));
  scale_code.Clear();
  bias.Clear();
  const std::span quads(what.blocks.quad, shape.sparse ? groups * kGroupQuads : 0);
  const DeviceMemory quad(quads.size_bytes(), std::as_bytes(quads));
  const DeviceMemory prepared(cuda::PreparedBytes(plan));
  cuda::Layer layer{};
  Check(cuda::Prepare(
            {.shape = shape,
             .weight = weight.as<std::byte>(),
             .scale_code = scale_code.as<uint8_t>(),
             .scale_base = 0x1p-20f,
             .bias = bias.as<float>(),
             .smooth = nullptr,
             .blocks = {.quad = shape.sparse ? quad.as<uint16_t>() : nullptr, .group_ptr = nullptr},
             .gate = nullptr},
            plan, prepared.as<std::byte>(), nullptr, &layer),
        "preparing the layer");
  Check(cudaStreamSynchronize(nullptr), "preparing the layer");
  layer.made = made;
  const DeviceMemory workspace(cuda::WorkspaceBytes(layer, what.rows));
  const auto run = [&] {
    Check(cuda::Linear(layer,
                       {.rows = what.rows,
                        .x = x.as<void>(),
                        .y = y.as<void>(),
                        .half = what.half,
                        .activation = what.activation,
                        .workspace = workspace.as<std::byte>()},
                       nullptr),
          "launching its kernels");
  };
  std::vector<Event> events(kRuns + 1);
  // Nothing is waited for between runs: the device shall not wait for the host to launch.
  for (int i = 0; i < kRuns; ++i) run();
  events.front().Record();
  for (int i = 0; i < kRuns; ++i) {
    run();
    events[static_cast<size_t>(i) + 1].Record();
  }
  events.back().Wait();
  std::vector<float> times;
  for (size_t i = 1; i < events.size(); ++i) {
    times.push_back(events[i].MillisecondsSince(events[i - 1]));
  }
  std::nth_element(times.begin(), times.begin() + kRuns / 2, times.end());
  const double median = 1e3 * times[kRuns / 2];
  if (!(median > 0)) throw std::runtime_error("the device's clock stands still");
  return median;
}

CudaOutcome Failed(const char* why, CudaFault& fault, CudaOutcome outcome = CudaOutcome::kFailed) {
  std::snprintf(fault.data(), fault.size(), "%s", why);
  return outcome;
}

}  // namespace

CudaOutcome FindDevices(CudaDevices& devices, CudaFault& fault) noexcept {
  devices = {};
  fault = {};
  int count = 0;
  // Whatever the reason: nothing was found yet that could fail.
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    return Failed(error != cudaSuccess ? cudaGetErrorString(error) : "the driver finds none", fault,
                  CudaOutcome::kNoDevice);
  }
  try {
    int number = 0;
    for (auto& [architecture, name] : devices.device) {
      if (number == count) break;
      cudaDeviceProp properties{};
      Check(cudaGetDeviceProperties(&properties, number), "reading the device's name");
      const cuda::Device device = {.major = properties.major, .minor = properties.minor};
      std::snprintf(architecture, sizeof architecture, "%s", ArchitectureOf(device).c_str());
      std::snprintf(name, sizeof name, "%s", properties.name);
      devices.count = ++number;
    }
    return CudaOutcome::kDone;
  } catch (const std::exception& e) {
    return Failed(e.what(), fault);
  }
}

CudaOutcome MeasureLayer(const CudaMeasurement& what, double& microseconds,
                         CudaFault& fault) noexcept {
  microseconds = 0;
  fault = {};
  try {
    microseconds = Measure(what);
    return CudaOutcome::kDone;
  } catch (const std::exception& e) {
    return Failed(e.what(), fault);
  }
}

}  // namespace sparsefuse::plugin
