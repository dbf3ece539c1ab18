// A look at the protobuf bytes of a model before protobuf parses them: protobuf says only "failed",
// merges messages that appear twice, and allocates some 300 bytes for a two-byte message.

#ifndef SPARSEFUSE_ONNX_IO_WIRE_H_
#define SPARSEFUSE_ONNX_IO_WIRE_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace sparsefuse {

struct WireLimits {
  int depth = 100;               // messages inside messages; protobuf's own limit
  int64_t messages = 1ll << 24;  // of any kind
};

// Throws E_MODEL, naming the field and the byte where the structure breaks (truncated, a singular
// message twice, groups, impossible tags), or E_LIMIT. Memory: one entry a level.
void CheckWire(std::span<const std::byte> model, const WireLimits& limits = {});

}  // namespace sparsefuse

#endif  // SPARSEFUSE_ONNX_IO_WIRE_H_
