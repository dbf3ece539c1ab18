// What a node needs when the operator set's version grows past a change of its operator's
// definition: one rule for each change of meaning between versions 7 and 21.

#ifndef SPARSEFUSE_PASSES_CLEANUP_OPSET_RULES_H_
#define SPARSEFUSE_PASSES_CLEANUP_OPSET_RULES_H_

#include <string>

#include "onnx_io/model.h"
#include "passes/cleanup/known_types.h"
#include "passes/lower/builder.h"

namespace sparsefuse {

struct RuleContext {
  Builder& builder;   // of the node's graph, inserting before the node
  KnownTypes& types;  // of the model before any rule ran
};

// Rewrites `node`, valid before the change, to the form valid from it on (up to version 21) with
// the same outputs; it may replace and delete the node. Returns an empty string, or why it cannot;
// then the graph may be half rewritten and is to be discarded.
using OpsetRule = std::string (*)(Node& node, const RuleContext& context);

std::string RuleAxesToInput(Node&, const RuleContext&);       // Squeeze, Unsqueeze, Reduce*
std::string RuleBatchNormSpatial(Node&, const RuleContext&);  // BatchNormalization 9
std::string RuleBatchNormOutputs(Node&, const RuleContext&);  // BatchNormalization 14
std::string RuleClipBounds(Node&, const RuleContext&);        // Clip 11
std::string RuleDftAxis(Node&, const RuleContext&);           // DFT 20
std::string RuleDropoutRatio(Node&, const RuleContext&);      // Dropout 12
std::string RuleGridSampleMode(Node&, const RuleContext&);    // GridSample 20
std::string RuleGroupNorm(Node&, const RuleContext&);         // GroupNormalization 21
std::string RuleImageScaler(Node&, const RuleContext&);       // ImageScaler, gone since 10
std::string RulePadInputs(Node&, const RuleContext&);         // Pad 11
std::string RulePoolCeil(Node&, const RuleContext&);          // AveragePool 19
std::string RuleResizeFirst(Node&, const RuleContext&);       // Resize 11
std::string RuleResizeOptional(Node&, const RuleContext&);    // Resize 13
std::string RuleRoiAlign(Node&, const RuleContext&);          // RoiAlign 16
std::string RuleScanBatch(Node&, const RuleContext&);         // Scan 9
std::string RuleScatter(Node&, const RuleContext&);           // Scatter, gone since 11
std::string RuleSliceInputs(Node&, const RuleContext&);       // Slice 10
std::string RuleSoftmaxAxis(Node&, const RuleContext&);       // Softmax, LogSoftmax, Hardmax 13
std::string RuleSplitInput(Node&, const RuleContext&);        // Split 13
std::string RuleSplitCount(Node&, const RuleContext&);        // Split 18
std::string RuleTopKInput(Node&, const RuleContext&);         // TopK 10
std::string RuleUpsample(Node&, const RuleContext&);          // Upsample, gone since 10

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_CLEANUP_OPSET_RULES_H_
