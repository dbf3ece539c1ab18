// Cut tensors: where a model can be taken apart so that one part at a time is worked on, with the
// tensor between two parts kept for all samples.

#ifndef SPARSEFUSE_PASSES_STATISTICS_CUTS_H_
#define SPARSEFUSE_PASSES_STATISTICS_CUTS_H_

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "onnx_io/model.h"

namespace sparsefuse {

// Names of values of the main graph that every way from the inputs to the outputs passes, in
// topological order. Side values are no ways: what is computed from graph inputs without a product
// with weights and never multiplied by weights itself (masks, positions, rotary tables, shapes).
// Between two cuts, and before the first and after the last, there is at least one product with
// weights: of several cuts with none in between the last is taken. Values whose element type
// ONNX Runtime cannot infer are not among them, nor are graph inputs and outputs.
std::vector<std::string> FindCuts(const Model& model);

// The part of `model` that computes `values`, any of its main graph, which become its outputs, in
// that order. Names stay, weights are shared.
Model LeadingTo(const Model& model, std::span<const std::string> values);

// The part of `model` from the cut `from` (empty: the graph inputs) to the cut `to` (empty: the
// graph outputs). Its inputs: `from`, and those graph inputs that side values in it are computed
// from, or all that it needs. Names stay, weights are shared. With `from` of unknown element type:
// UserError E_UNSUPPORTED.
Model Segment(const Model& model, std::string_view from, std::string_view to);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_STATISTICS_CUTS_H_
