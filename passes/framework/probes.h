// Made-up inputs for a model that came without data. They show whether it loads, runs and stays
// finite, and whether two forms of one model agree; they say nothing about accuracy and calibrate
// nothing.

#ifndef SPARSEFUSE_PASSES_FRAMEWORK_PROBES_H_
#define SPARSEFUSE_PASSES_FRAMEWORK_PROBES_H_

#include <cstdint>
#include <span>

#include "passes/engine/engine.h"

namespace sparsefuse {

// Lengths for dims that the model leaves open; equal symbols get equal lengths.
struct ProbeLengths {
  int64_t first = 2;  // of an open first axis: the batch
  int64_t other = 8;
};

// One array for each input. Floats are uniform in [−1, 1); integers are 0 or 1, so that they are
// valid as indices, masks and lengths (1 where the array has one element: a length of 0 would empty
// everything). The values depend on `seed`, the input's name and shape alone. UserError
// E_UNSUPPORTED for an input that is no tensor, of another type, or over 2²⁸ elements.
Feeds MakeProbe(std::span<const Port> inputs, uint64_t seed, const ProbeLengths& lengths = {});

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_FRAMEWORK_PROBES_H_
