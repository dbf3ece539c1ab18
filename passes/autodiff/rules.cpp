#include "passes/autodiff/rules.h"

#include "passes/autodiff/rules_convolution.h"
#include "passes/autodiff/rules_elementwise.h"
#include "passes/autodiff/rules_linear.h"
#include "passes/autodiff/rules_normalization.h"
#include "passes/autodiff/rules_shape.h"

namespace sparsefuse {

const std::vector<GradientRule>& AllGradientRules() {
  constexpr std::string_view kMicrosoft = "com.microsoft";
  static const std::vector<GradientRule> rules = {
      // Of two or more inputs
      {"Add", "", GradAdd, false, "dy"},
      {"Sum", "", GradAdd, false, "dy"},
      {"Sub", "", GradSub, false, "dy, −dy"},
      {"Mul", "", GradMul, false, "dy·b, dy·a"},
      {"Div", "", GradDiv, false, "dy/b, −dy·y/b"},
      {"Pow", "", GradPow, false, "dy·e·x^(e−1), dy·y·ln x where x > 0"},
      {"Max", "", GradExtremum, false, "dy where equal to y, shared evenly"},
      {"Min", "", GradExtremum, false, "dy where equal to y, shared evenly"},
      {"Mean", "", GradAverage, false, "dy/n"},
      {"Where", "", GradWhere, false, "dy where c, dy where not c"},
      {"PRelu", "", GradPRelu, false, "dy or dy·slope, dy·x where x < 0"},

      // Of one input
      {"Identity", "", GradIdentity, false, "dy"},
      {"Dropout", "", GradDropout, false, "dy (inference form)"},
      {"Cast", "", GradCast, false, "dy cast back"},
      {"Neg", "", GradNeg, false, "−dy"},
      {"Abs", "", GradAbs, false, "dy·sign x"},
      {"Reciprocal", "", GradReciprocal, false, "−dy·y²"},
      {"Sqrt", "", GradSqrt, false, "dy/(2y)"},
      {"Exp", "", GradExp, false, "dy·y"},
      {"Log", "", GradLog, false, "dy/x"},
      {"Sin", "", GradSin, false, "dy·cos x"},
      {"Cos", "", GradCos, false, "−dy·sin x"},
      {"Erf", "", GradErf, false, "dy·2/√π·e^(−x²)"},
      {"Tanh", "", GradTanh, false, "dy·(1 − y²)"},
      {"Sigmoid", "", GradSigmoid, false, "dy·y(1 − y)"},
      {"Relu", "", GradRelu, false, "dy where x > 0"},
      {"LeakyRelu", "", GradLeakyRelu, false, "dy where x ≥ 0, else α·dy"},
      {"Elu", "", GradElu, false, "dy where x > 0, else dy·(y + α)"},
      {"Softplus", "", GradSoftplus, false, "dy·σ(x)"},
      {"Clip", "", GradClip, false, "dy where min ≤ x ≤ max; none for the bounds"},
      {"HardSigmoid", "", GradHardSigmoid, false, "α·dy where 0 < y < 1"},
      {"HardSwish", "", GradHardSwish, false, "dy·(x/3 + ½) where −3 < x < 3, dy beyond"},
      {"Mish", "", GradMish, false, "dy·(t + xσ(x)(1 − t²)), t = tanh softplus x"},
      {"Gelu", "", GradGelu, false, "dy·(Φ(x) + xφ(x)), or its tanh form"},
      {"Gelu", kMicrosoft, GradGelu, false, "dy·(Φ(x) + xφ(x))"},
      {"FastGelu", kMicrosoft, GradFastGelu, false, "tanh form of Gelu, bias included"},
      {"QuickGelu", kMicrosoft, GradQuickGelu, false, "dy·s(1 + αx(1 − s)), s = σ(αx)"},

      // Matrix products
      {"MatMul", "", GradMatMul, false, "dy·Bᵀ, Aᵀ·dy"},
      {"Gemm", "", GradGemm, false, "α·dy·Bᵀ, α·Aᵀ·dy, β·dy (or transposed)"},

      // Softmax and normalisations
      {"Softmax", "", GradSoftmax, false, "y·(dy − Σ dy·y)"},
      {"LogSoftmax", "", GradLogSoftmax, false, "dy − e^y·Σ dy"},
      {"LayerNormalization", "", GradLayerNormalization, false,
       "(g − mean g − x̂·mean g·x̂)/σ with g = dy·γ, Σ dy·x̂, Σ dy"},
      {"RMSNormalization", "", GradRmsNormalization, false, "(g − x̂·mean g·x̂)/σ, Σ dy·x̂"},
      {"SimplifiedLayerNormalization", "", GradRmsNormalization, false,
       "(g − x̂·mean g·x̂)/σ, Σ dy·x̂"},
      {"InstanceNormalization", "", GradInstanceNormalization, false,
       "as LayerNormalization over the axes from 2 on"},
      {"BatchNormalization", "", GradBatchNormalization, false,
       "dy·γ/σ, Σ dy·x̂, Σ dy, −Σ dy·γ/σ, −½ Σ dy·x̂·γ/σ² (inference form)"},

      // Convolution and pooling
      {"Conv", "", GradConv, false, "ConvTranspose(dy, W), Conv(xᵀ, dyᵀ), Σ dy"},
      {"ConvTranspose", "", GradConvTranspose, false, "Conv(dy, W), Conv(dyᵀ, xᵀ), Σ dy"},
      {"AveragePool", "", GradAveragePool, false, "ConvTranspose(dy/count, 1)"},
      {"MaxPool", "", GradMaxPool, false, "dy to the chosen element (opset 16)"},
      {"GlobalAveragePool", "", GradGlobalAveragePool, false, "dy/count, expanded"},
      {"GlobalMaxPool", "", GradGlobalMaxPool, false, "dy where equal to y, shared evenly"},

      // Reductions
      {"ReduceSum", "", GradReduceSum, false, "dy, expanded"},
      {"ReduceMean", "", GradReduceMean, false, "dy/count, expanded"},
      {"ReduceMax", "", GradReduceExtremum, false, "dy where equal to y, shared evenly"},
      {"ReduceMin", "", GradReduceExtremum, false, "dy where equal to y, shared evenly"},
      {"ReduceL2", "", GradReduceL2, false, "dy·x/y"},
      {"ReduceSumSquare", "", GradReduceSumSquare, false, "2·dy·x"},
      {"ReduceLogSumExp", "", GradReduceLogSumExp, false, "dy·e^(x − y)"},
      {"CumSum", "", GradCumSum, false, "CumSum from the other end"},

      // Moved elements
      {"Reshape", "", GradReshape, false, "dy in x's shape"},
      {"Flatten", "", GradReshape, false, "dy in x's shape"},
      {"Squeeze", "", GradSqueeze, false, "dy in x's shape"},
      {"Unsqueeze", "", GradUnsqueeze, false, "dy in x's shape"},
      {"Transpose", "", GradTranspose, false, "dy, axes back"},
      {"Concat", "", GradConcat, false, "Split(dy)"},
      {"Split", "", GradSplit, true, "Concat(dy…), zeros for outputs without gradient"},
      {"Expand", "", GradExpand, false, "Σ over repeated axes"},
      {"Tile", "", GradMoved, false, "dy added to its sources (opset 16)"},
      {"Trilu", "", GradTrilu, false, "Trilu(dy)"},
      {"Slice", "", GradSlice, false,
       "dy amid zeros; computed bounds and steps: dy added to its sources (opset 16)"},
      {"Pad", "", GradPad, false,
       "padding taken off; reflect, edge, wrap: dy added to its sources (opset 16)"},
      {"Gather", "", GradGather, false, "dy added to the rows taken (opset 16)"},
      {"GatherElements", "", GradGatherElements, false, "dy added to its sources (opset 16)"},
      {"GatherND", "", GradMoved, false, "dy added to its sources (opset 16)"},
      {"TopK", "", GradTopK, false, "dy to its sources (opset 16)"},
      {"Resize", "", GradResize, false, "mode nearest: dy added to its sources (opset 16)"},

      // Constant almost everywhere
      {"Shape", "", nullptr, false, "0"},
      {"Size", "", nullptr, false, "0"},
      {"ConstantOfShape", "", nullptr, false, "0"},
      {"Equal", "", nullptr, false, "0"},
      {"Greater", "", nullptr, false, "0"},
      {"GreaterOrEqual", "", nullptr, false, "0"},
      {"Less", "", nullptr, false, "0"},
      {"LessOrEqual", "", nullptr, false, "0"},
      {"IsInf", "", nullptr, false, "0"},
      {"IsNaN", "", nullptr, false, "0"},
      {"Sign", "", nullptr, false, "0"},
      {"Floor", "", nullptr, false, "0"},
      {"Ceil", "", nullptr, false, "0"},
      {"Round", "", nullptr, false, "0"},
      {"ArgMax", "", nullptr, false, "0"},
      {"ArgMin", "", nullptr, false, "0"},
      {"NonZero", "", nullptr, false, "0"},
  };
  return rules;
}

const GradientRule* FindGradientRule(const Node& node) {
  for (const GradientRule& rule : AllGradientRules()) {
    if (node.Is(rule.op, rule.domain)) return &rule;
  }
  return nullptr;
}

}  // namespace sparsefuse
