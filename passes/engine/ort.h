// Private to passes/engine: ONNX Runtime's C++ interface, initialised by hand so that an old
// library is an error line and no crash.

#ifndef SPARSEFUSE_PASSES_ENGINE_ORT_H_
#define SPARSEFUSE_PASSES_ENGINE_ORT_H_

#ifndef ORT_API_MANUAL_INIT
#define ORT_API_MANUAL_INIT
#endif
#include <onnxruntime_cxx_api.h>

#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "onnx_io/writer.h"
#include "passes/engine/engine.h"

namespace sparsefuse {

// The process's only ONNX Runtime environment; it logs nothing. E_ENGINE if the library is too old.
const Ort::Env& Environment();

// ONNX Runtime's message as one line of at most 300 bytes, without the paths and signatures of the
// functions that raised it.
std::string CleanReason(std::string_view message);

// Calls `body`; ONNX Runtime's exceptions become E_ENGINE.
template <typename Body>
auto WithEngineErrors(Body&& body) {
  try {
    return body();
  } catch (const Ort::Exception& error) {
    throw UserError(ErrorCode::kEngine, CleanReason(error.what()));
  }
}

// A run made ready, so that it can be timed without the preparation. Used by one thread, while the
// session lives.
struct PreparedRun {
  std::vector<Tensor> tensors;  // own what `values` point to
  std::vector<const char*> input_names, output_names;
  std::vector<Ort::Value> values;
};

struct Session::State {
  std::vector<LeftOutTensor> weights;  // read in place by `session`, so declared before it
  Ort::Session session{nullptr};
  std::vector<Port> inputs, outputs;
  std::unordered_set<std::string> feedable;  // inputs and initializers that may be overridden

  void ReadPorts();
  // The names must outlive the result. All outputs if `names` is empty.
  PreparedRun Prepare(const Feeds& feeds, std::span<const std::string> names);
  std::vector<Ort::Value> Run(PreparedRun& run);
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_ENGINE_ORT_H_
