#include "passes/engine/engine.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "passes/engine/ort.h"

namespace sparsefuse {
namespace {

// Smaller weights travel inside the serialized model: shape operands and the like, which ONNX
// Runtime wants to see while it loads.
constexpr uint64_t kInPlaceBytes = 1024;

void AddCudaProvider(Ort::SessionOptions& options) {
  const std::vector<std::string> providers = Ort::GetAvailableProviders();
  if (std::find(providers.begin(), providers.end(), "CUDAExecutionProvider") == providers.end()) {
    throw UserError(ErrorCode::kUnsupported,
                    fmt::format("this ONNX Runtime ({}) has no CUDA provider",
                                OrtGetApiBase()->GetVersionString()),
                    "build with a release for GPUs: ONNXRUNTIME_ROOT, docs/building.md");
  }
  OrtCUDAProviderOptionsV2* cuda = nullptr;
  Ort::ThrowOnError(Ort::GetApi().CreateCUDAProviderOptions(&cuda));
  const std::unique_ptr<OrtCUDAProviderOptionsV2, void (*)(OrtCUDAProviderOptionsV2*)> owned(
      cuda, Ort::GetApi().ReleaseCUDAProviderOptions);
  options.AppendExecutionProvider_CUDA_V2(*cuda);
}

Ort::SessionOptions Options(const SessionOptions& options) {
  Ort::SessionOptions result;
  result.SetIntraOpNumThreads(options.threads);
  result.SetInterOpNumThreads(1);
  result.SetExecutionMode(ORT_SEQUENTIAL);
  result.SetGraphOptimizationLevel(options.optimize ? ORT_ENABLE_ALL : ORT_DISABLE_ALL);
  if (options.lean) {
    result.DisableCpuMemArena().DisableMemPattern();
    result.AddConfigEntry("session.disable_prepacking", "1");
  }
  result.SetLogSeverityLevel(ORT_LOGGING_LEVEL_FATAL);
  // Waiting threads would take the cores from other work on a shared machine.
  result.AddConfigEntry("session.intra_op.allow_spinning", "0");
  if (options.device == Device::kCuda) AddCudaProvider(result);
  if (!options.operator_library.empty()) {
    result.RegisterCustomOpsLibrary(options.operator_library.c_str());
  }
  return result;
}

// Operators read SPARSEFUSE_GATE when they are made. Sessions that ask for a mode of their own must
// not be made while other threads make some.
class GateVariable {
 public:
  explicit GateVariable(const std::string& mode) : set_(!mode.empty()) {
    if (!set_) return;
    if (const char* old = std::getenv(kName)) before_ = old;
    setenv(kName, mode.c_str(), 1);
  }
  ~GateVariable() {
    if (!set_) return;
    if (before_) {
      setenv(kName, before_->c_str(), 1);
    } else {
      unsetenv(kName);
    }
  }
  GateVariable(const GateVariable&) = delete;

 private:
  static constexpr const char* kName = "SPARSEFUSE_GATE";
  bool set_;
  std::optional<std::string> before_;
};

// The same tensor, or a copy whose address fits its element type: tensors in mapped files lie at
// any offset.
Tensor Aligned(const Tensor& tensor) {
  const auto width = static_cast<uintptr_t>(std::max(1, DTypeBits(tensor.dtype()) / 8));
  const auto address = reinterpret_cast<uintptr_t>(tensor.bytes().data());
  return address % width == 0 ? tensor
                              : Tensor::FromBytes(tensor.dtype(), tensor.dims(), tensor.bytes());
}

// A view of the tensor's bytes, which must outlive it. ONNX Runtime does not write to them.
Ort::Value ToValue(const Tensor& tensor) {
  static const Ort::MemoryInfo cpu =
      Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault);
  static std::byte nothing;  // an address for tensors without elements
  const std::span<const std::byte> bytes = tensor.bytes();
  return Ort::Value::CreateTensor(cpu,
                                  bytes.empty() ? &nothing : const_cast<std::byte*>(bytes.data()),
                                  bytes.size(), tensor.dims().data(), tensor.dims().size(),
                                  static_cast<ONNXTensorElementDataType>(tensor.dtype()));
}

// Keeps an output alive.
class ValueStorage final : public Storage {
 public:
  ValueStorage(Ort::Value value, size_t size) : value_(std::move(value)), size_(size) {}
  std::span<const std::byte> bytes() const noexcept override {
    return {static_cast<const std::byte*>(value_.GetTensorRawData()), size_};
  }

 private:
  Ort::Value value_;
  size_t size_;
};

ValueType ToValueType(const Ort::ConstTensorTypeAndShapeInfo& info) {
  ValueType type;
  type.dtype = static_cast<DType>(info.GetElementType());
  const std::vector<int64_t> dims = info.GetShape();
  std::vector<const char*> symbols(dims.size());
  if (!dims.empty()) info.GetSymbolicDimensions(symbols.data(), symbols.size());
  // This interface shows a scalar and an unknown rank alike.
  type.has_shape = !dims.empty();
  for (size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] >= 0) {
      type.dims.emplace_back(dims[i]);
    } else {
      type.dims.emplace_back(std::string(symbols[i] ? symbols[i] : ""));
    }
  }
  return type;
}

Port ToPort(std::string name, const Ort::TypeInfo& info) {
  Port port{std::move(name), {}};
  if (info.GetONNXType() == ONNX_TYPE_TENSOR) {
    port.type = ToValueType(info.GetTensorTypeAndShapeInfo());
  }
  return port;
}

Tensor ToTensor(Ort::Value value, const std::string& name,
                const std::function<bool(const void*)>& is_borrowed) {
  if (!value.HasValue() || !value.IsTensor()) {
    throw UserError(ErrorCode::kUnsupported,
                    fmt::format("output \"{}\" is no tensor", Printable(name)));
  }
  const Ort::TensorTypeAndShapeInfo info = value.GetTensorTypeAndShapeInfo();
  const auto dtype = static_cast<DType>(info.GetElementType());
  Dims dims = info.GetShape();
  if (dtype == DType::kString) {
    std::vector<std::string> strings;
    for (size_t i = 0; i < info.GetElementCount(); ++i) {
      strings.push_back(value.GetStringTensorElement(i));
    }
    return Tensor::OfStrings(std::move(dims), std::move(strings));
  }
  const std::optional<int64_t> size = ByteCount(dtype, dims);
  if (!size) {
    throw UserError(ErrorCode::kUnsupported, fmt::format("output \"{}\" has elements of type {}",
                                                         Printable(name), static_cast<int>(dtype)));
  }
  if (*size == 0) return Tensor::FromBytes(dtype, std::move(dims), {});
  const auto* bytes = static_cast<const std::byte*>(value.GetTensorRawData());
  if (is_borrowed(bytes)) {
    return Tensor::FromBytes(dtype, std::move(dims), {bytes, static_cast<size_t>(*size)});
  }
  return Tensor(dtype, std::move(dims),
                std::make_shared<ValueStorage>(std::move(value), static_cast<size_t>(*size)));
}

bool Holds(const Tensor& tensor, const void* address) {
  const std::span<const std::byte> bytes = tensor.bytes();
  const auto* byte = static_cast<const std::byte*>(address);
  return std::greater_equal<>()(byte, bytes.data()) &&
         std::less<>()(byte, bytes.data() + bytes.size());
}

void IgnoreMessage(void*, OrtLoggingLevel, const char*, const char*, const char*, const char*) {}

}  // namespace

const Ort::Env& Environment() {
  // Never destroyed: operator libraries may be unloaded before it at the end of the process.
  static const Ort::Env& environment = *[] {
    const OrtApi* api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (!api) {
      throw UserError(ErrorCode::kEngine,
                      fmt::format("the ONNX Runtime library is version {}, 1.{} or newer is needed",
                                  OrtGetApiBase()->GetVersionString(), ORT_API_VERSION));
    }
    Ort::InitApi(api);
    return new Ort::Env(ORT_LOGGING_LEVEL_FATAL, "sparsefuse", IgnoreMessage, nullptr);
  }();
  return environment;
}

std::string EngineVersion() { return OrtGetApiBase()->GetVersionString(); }

void Session::State::ReadPorts() {
  Ort::AllocatorWithDefaultOptions allocator;
  for (size_t i = 0; i < session.GetInputCount(); ++i) {
    inputs.push_back(
        ToPort(session.GetInputNameAllocated(i, allocator).get(), session.GetInputTypeInfo(i)));
    feedable.insert(inputs.back().name);
  }
  for (size_t i = 0; i < session.GetOverridableInitializerCount(); ++i) {
    feedable.insert(session.GetOverridableInitializerNameAllocated(i, allocator).get());
  }
  for (size_t i = 0; i < session.GetOutputCount(); ++i) {
    outputs.push_back(
        ToPort(session.GetOutputNameAllocated(i, allocator).get(), session.GetOutputTypeInfo(i)));
  }
}

PreparedRun Session::State::Prepare(const Feeds& feeds, std::span<const std::string> names) {
  PreparedRun run;
  for (const auto& [name, tensor] : feeds) {
    const auto known = feedable.find(name);
    if (known == feedable.end()) continue;
    if (DTypeBits(tensor.dtype()) == 0) {
      throw UserError(ErrorCode::kUnsupported,
                      fmt::format("input \"{}\" of type {} cannot be fed", Printable(name),
                                  DTypeName(tensor.dtype())));
    }
    run.tensors.push_back(Aligned(tensor));
    run.values.push_back(ToValue(run.tensors.back()));
    run.input_names.push_back(known->c_str());
  }
  for (const std::string& name : names) run.output_names.push_back(name.c_str());
  for (size_t i = 0; names.empty() && i < outputs.size(); ++i) {
    run.output_names.push_back(outputs[i].name.c_str());
  }
  return run;
}

std::vector<Ort::Value> Session::State::Run(PreparedRun& run) {
  return session.Run(Ort::RunOptions{nullptr}, run.input_names.data(), run.values.data(),
                     run.values.size(), run.output_names.data(), run.output_names.size());
}

Session::Session(const Model& model, const SessionOptions& options)
    : state_(std::make_unique<State>()) {
  const GateVariable gate(options.gate);
  WithEngineErrors([&] {
    const Ort::Env& environment = Environment();
    const std::string bytes = SerializeModelWithoutWeights(model, kInPlaceBytes, state_->weights);
    Ort::SessionOptions ort_options = Options(options);
    std::vector<std::string> names;
    std::vector<Ort::Value> values;
    for (LeftOutTensor& weight : state_->weights) {
      weight.tensor = Aligned(weight.tensor);
      names.push_back(weight.name);
      values.push_back(ToValue(weight.tensor));
    }
    if (!names.empty()) ort_options.AddExternalInitializers(names, values);
    state_->session = Ort::Session(environment, bytes.data(), bytes.size(), ort_options);
    state_->ReadPorts();
  });
}

Session::Session(const std::filesystem::path& path, const SessionOptions& options)
    : state_(std::make_unique<State>()) {
  const GateVariable gate(options.gate);
  try {
    WithEngineErrors([&] {
      const Ort::Env& environment = Environment();
      state_->session = Ort::Session(environment, path.c_str(), Options(options));
      state_->ReadPorts();
    });
  } catch (UserError& error) {
    throw error.InFile(path.string());
  }
}

Session::~Session() = default;
Session::Session(Session&&) noexcept = default;

const std::vector<Port>& Session::inputs() const { return state_->inputs; }
const std::vector<Port>& Session::outputs() const { return state_->outputs; }

std::vector<Tensor> Session::Run(const Feeds& feeds, std::span<const std::string> outputs) const {
  return WithEngineErrors([&] {
    PreparedRun run = state_->Prepare(feeds, outputs);
    std::vector<Ort::Value> values = state_->Run(run);
    // An output that is a feed or a weight passed through shares its bytes, which may go before it.
    const auto is_borrowed = [&](const void* address) {
      return std::any_of(run.tensors.begin(), run.tensors.end(),
                         [&](const Tensor& t) { return Holds(t, address); }) ||
             std::any_of(state_->weights.begin(), state_->weights.end(),
                         [&](const LeftOutTensor& w) { return Holds(w.tensor, address); });
    };
    std::vector<Tensor> tensors;
    for (size_t i = 0; i < values.size(); ++i) {
      tensors.push_back(ToTensor(std::move(values[i]), run.output_names[i], is_borrowed));
    }
    return tensors;
  });
}

}  // namespace sparsefuse
