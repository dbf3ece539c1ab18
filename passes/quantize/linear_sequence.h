// The weights of linear layers to codes, layer by layer in graph order, each on the inputs that the
// layers quantised before it give ("student inputs"), block by block between cut tensors, so that
// memory holds the activations of one cut and the Gram matrices of one input.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_LINEAR_SEQUENCE_H_
#define SPARSEFUSE_PASSES_QUANTIZE_LINEAR_SEQUENCE_H_

#include <string>
#include <vector>

#include "passes/framework/context.h"
#include "passes/quantize/gate.h"
#include "passes/quantize/linear.h"
#include "passes/quantize/weight_search.h"

namespace sparsefuse {

// What is wanted of one layer.
struct LayerPlan {
  bool quantized = true;
  size_t same_as = 0;  // the first layer with the same weight; its own index if that is this one
  RoundingRule rule;
  int64_t width = 0;  // inputs of a cell
  FeedbackUse feedback = FeedbackUse::kMeasured;
  std::string no_feedback = {};  // why, where the plan rules it out
  bool smooth = false;           // may be smoothed
  bool gated = false;            // nested weights of its own: a gate is fitted
  bool counts_zeros = false;     // how many codes of its inputs are 0 is of interest
  bool anchored = false;         // the weight first makes up for what others lost before it
};

struct SequenceOptions {
  int64_t max_clusters = 64;
  ScaleChoice scales = ScaleChoice::kMeasured;
  bool student_inputs = true;
  bool bias_correction = true;
};

struct QuantizedLayer {
  CodedWeight coded;               // empty where the layer shares another's
  double alpha = 0;                // of smoothing
  std::vector<float> smooth;       // [K]; empty: none
  std::vector<float> bias_change;  // [N]; empty: none
  FittedGate gate;                 // of nested weights
  double zero_inputs = 0;          // share of the inputs' codes that are 0, where counted
  bool has_data = false;
  std::string no_feedback;  // why there was none, apart from measurement
};

// One a layer, in their order. Without calibration data weights are searched on their own.
//
//   bias change = μᵀW − μ̂ᵀŴ, μ over the original's inputs, μ̂ over the student's
//
// An anchored layer's W is first solved anew on the student's inputs, towards the original's output
// or residual stream, if that brings its block's output on the select split nearer to the
// original's (StudentWalk::Targets); μᵀW is then what that solution gives on average.
std::vector<QuantizedLayer> QuantizeInSequence(const Model& model,
                                               const std::vector<LinearLayer>& layers,
                                               const std::vector<LayerPlan>& plans,
                                               const SequenceOptions& options,
                                               const Context& context);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_LINEAR_SEQUENCE_H_
