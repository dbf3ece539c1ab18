// Random layers whose zeros lie as GPU kernels tell patterns apart.

#ifndef SPARSEFUSE_TESTS_CUDA_PATTERNS_H_
#define SPARSEFUSE_TESTS_CUDA_PATTERNS_H_

#include <vector>

#include "tests/kernels/linear_case.h"

namespace sparsefuse::test {

inline constexpr Encoding kEncodings[] = {Encoding::kInt8, Encoding::kInt4, Encoding::kNested1,
                                          Encoding::kNested4};

enum class Pattern { kDense, kQuads, kRuns32, kRuns64, kRuns128 };
inline constexpr Pattern kPatterns[] = {Pattern::kDense, Pattern::kQuads, Pattern::kRuns32,
                                        Pattern::kRuns64, Pattern::kRuns128};

LinearLayer MakeLayer(Encoding encoding, Pattern pattern, int64_t inputs, int64_t outputs,
                      double density, uint32_t seed, bool smooth = false);

// What write_code compiles for and test_code runs: one layer of each encoding and pattern, dense
// ones with several rows of scales, too.
std::vector<LinearLayer> CompiledLayers();
inline constexpr Activation kCompiledActivation = Activation::kGelu;
inline constexpr int64_t kCompiledRows = 300;  // that tiles are chosen for

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_CUDA_PATTERNS_H_
