// Counter-based random numbers: value i of a stream depends on (seed, i) alone, so results do not
// depend on the order or the thread in which they are drawn.

#ifndef SPARSEFUSE_PASSES_DATA_RANDOM_H_
#define SPARSEFUSE_PASSES_DATA_RANDOM_H_

#include <cstdint>

namespace sparsefuse {

// Value `counter` of the SplitMix64 sequence that starts at `seed`.
// Source: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", fig. 17.
inline uint64_t RandomAt(uint64_t seed, uint64_t counter) noexcept {
  uint64_t z = seed + (counter + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// `random` mapped to [0, n); n < 2^32, biased by less than n/2^32.
inline uint64_t Below(uint64_t random, uint64_t n) noexcept { return ((random >> 32) * n) >> 32; }

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_DATA_RANDOM_H_
