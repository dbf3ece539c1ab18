// That every form is really run; how fast is nobody's promise.

#include "passes/latency/measure_layer.h"

#include <cmath>
#include <cstdlib>

#include "passes/latency/machine.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"

namespace sparsefuse {
namespace {

using test::TempDir;
using Kind = LayerForm::Kind;

std::vector<LayerForm> EveryForm() {
  std::vector<LayerForm> forms = {{}, {.kind = Kind::kStandardInt8}, {.kind = Kind::kMatMulNBits}};
  for (const double density : {1.0, 0.5, 0.001}) {
    for (const Encoding encoding :
         {Encoding::kInt8, Encoding::kInt4, Encoding::kNested1, Encoding::kNested4}) {
      forms.push_back({Kind::kOperator, encoding, density});
    }
  }
  return forms;
}

TEST_CASE("every form of odd and even layers runs") {
  const MeasureLayer measure = MeasureInEngine({.operator_library = SPARSEFUSE_OPS_LIBRARY});
  for (const LayerShape& shape : {LayerShape{70, 33}, {256, 64, false}}) {
    const std::vector<LayerForm> forms = EveryForm();
    const std::vector<double> ms = measure(shape, 3, forms);
    REQUIRE(ms.size() == forms.size());
    for (size_t i = 0; i < ms.size(); ++i) {
      INFO(FormName(forms[i]));
      CHECK(ms[i] > 0);
      CHECK(std::isfinite(ms[i]));
    }
  }
}

TEST_CASE("more work takes longer") {
  const MeasureLayer measure = MeasureInEngine({});
  const LayerForm forms[] = {{}};
  CHECK(measure({512, 512}, 256, forms)[0] > 3 * measure({64, 512}, 256, forms)[0]);
}

TEST_CASE("this tool's operators need its library, and a size that they can have") {
  const std::vector<LayerForm> forms = {{}, {.kind = Kind::kOperator}};
  CHECK(std::isinf(MeasureInEngine({})({64, 64}, 1, forms)[1]));
  const MeasureLayer with = MeasureInEngine({.operator_library = SPARSEFUSE_OPS_LIBRARY});
  CHECK(std::isinf(with({kMaxInputs + 4, 16}, 1, forms)[1]));
}

TEST_CASE("a machine is described by all that times depend on") {
  const SessionOptions alone, two{.threads = 2}, with{.operator_library = SPARSEFUSE_OPS_LIBRARY};
  CHECK(DescribeMachine(alone) == DescribeMachine(alone));
  CHECK(DescribeMachine(alone) != DescribeMachine(two));
  CHECK(DescribeMachine(alone) != DescribeMachine(with));
  CHECK(DescribeMachine(alone).find(CpuModelName()) == 0);
  CHECK(DescribeMachine(alone).find(EngineVersion()) != std::string::npos);

  const TempDir dir;
  test::WriteFile(dir / "other.so", "another build");
  CHECK(DescribeMachine(with) != DescribeMachine({.operator_library = dir / "other.so"}));

  const std::string before = DescribeMachine(with);
  for (const char* variable : {"SPARSEFUSE_ISA", "SPARSEFUSE_GATE"}) {
    setenv(variable, "other", 1);
    CHECK(DescribeMachine(with) != before);
    unsetenv(variable);
  }
  CHECK(DescribeMachine(with) == before);
}

TEST_CASE("the table of this machine is remembered in its folder") {
  const TempDir dir;
  const LayerForm forms[] = {{}, {.kind = Kind::kStandardInt8}};
  LatencyTable first = MachineLatencies({}, dir / "cache");
  const std::vector<double> ms = first.Milliseconds({64, 32}, 4, forms);
  CHECK(std::filesystem::exists(dir / "cache/latency.json"));
  LatencyTable second = MachineLatencies({}, dir / "cache");
  CHECK(second.Milliseconds({64, 32}, 4, forms) == ms);  // measured again, it would differ
  LatencyTable forgetful = MachineLatencies({}, {});
  forgetful.Milliseconds({64, 32}, 1, forms);
  CHECK(forgetful.notes().empty());
}

}  // namespace
}  // namespace sparsefuse
