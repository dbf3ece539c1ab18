// A prepared layer under test, and what it is compared with.

#ifndef SPARSEFUSE_TESTS_KERNELS_PREPARED_LAYER_H_
#define SPARSEFUSE_TESTS_KERNELS_PREPARED_LAYER_H_

#include <memory>
#include <vector>

#include "kernels/linear/linear.h"
#include "tests/kernels/guarded.h"
#include "tests/kernels/linear_case.h"

namespace sparsefuse::test {

const LinearKernel& Reference();

// One run. Floats are rounded to float16 on the way in, and given back as floats, if `half`.
struct Trial {
  bool half = false;
  Activation activation = Activation::kNone;
  GateMode gate = GateMode::kOff;
  ParallelFor parallel = SerialLoop();
};

// A prepared layer whose arrays end at forbidden pages. The constants are gone after preparing
// unless the kernel says that it reads them.
class PreparedLayer {
 public:
  PreparedLayer(const LinearKernel& kernel, const LinearLayer& layer);

  // `easy_rows`, unless null: how many rows were read in 4 bits.
  std::vector<float> Run(const std::vector<float>& x, int64_t rows, const Trial& trial = {},
                         int64_t* easy_rows = nullptr) const;

 private:
  struct Constants {
    explicit Constants(const LinearLayer& layer)
        : packed(layer.packed),
          scale_code(layer.scale_code),
          bias(layer.bias),
          smooth(layer.smooth),
          gate(layer.gate),
          quad(layer.quad),
          group_ptr(layer.group_ptr) {}
    Guarded<std::byte> packed;
    Guarded<uint8_t> scale_code;
    Guarded<float> bias, smooth, gate;
    Guarded<uint16_t> quad;
    Guarded<int32_t> group_ptr;
  };

  template <typename Element>
  std::vector<Element> RunElements(const std::vector<Element>& x, int64_t rows, const Trial& trial,
                                   int64_t* easy_rows) const;

  const LinearKernel& kernel_;
  Guarded<std::byte> prepared_;
  std::unique_ptr<Constants> constants_;
  LinearWeights weights_{};
};

// Floats as float16 holds them.
std::vector<float> RoundToHalf(std::vector<float> values);

// Fails the test case where y is further from the exact value than its bound; NaN needs NaN.
void CheckAgainst(const Exact& exact, const std::vector<float>& y);

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_KERNELS_PREPARED_LAYER_H_
