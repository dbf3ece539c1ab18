// Gradients as plain ONNX nodes in the model's own graph: any build of ONNX Runtime computes them,
// and forward values are shared, not computed twice.

#ifndef SPARSEFUSE_PASSES_AUTODIFF_GRADIENTS_H_
#define SPARSEFUSE_PASSES_AUTODIFF_GRADIENTS_H_

#include <span>
#include <string>
#include <vector>

#include "onnx_io/model.h"

namespace sparsefuse {

// Where the sweep starts: the gradient of `tensor`, a value of the same type and shape. It counts
// as a constant, even if it was computed from the model's outputs.
struct Seed {
  std::string tensor;
  std::string gradient;  // a value in the main graph; empty: a new graph input
};

// A node that gradients reach and cannot pass.
struct Barrier {
  std::string node;                  // Node::Describe()
  std::string op;                    // with its domain where that is not the default one
  std::string reason;                // "no rule for this operator"
  std::vector<std::string> tensors;  // the wanted ones that influence the seeds through this node
};

struct Gradients {
  // One a wanted tensor: the value that holds Σ over seeds of ∂⟨seed, tensor⟩/∂wanted, shaped like
  // the wanted tensor. Empty where a barrier cuts it, also if only one of several paths leads
  // through the barrier: a part of a gradient is no gradient.
  std::vector<std::string> values;
  std::vector<std::string> seeds;      // one a seed: its gradient value, given or new
  std::vector<Barrier> barriers;       // in graph order
  std::vector<std::string> unrelated;  // wanted tensors that no differentiable path joins to a
                                       // seed: `values` is empty for them too
};

// Adds the nodes to model.graph(), of opset 13 or later (a few rules need 16). `tensors`:
// floating-point values of the main graph (graph inputs, weights, intermediate ones), seen as free
// variables each: the gradient of one that is computed from another includes the paths through it.
// No graph outputs are added (WithOutputs does it) and only what leads from `tensors` to the seeds
// is built. Values inside subgraphs and function bodies are out of reach: If, Loop, Scan and calls
// of functions are barriers.
//
// UserErrors: E_MODEL for a name that is not in the main graph or no floating-point tensor;
// E_UNSUPPORTED for an older opset, and for a model whose types ONNX Runtime cannot infer.
Gradients AddGradients(Model& model, std::span<const std::string> tensors,
                       std::span<const Seed> seeds);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_AUTODIFF_GRADIENTS_H_
