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

struct RuleResult {
  enum { kSame, kRewritten, kRefused } outcome;
  std::string reason;  // of a refusal
};

// Brings `node`, valid before the change, to the form valid from it on (up to version 21) with the
// same outputs; it may replace and delete the node. After a refusal the graph may be half rewritten
// and is to be discarded.
using OpsetRule = RuleResult (*)(Node& node, const RuleContext& context);

RuleResult RuleAxesToInput(Node&, const RuleContext&);       // Squeeze, Unsqueeze, Reduce*
RuleResult RuleBatchNormSpatial(Node&, const RuleContext&);  // BatchNormalization 9
RuleResult RuleBatchNormOutputs(Node&, const RuleContext&);  // BatchNormalization 14
RuleResult RuleClipBounds(Node&, const RuleContext&);        // Clip 11
RuleResult RuleDftAxis(Node&, const RuleContext&);           // DFT 20
RuleResult RuleDropoutRatio(Node&, const RuleContext&);      // Dropout 12
RuleResult RuleGridSampleMode(Node&, const RuleContext&);    // GridSample 20
RuleResult RuleGroupNorm(Node&, const RuleContext&);         // GroupNormalization 21
RuleResult RuleImageScaler(Node&, const RuleContext&);       // ImageScaler, gone since 10
RuleResult RulePadInputs(Node&, const RuleContext&);         // Pad 11
RuleResult RulePoolCeil(Node&, const RuleContext&);          // AveragePool 19
RuleResult RuleResizeFirst(Node&, const RuleContext&);       // Resize 11
RuleResult RuleResizeOptional(Node&, const RuleContext&);    // Resize 13
RuleResult RuleRoiAlign(Node&, const RuleContext&);          // RoiAlign 16
RuleResult RuleScanBatch(Node&, const RuleContext&);         // Scan 9
RuleResult RuleScatter(Node&, const RuleContext&);           // Scatter, gone since 11
RuleResult RuleSliceInputs(Node&, const RuleContext&);       // Slice 10
RuleResult RuleSoftmaxAxis(Node&, const RuleContext&);       // Softmax, LogSoftmax, Hardmax 13
RuleResult RuleSplitInput(Node&, const RuleContext&);        // Split 13
RuleResult RuleSplitCount(Node&, const RuleContext&);        // Split 18
RuleResult RuleTopKInput(Node&, const RuleContext&);         // TopK 10
RuleResult RuleUpsample(Node&, const RuleContext&);          // Upsample, gone since 10

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_CLEANUP_OPSET_RULES_H_
