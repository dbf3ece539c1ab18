// SHA-256.

#ifndef SPARSEFUSE_ONNX_IO_DIGEST_H_
#define SPARSEFUSE_ONNX_IO_DIGEST_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace sparsefuse {

// Piece by piece.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  void Add(std::span<const std::byte> bytes);
  std::string Hex();  // 64 lower-case digits; ends the digest

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string Sha256Hex(std::span<const std::byte> bytes);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_ONNX_IO_DIGEST_H_
