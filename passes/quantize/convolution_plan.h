// Which nodes of a graph are to compute on 8-bit codes, and which tensors are coded for that. Reads
// the graph only.
//
// A product (Conv, and Gemm behind one) takes codes in and gives codes out; what lies between
// products follows: arithmetic that ONNX Runtime has in 8 bits, and moves, which are exact on
// codes. A Relu (or a Clip from 0) behind a coded tensor disappears, because unsigned codes with
// zero point 0 cannot be negative. Everything else reads dequantised floats.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_CONVOLUTION_PLAN_H_
#define SPARSEFUSE_PASSES_QUANTIZE_CONVOLUTION_PLAN_H_

#include <map>
#include <set>
#include <string>
#include <vector>

#include "passes/framework/context.h"

namespace sparsefuse {

enum class CodedKind {
  kProduct,     // Conv, Gemm: dequantise → float operator → quantise, fused by ONNX Runtime
  kArithmetic,  // Add, Mul, Concat, pooling, Sigmoid, LeakyRelu: the same
  kMove,  // MaxPool, Reshape, Transpose, …: the operator itself on codes, same scale in and out
};

struct CodedNode {
  Node* node;
  CodedKind kind;
  // As they were when planned: emission replaces them one by one.
  std::vector<Value*> inputs;
  Value* output;
  bool coded_output;  // false: a Gemm that gives floats
};

// A Relu or Clip that disappears.
struct Absorbed {
  Node* node;
  Value* output;
};

struct ConvolutionPlan {
  std::vector<CodedNode> nodes;               // in topological order
  std::set<const Value*> boundaries;          // coded for their coded readers only: made in float
  std::map<const Value*, Absorbed> absorbed;  // by the tensor that it reads
  std::map<const Value*, size_t> group;  // coded tensor → group of equal scale and zero point
  // The tensors whose float ranges together are a group's range.
  std::vector<std::vector<Value*>> measured;

  bool IsCoded(const Value* value) const { return group.contains(value); }
};

// How nodes and tensors are named across copies of a model: by their (first output's) name.
std::string KeyOf(const Node& node);

// Why a Conv cannot be coded, as far as its structure tells; empty if it can.
std::string WhyFloat(const Node& node, const Context& context);

// Whether no constant weight or bias of a Conv or Gemm is NaN or infinite. Reads them all.
bool HasFiniteWeights(const Node& node);

// `keep_float`: keys of nodes that must not be coded. Weights are taken to be finite.
ConvolutionPlan PlanConvolutions(Graph& graph, const Context& context,
                                 const std::set<std::string>& keep_float = {});

// Keys of the first and the last product of the plan that codes all it can.
std::set<std::string> EndProducts(Graph& graph, const Context& context);

// Whether this product is a convolution that gains from one more input channel of zeros: on the
// model's border, with 4n+3 channels, where ONNX Runtime's kernels want multiples of 4.
bool CanPadChannels(const ConvolutionPlan& plan, const CodedNode& product);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_CONVOLUTION_PLAN_H_
