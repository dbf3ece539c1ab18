// ONNX Runtime behind a small interface: the only place that knows its inference interface. All
// errors of ONNX Runtime are UserError E_ENGINE with a one-line reason (its text, cut and without
// its build paths). It prints nothing itself.

#ifndef SPARSEFUSE_PASSES_ENGINE_ENGINE_H_
#define SPARSEFUSE_PASSES_ENGINE_ENGINE_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "onnx_io/model.h"
#include "passes/data/dataset.h"

namespace sparsefuse {

enum class Device {
  kCpu,
  kCuda,  // ONNX Runtime's CUDA provider on its first GPU; what it cannot run, on the CPU
};

struct SessionOptions {
  int threads = 1;                         // intra-op; inter-op is always 1
  std::filesystem::path operator_library;  // registered if not empty
  bool optimize = true;                    // false: ORT_DISABLE_ALL
  std::string gate;  // SPARSEFUSE_GATE for this session's operators; empty: as the environment says
  bool lean = false;  // no packed copies of weights, no memory kept; slower
  Device device = Device::kCpu;
};

struct Port {
  std::string name;
  ValueType type;
};

struct Latency {
  double min_ms, median_ms, p95_ms;
  int64_t runs;
};

struct TimingOptions {
  int warmup = 3;
  int min_runs = 20;
  double min_seconds = 0.3;   // per session, at least
  double max_seconds = 10.0;  // per session, gives up early after 3 runs
};

// A loaded model. Run may be called from several threads at a time.
class Session {
 public:
  // From memory; weights are not copied twice. `model` may be discarded afterwards. E_UNSUPPORTED:
  // this ONNX Runtime has no CUDA provider.
  Session(const Model& model, const SessionOptions& options);
  // From a file, as a user would load it (external data beside it).
  Session(const std::filesystem::path& path, const SessionOptions& options);
  ~Session();
  Session(Session&&) noexcept;

  const std::vector<Port>& inputs() const;   // without initializers that may be overridden
  const std::vector<Port>& outputs() const;  // ONNX Runtime's own inferred types; it shows scalars
                                             // and unknown ranks alike: has_shape is false for both

  // The named outputs (all if empty), in that order. Feeds for inputs that the model does not have
  // are ignored; their bytes are used in place. The results are independent of feeds and session.
  // E_UNSUPPORTED: an output that is no tensor (sequence, map), a feed of strings.
  std::vector<Tensor> Run(const Feeds& feeds, std::span<const std::string> outputs = {}) const;

 private:
  friend std::vector<Latency> TimeInterleaved(std::span<const Session* const>, const Feeds&,
                                              const TimingOptions&);
  struct State;
  std::unique_ptr<State> state_;
};

// Version of the loaded ONNX Runtime library, "1.31.1".
std::string EngineVersion();

// A copy of `model` whose outputs are its own followed by `values` (names in the main graph), so
// that a session of it returns intermediate tensors.
Model WithOutputs(const Model& model, std::span<const std::string> values);

// ONNX Runtime's inferred element types and shapes of every value in the main graph (graph inputs
// as declared, initializers as they are); values that it cannot type or that are no tensors are
// left out. A scalar has has_shape only if the model declares it. Runs nothing.
std::vector<Port> InferTypes(const Model& model, const SessionOptions& options);

// Runs `samples` of `data` in batches of at most `batch` (the data's fixed batch wins), memory
// bounded by one batch; visit(outputs, samples of this batch). If a run fails the error names its
// samples. Where the last samples do not fill a fixed batch the last one is repeated, and the rows
// that this adds to outputs whose first axis is the batch are cut off again.
void ForEachBatch(
    const Session& session, const Dataset& data, std::span<const int64_t> samples, int64_t batch,
    std::span<const std::string> outputs,
    const std::function<void(std::span<const Tensor>, std::span<const int64_t>)>& visit);

// The same through several models, each batch through all of them: visit(outputs of each session,
// samples of this batch).
using VisitBatch =
    std::function<void(std::span<const std::vector<Tensor>>, std::span<const int64_t>)>;
void ForEachBatch(std::span<const Session* const> sessions, const Dataset& data,
                  std::span<const int64_t> samples, int64_t batch,
                  std::span<const std::string> outputs, const VisitBatch& visit);

// Interleaved A/B/C, B/C/A, …: the only honest way to compare on a shared machine. All outputs,
// feeds prepared before, every session run equally often.
std::vector<Latency> TimeInterleaved(std::span<const Session* const> sessions, const Feeds& feeds,
                                     const TimingOptions& options = {});

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_ENGINE_ENGINE_H_
