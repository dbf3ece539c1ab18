// Small graphs in text form for the tests of analysis, and their structure in short lines.

#ifndef SPARSEFUSE_TESTS_UNIT_ANALYSIS_GRAPHS_H_
#define SPARSEFUSE_TESTS_UNIT_ANALYSIS_GRAPHS_H_

#include <string>
#include <vector>

#include "onnx_io/model.h"
#include "passes/analysis/structure.h"

namespace sparsefuse::test {

// ModelFromText, with `float[2,3] w = ?` for weights of any values: small, fixed, all different;
// `= +` for positive ones.
Model ParseGraph(std::string text);

// A line for each module without those that have a reason, then for each block:
//   3 attention heads: wq.1 wk.1 wo.0 | Reshape[2] Split[0]
//   block attention: keeps x
// Weights with the axis, then the numbers that follow: operator and element, "Conv group" for
// attributes.
std::vector<std::string> Lines(const Structure& structure);
// The modules that are left alone, as above, with the reason behind.
std::vector<std::string> LeftAlone(const Structure& structure);
// "12 in 5: normalised by LayerNormalization"
std::vector<std::string> Frozen(const Structure& structure);

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_UNIT_ANALYSIS_GRAPHS_H_
