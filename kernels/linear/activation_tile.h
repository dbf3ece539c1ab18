// Activations on vectors, written once over the operations of an instruction set (kmajor_tile.h
// says what Ops must bring and why everything is a template on it).

#ifndef SPARSEFUSE_KERNELS_LINEAR_ACTIVATION_TILE_H_
#define SPARSEFUSE_KERNELS_LINEAR_ACTIVATION_TILE_H_

#include "kernels/linear/activation.h"

namespace sparsefuse {

template <class Ops>
struct ActivationTile {
  using Float = typename Ops::Float;
  using Int = typename Ops::Int;

  // c[0] + x·(c[1] + x·(…)).
  template <int kCount>
  static Float Polynomial(Float x, const float (&c)[kCount]) {
    Float sum = Ops::Broadcast(c[kCount - 1]);
    for (int i = kCount - 2; i >= 0; --i) sum = Ops::MultiplyAdd(sum, x, Ops::Broadcast(c[i]));
    return sum;
  }

  // x is taken into [−87, 88]. x = n·ln 2 + r, |r| ≤ ln(2)/2, exp x = 2ⁿ·exp r; minimax polynomial
  // for (exp r − 1 − r)/r², relative error below 2⁻²⁷ before rounding.
  static Float Exp(Float x) {
    static constexpr float kRest[] = {0x1.fffffcp-2f, 0x1.55548ap-3f, 0x1.555916p-5f,
                                      0x1.123fc6p-7f, 0x1.6a1a7p-10f};
    x = Ops::Min(Ops::Broadcast(88.0f), Ops::Max(Ops::Broadcast(-87.0f), x));
    const Int n = Ops::Round(Ops::Multiply(x, Ops::Broadcast(0x1.715476p+0f)));  // 1/ln 2
    const Float whole = Ops::ToFloat(n);
    // ln 2 in two parts, the first of few bits: n times it is exact.
    Float r = Ops::MultiplyAdd(whole, Ops::Broadcast(-0x1.63p-1f), x);
    r = Ops::MultiplyAdd(whole, Ops::Broadcast(0x1.bd0106p-13f), r);
    const Float rest = Ops::Multiply(Ops::Multiply(r, r), Polynomial(r, kRest));
    const Float value = Ops::AddFloat(Ops::Broadcast(1.0f), Ops::AddFloat(r, rest));
    return Ops::Multiply(value, Ops::PowerOfTwo(n));
  }

  // v/(1 + exp(−u)).
  static Float TimesSigmoid(Float v, Float u) {
    const Float minus = Ops::Multiply(u, Ops::Broadcast(-1.0f));
    return Ops::Divide(v, Ops::AddFloat(Ops::Broadcast(1.0f), Exp(minus)));
  }

  // Φ(−a) for a ≥ 0 as exp of a minimax polynomial for its logarithm on [0, 8]; beyond, Φ(−8).
  static Float UpperTail(Float a) {
    static constexpr float kLog[] = {-0x1.62e43p-1f,   -0x1.988454p-1f, -0x1.45f2eap-2f,
                                     -0x1.29aca2p-5f,  0x1.3987c2p-8f,  0x1.459deap-15f,
                                     -0x1.ce562ep-13f, 0x1.0a1238p-14f, -0x1.4ce4ap-17f,
                                     0x1.cff06p-21f,   -0x1.16edc6p-25f};
    return Exp(Polynomial(Ops::Min(Ops::Broadcast(8.0f), a), kLog));
  }

  static Float Relu(Float v) { return Ops::Max(Ops::Broadcast(0.0f), v); }  // NaN stays

  static Float Apply(Activation activation, Float v) {
    switch (activation) {
      case Activation::kRelu:
        return Relu(v);
      case Activation::kGelu: {  // v·Φ(v) = max(v, 0) − |v|·Φ(−|v|)
        const Float a = Ops::Abs(v);
        const Float tail = Ops::Multiply(a, UpperTail(a));
        return Ops::AddFloat(Relu(v), Ops::Multiply(tail, Ops::Broadcast(-1.0f)));
      }
      case Activation::kGeluTanh: {  // (1 + tanh z)/2 = σ(2z)
        const Float cubic =
            Ops::MultiplyAdd(Ops::Multiply(v, v), Ops::Broadcast(0.044715f), Ops::Broadcast(1.0f));
        const Float z2 = Ops::Multiply(Ops::Multiply(v, Ops::Broadcast(1.5957691216f)), cubic);
        return TimesSigmoid(v, z2);
      }
      case Activation::kSilu:
        return TimesSigmoid(v, v);
      case Activation::kNone:
        break;
    }
    return v;
  }
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_LINEAR_ACTIVATION_TILE_H_
