// Rotary position embeddings: in each head pairs (a, b) of elements become
//   (a cos θ − b sin θ, a sin θ + b cos θ)
// where θ is a position's and a pair's; elements behind the pairs stay.

#ifndef SPARSEFUSE_PASSES_CLEANUP_DECOMPOSE_ROTARY_H_
#define SPARSEFUSE_PASSES_CLEANUP_DECOMPOSE_ROTARY_H_

#include <cstdint>
#include <optional>

#include "passes/cleanup/decompose_rules.h"

namespace sparsefuse {

struct Rotation {
  Value* cos;
  Value* sin;  // both [batch or nothing, rows, pairs]
  int64_t pairs;
  int64_t width;     // of a head: at least 2 · pairs
  bool interleaved;  // pairs are neighbours; else the second ones follow all first ones
};

// `x` is [batch, rows, heads, width], or [batch, heads, rows, width] if `heads_first`. The result
// is the node's output `output`, if one is given.
Value* EmitRotation(Emitter& emitter, Value* x, const Rotation& rotation, bool heads_first,
                    std::optional<size_t> output = {});

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_CLEANUP_DECOMPOSE_ROTARY_H_
