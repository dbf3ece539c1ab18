// ONNX Runtime behind a small interface: the only place that knows its inference interface. All errors
// are UserError E_ENGINE with a one-line reason (ONNX Runtime's text, cut and without its build
// paths).

#ifndef SPARSEFUSE_PASSES_ENGINE_ENGINE_H_
#define SPARSEFUSE_PASSES_ENGINE_ENGINE_H_

#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "onnx_io/model.h"
#include "passes/data/dataset.h"

namespace sparsefuse {

struct SessionOptions {
  int threads = 1;                         // intra-op; inter-op is always 1
  std::filesystem::path operator_library;  // registered if not empty
  bool optimize = true;                    // false: ORT_DISABLE_ALL
};

struct Port {
  std::string name;
  ValueType type;
};

// A loaded model. Run is const and may be called from one thread at a time.
class Session {
 public:
  // From memory; weights are not copied twice. `model` may be discarded afterwards.
  Session(const Model& model, const SessionOptions& options);
  // From a file, as a user would load it (external data beside it).
  Session(const std::filesystem::path& path, const SessionOptions& options);
  ~Session();
  Session(Session&&) noexcept;

  const std::vector<Port>& inputs() const;   // without initializers that may be overridden
  const std::vector<Port>& outputs() const;  // ONNX Runtime's own inferred types

  // The named outputs (all if empty), in that order. Feeds for inputs that the model does not have are
  // ignored.
  std::vector<Tensor> Run(const Feeds& feeds, std::span<const std::string> outputs = {}) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Version of the loaded ONNX Runtime library, "1.31.1".
std::string EngineVersion();

// A copy of `model` whose outputs are its own followed by `values` (names in the main graph), so that a
// session of it returns intermediate tensors.
Model WithOutputs(const Model& model, std::span<const std::string> values);

// ONNX Runtime's inferred element types and shapes of every value in the main graph; values that it
// optimises away or cannot type are left out. Runs nothing.
std::vector<Port> InferTypes(const Model& model, const SessionOptions& options);

// Runs `samples` of `data` in batches of at most `batch` (the data's fixed batch wins), memory bounded
// by one batch; visit(outputs, samples of this batch). If a batch fails the error names its samples.
void ForEachBatch(const Session& session, const Dataset& data, std::span<const int64_t> samples,
                  int64_t batch, std::span<const std::string> outputs,
                  const std::function<void(std::span<const Tensor>, std::span<const int64_t>)>& visit);

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

// Interleaved A/B/C/A/B/C in one thread: the only honest way to compare on a shared machine.
std::vector<Latency> TimeInterleaved(std::span<const Session* const> sessions, const Feeds& feeds,
                                     const TimingOptions& options = {});

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_ENGINE_ENGINE_H_
