// What linear layers become, given their times: a latency table is filled in beforehand, so that
// nothing is measured.

#include "passes/quantize/linear_forms.h"

#include <cmath>

#include "passes/latency/latency_table.h"
#include "passes/latency/machine.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"

namespace sparsefuse {
namespace {

// A layer 256→64 that meets 4 rows, then 32, on a machine that takes these times, times rows.
struct Times {
  double standard, custom;  // float: 1
  Emit emit = Emit::kCustom;
};

LinearChoice ChoiceAt(const Times& times) {
  const test::TempDir dir;
  test::WriteFile(dir / "library.so", "");
  Context context;
  context.cache_folder = dir.path();
  context.operator_library = dir / "library.so";
  context.emit = times.emit;
  LatencyTable table(
      DescribeMachine({.operator_library = context.operator_library}), dir / "latency.json",
      [&](const LayerShape&, int64_t rows, std::span<const LayerForm> forms) {
        std::vector<double> ms;
        for (const LayerForm& form : forms) {
          const double time = form.kind == LayerForm::Kind::kFloat          ? 1
                              : form.kind == LayerForm::Kind::kStandardInt8 ? times.standard
                                                                            : times.custom;
          // Half as fast over float at 4 rows: the mean over both counts is √2 less.
          const bool slow = rows == 4 && form.kind != LayerForm::Kind::kFloat;
          ms.push_back(time * static_cast<double>(rows) * (slow ? 2 : 1));
        }
        return ms;
      });
  for (const int64_t rows : {4, 32}) {
    table.Milliseconds({256, 64}, rows, Int8Forms(Emit::kCustom));
  }
  LinearLayer layer;
  layer.inputs = 256;
  layer.outputs = 64;
  layer.bias.resize(64);
  const std::vector<LinearChoice> choices = ChooseLinearForms(
      {layer, layer}, {{}, {}}, {{{4, 256}, {2, 2, 256}}, {{32, 256}, {8, 4, 256}}}, context);
  REQUIRE(choices.size() == 2);
  CHECK(choices[0].form == choices[1].form);
  CHECK(choices[0].speedup == choices[1].speedup);
  return choices[0];
}

TEST_CASE("a linear layer takes the fastest form, and says by how much") {
  const LinearChoice custom = ChoiceAt({.standard = 0.5, .custom = 0.4});
  CHECK(custom.form == LinearForm::kCustom);
  CHECK(custom.speedup == Approx(2.5 / std::sqrt(2)));
  CHECK(custom.over_other == Approx(1.25));
  CHECK(Describe(custom) == "custom, ×1.77 over fp32, ×1.25 over standard int8");

  const LinearChoice standard = ChoiceAt({.standard = 0.4, .custom = 0.5});
  CHECK(standard.form == LinearForm::kStandard);
  CHECK(Describe(standard) == "standard, ×1.77 over fp32, ×1.25 over custom int8");
}

TEST_CASE("a linear layer that gains less than 3 % stays in float") {
  const LinearChoice slow = ChoiceAt({.standard = 1, .custom = 0.98 / std::sqrt(2)});
  CHECK(slow.form == LinearForm::kFloat);
  CHECK(slow.speedup == Approx(1 / 0.98));
  CHECK(ChoiceAt({.standard = 1, .custom = 0.96 / std::sqrt(2)}).form == LinearForm::kCustom);
}

TEST_CASE("where only standard operators are allowed, ours is not considered") {
  const LinearChoice choice = ChoiceAt({.standard = 0.5, .custom = 0.1, .emit = Emit::kStandard});
  CHECK(choice.form == LinearForm::kStandard);
  CHECK(Describe(choice) == "standard, ×1.41 over fp32");
}

TEST_CASE("a form that was not measured is described by its name") {
  CHECK(Describe({.form = LinearForm::kCustom}) == "custom");
  CHECK(Describe({.form = LinearForm::kStandard, .speedup = 1.5}) == "standard, ×1.50 over fp32");
}

}  // namespace
}  // namespace sparsefuse
