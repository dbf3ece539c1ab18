// One small graph of each family of architectures and exporters, for the tests of what is found in
// them and of what can be removed from them.

#ifndef SPARSEFUSE_TESTS_UNIT_ANALYSIS_FAMILIES_H_
#define SPARSEFUSE_TESTS_UNIT_ANALYSIS_FAMILIES_H_

#include <string>
#include <string_view>
#include <vector>

#include "onnx_io/model.h"

namespace sparsefuse::test {

struct Family {
  std::string name;
  std::string text;    // for ParseGraph
  bool fused = false;  // to be taken apart by decompose
};

const std::vector<Family>& Families();
// Fused ones are taken apart.
Model FamilyModel(std::string_view name);

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_UNIT_ANALYSIS_FAMILIES_H_
