// What one node of a linear operator says about its layer, read and checked for every execution
// provider alike. Nothing is taken on trust: attributes, types, exact sizes and lists of blocks of
// a hostile model end in a status.

#ifndef SPARSEFUSE_KERNELS_PLUGIN_LINEAR_NODE_H_
#define SPARSEFUSE_KERNELS_PLUGIN_LINEAR_NODE_H_

#include <onnxruntime_c_api.h>

#include <array>
#include <cstdint>

#include "kernels/plugin/linear_op.h"

namespace sparsefuse::plugin {

using Values = std::array<const OrtValue*, kInputKinds>;  // by kind; null: not there

// X and Y of a run. Without rows there are no addresses.
struct RunTensors {
  const void* x = nullptr;
  void* y = nullptr;
  int64_t rows = 0;
};

class LinearNode {
 public:
  explicit LinearNode(const LinearOp& op) noexcept;

  // Attributes and the number of inputs.
  OrtStatus* Read(const OrtKernelInfo& info) noexcept;
  // Inputs that are initializers; null for others.
  OrtStatus* ReadConstants(const OrtKernelInfo& info, Values& values) const noexcept;
  // All inputs but X, as they are now.
  OrtStatus* ReadInputs(const OrtKernelContext& context, Values& values) const noexcept;
  // Every pointer is to as many bytes as the shape says. Looks at the elements of smooth, gate,
  // quad and group_ptr, which must be in host memory.
  OrtStatus* ReadWeights(const Values& values, LinearWeights& weights) const noexcept;
  // Checks X and makes Y.
  OrtStatus* OpenRun(OrtKernelContext& context, RunTensors& run) const noexcept;

  // Puts the node's name before an error's message.
  OrtStatus* Located(OrtStatus* status) const noexcept;

  const OrtApi& api() const noexcept { return op_.api; }
  const LinearOp& op() const noexcept { return op_; }
  const LinearShape& shape() const noexcept { return shape_; }

 private:
  OrtStatus* ReadBlocks(const Values& values, BlockIndex& blocks) const noexcept;
  OrtStatus* CheckConstants(const Values& values, const LinearWeights& weights) const noexcept;
  OrtStatus* CheckGate(const OrtValue* value) const noexcept;
  OrtStatus* Data(const OrtValue* value, const void** data) const noexcept;

  const LinearOp& op_;
  std::array<char, 256> name_{};
  LinearShape shape_{};
  float scale_base_ = 0;
};

// What the environment says: SPARSEFUSE_GATE = off, decode (also where it is not set), always.
OrtStatus* ReadGateMode(const OrtApi& api, GateMode& mode) noexcept;

}  // namespace sparsefuse::plugin

#endif  // SPARSEFUSE_KERNELS_PLUGIN_LINEAR_NODE_H_
