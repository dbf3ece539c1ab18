// Interpolation, memory and choice of the latency table, on made-up times.

#include "passes/latency/latency_table.h"

#include <cmath>
#include <limits>

#include "tests/support/catch.h"
#include "tests/support/support.h"

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;
using test::TempDir;
using Kind = LayerForm::Kind;

constexpr LayerShape kShape{768, 3072};
constexpr LayerForm kFloat{}, kStandard{.kind = Kind::kStandardInt8},
    kNBits{.kind = Kind::kMatMulNBits}, kDense{.kind = Kind::kOperator};
constexpr double kInfinity = std::numeric_limits<double>::infinity();

LayerForm Sparse(double density, Encoding encoding = Encoding::kInt8) {
  return {.kind = Kind::kOperator, .encoding = encoding, .density = density};
}

// A machine whose times follow formulas, with a record of what was asked of it.
struct MadeUpMachine {
  struct Call {
    int64_t rows;
    std::vector<std::string> forms;
  };
  std::vector<Call> calls;
  double pace = 1;                    // times of everything, from here on
  double nbits = kInfinity;           // its time at one row
  double float_ms = 2, dense_ms = 1;  // at one row

  double Time(int64_t rows, const LayerForm& form) const {
    const auto m = static_cast<double>(rows);
    switch (form.kind) {
      case Kind::kFloat:
        return pace * float_ms * m;
      case Kind::kStandardInt8:
        return pace * (3 + m);
      case Kind::kMatMulNBits:
        return pace * nbits * m;
      case Kind::kOperator:
        return pace * dense_ms * m * form.density * form.density;
    }
    return 0;
  }
  MeasureLayer Measure() {
    return [this](const LayerShape&, int64_t rows, std::span<const LayerForm> forms) {
      Call& call = calls.emplace_back(Call{rows, {}});
      std::vector<double> ms;
      for (const LayerForm& form : forms) {
        call.forms.push_back(FormName(form));
        ms.push_back(Time(rows, form));
      }
      return ms;
    };
  }
};

std::vector<double> Ask(LatencyTable& table, int64_t rows, std::vector<LayerForm> forms) {
  return table.Milliseconds(kShape, rows, forms);
}

using Names = std::vector<std::string>;

TEST_CASE("forms have names that tell them apart") {
  CHECK(FormName(kFloat) == "float");
  CHECK(FormName(kStandard) == "standard int8");
  CHECK(FormName(kNBits) == "MatMulNBits");
  CHECK(FormName(kDense) == "QuantizedLinear8");
  CHECK(FormName(Sparse(1, Encoding::kNested4)) == "QuantizedLinearNested4");
  CHECK(FormName(Sparse(0.25, Encoding::kInt4)) == "BlockSparseLinear4 0.25");
}

TEST_CASE("a measured point is asked for once, its forms together with float") {
  MadeUpMachine machine;
  LatencyTable table("m", {}, machine.Measure());
  CHECK(Ask(table, 8, {kFloat, kStandard, kDense}) == std::vector<double>{16, 11, 8});
  REQUIRE(machine.calls.size() == 1);
  CHECK(machine.calls[0].rows == 8);
  CHECK(machine.calls[0].forms == Names{"float", "standard int8", "QuantizedLinear8"});
  CHECK(Ask(table, 8, {kDense, kFloat}) == std::vector<double>{8, 16});
  CHECK(machine.calls.size() == 1);
  Ask(table, 8, {kNBits, kNBits});
  REQUIRE(machine.calls.size() == 2);
  CHECK(machine.calls[1].forms == Names{"float", "MatMulNBits"});
  // Another shape is another layer; so is one without a bias.
  const LayerForm forms[] = {kFloat};
  table.Milliseconds({768, 3073}, 8, forms);
  table.Milliseconds({768, 3072, false}, 8, forms);
  CHECK(machine.calls.size() == 4);
}

TEST_CASE("between powers of two times are linear in rows, beyond 1024 in proportion") {
  MadeUpMachine machine;
  LatencyTable table("m", {}, machine.Measure());
  CHECK(Ask(table, 100, {kStandard})[0] == Approx(103));
  REQUIRE(machine.calls.size() == 2);
  CHECK(machine.calls[0].rows == 64);
  CHECK(machine.calls[1].rows == 128);
  machine.calls.clear();
  CHECK(Ask(table, 3, {kStandard, kDense})[1] == Approx(3));
  CHECK(Ask(table, 1, {kStandard})[0] == Approx(4));
  CHECK(Ask(table, 1024, {kStandard})[0] == Approx(1027));
  CHECK(Ask(table, 5000, {kStandard})[0] == Approx(1027 * 5000.0 / 1024));
  std::vector<int64_t> rows;
  for (const auto& call : machine.calls) rows.push_back(call.rows);
  CHECK(rows == std::vector<int64_t>{2, 4, 1, 1024});
}

TEST_CASE("between densities times are linear, below the smallest they stay") {
  MadeUpMachine machine;
  LatencyTable table("m", {}, machine.Measure());
  CHECK(Ask(table, 1, {Sparse(0.25)})[0] == Approx((0.04 + 0.09) / 2));
  CHECK(machine.calls[0].forms ==
        Names{"float", "BlockSparseLinear8 0.2", "BlockSparseLinear8 0.3"});
  CHECK(Ask(table, 1, {Sparse(0.9)})[0] == Approx((0.64 + 1) / 2));
  CHECK(machine.calls[1].forms == Names{"float", "BlockSparseLinear8 0.8", "QuantizedLinear8"});
  CHECK(Ask(table, 1, {Sparse(0.5)})[0] == Approx(0.25));
  CHECK(Ask(table, 1, {Sparse(0.02)})[0] == Approx(0.01));
  // In both directions at once: 0.25 of the way from 0.1 to 0.2, half of the way from 2 to 4 rows.
  CHECK(Ask(table, 3, {Sparse(0.125)})[0] == Approx(0.5 * (2 + 4) * (0.75 * 0.01 + 0.25 * 0.04)));
}

TEST_CASE("a machine that has slowed down since changes nothing") {
  MadeUpMachine machine;
  LatencyTable table("m", {}, machine.Measure());
  CHECK(Ask(table, 2, {kDense})[0] == Approx(2));
  machine.pace = 3;
  CHECK(Ask(table, 2, {kStandard})[0] == Approx(5));
  CHECK(Ask(table, 2, {kFloat})[0] == Approx(4));
}

TEST_CASE("a form that cannot run takes forever") {
  MadeUpMachine machine;
  LatencyTable table("m", {}, machine.Measure());
  CHECK(Ask(table, 4, {kNBits})[0] == kInfinity);
  CHECK(Ask(table, 5, {kNBits, kFloat}) == std::vector<double>{kInfinity, 10});
  CHECK(Ask(table, 5000, {kNBits})[0] == kInfinity);
}

TEST_CASE("times outlive the table, to the last bit") {
  const TempDir dir;
  const fs::path file = dir / "a/b/latency.json";
  MadeUpMachine machine;
  machine.float_ms = 1.0 / 3;
  machine.dense_ms = 0.1;
  const std::vector<LayerForm> forms = {kFloat, kNBits, kDense, Sparse(0.7)};
  LatencyTable first("one", file, machine.Measure());
  CHECK_FALSE(fs::exists(file));
  const std::vector<double> ms = Ask(first, 100, forms);
  CHECK(fs::exists(file));
  CHECK(std::distance(fs::directory_iterator(file.parent_path()), {}) == 1);
  machine.calls.clear();
  machine.pace = 7;
  LatencyTable second("one", file, machine.Measure());
  CHECK(Ask(second, 100, forms) == ms);
  CHECK(machine.calls.empty());
  CHECK(second.notes().empty());

  // Another machine's times are its own, and leave the first one's in place.
  LatencyTable other("two", file, machine.Measure());
  CHECK(Ask(other, 100, forms)[0] == Approx(7 * ms[0]));
  machine.calls.clear();
  LatencyTable third("one", file, machine.Measure()), fourth("two", file, machine.Measure());
  CHECK(Ask(third, 100, forms) == ms);
  CHECK(Ask(fourth, 100, forms)[0] == Approx(7 * ms[0]));
  CHECK(machine.calls.empty());
}

TEST_CASE("two runs at a time keep each other's times") {
  const TempDir dir;
  MadeUpMachine machine;
  LatencyTable a("m", dir / "latency.json", machine.Measure());
  LatencyTable b("m", dir / "latency.json", machine.Measure());
  Ask(a, 1, {kDense});
  Ask(b, 1, {kStandard});
  Ask(b, 2, {kStandard});
  machine.calls.clear();
  LatencyTable c("m", dir / "latency.json", machine.Measure());
  CHECK(Ask(c, 1, {kDense, kStandard}) == std::vector<double>{1, 4});
  CHECK(Ask(c, 2, {kStandard})[0] == 5);
  CHECK(machine.calls.empty());
}

TEST_CASE("a cache that is none is noted, measured again and replaced") {
  MadeUpMachine machine;
  const std::string point = R"({"version":1,"machines":{"m":{"768x3072+bias, 1 rows":)";
  const std::string deep = std::string(100000, '[');
  for (const std::string& bytes :
       {std::string(), std::string("{"), std::string("\0\xff\x01", 3), std::string("[]"),
        std::string(R"({"version":2,"machines":{}})"), std::string(R"({"version":1})"),
        std::string(R"({"version":1,"machines":{"m":[]}})"), point + R"({}}}})",
        point + R"({"float_ms":-1,"ratio":{}}}}})", point + R"({"float_ms":"1","ratio":{}}}}})",
        point + R"({"float_ms":1e999,"ratio":{}}}}})", point + R"({"float_ms":1,"ratio":[]}}}})",
        point + R"({"float_ms":1,"ratio":{"QuantizedLinear8":0}}}}})", deep,
        R"({"version":1,"machines":{"m":)" + deep + std::string(100000, ']') + "}}"}) {
    INFO(bytes.substr(0, 200));
    const TempDir dir;
    test::WriteFile(dir / "latency.json", bytes);
    LatencyTable table("m", dir / "latency.json", machine.Measure());
    machine.calls.clear();
    CHECK(Ask(table, 1, {kDense})[0] == 1);
    CHECK(machine.calls.size() == 1);
    REQUIRE(table.notes().size() == 1);
    CHECK(table.notes()[0].find("latency.json") != std::string::npos);
    CHECK(table.notes()[0].find("measured again") != std::string::npos);
    LatencyTable again("m", dir / "latency.json", machine.Measure());
    CHECK(Ask(again, 1, {kDense})[0] == 1);
    CHECK(machine.calls.size() == 1);
    CHECK(again.notes().empty());
  }
}

TEST_CASE("a folder that cannot be written costs a note, not the run") {
  const TempDir dir;
  test::WriteFile(dir / "file", "");
  fs::create_directory(dir / "folder.json");
  for (const fs::path& file : {dir / "file/latency.json", dir / "folder.json"}) {
    MadeUpMachine machine;
    LatencyTable table("m", file, machine.Measure());
    CHECK(Ask(table, 1, {kDense})[0] == 1);
    CHECK(Ask(table, 2, {kDense})[0] == 2);
    REQUIRE_FALSE(table.notes().empty());
    CHECK(table.notes().back().find("cannot be written") != std::string::npos);
    CHECK(table.notes().size() <= 2);
  }
  CHECK(std::distance(fs::directory_iterator(dir.path()), {}) == 2);
}

TEST_CASE("the machines of longest ago are forgotten") {
  const TempDir dir;
  MadeUpMachine machine;
  const auto visit = [&](size_t i) {
    LatencyTable table("machine " + std::to_string(i), dir / "latency.json", machine.Measure());
    Ask(table, 1, {kDense});
    return table;
  };
  for (size_t i = 0; i < kMostMachines; ++i) visit(i);
  LatencyTable renewed = visit(0);
  Ask(renewed, 2, {kDense});  // written last now
  visit(kMostMachines);
  machine.calls.clear();
  visit(0);
  visit(2);
  visit(kMostMachines);
  CHECK(machine.calls.empty());
  visit(1);
  CHECK(machine.calls.size() == 1);
}

TEST_CASE("a layer takes the form that is fastest on average, if that is worth it") {
  MadeUpMachine machine;
  LatencyTable table("m", {}, machine.Measure());
  const std::vector<LayerForm> forms = {kFloat, kStandard, kDense, kNBits};
  const std::vector<int64_t> rows = {1, 16};
  const FormChoice choice = ChooseForm(table, kShape, rows, forms);
  CHECK(choice.form == 2);
  REQUIRE(choice.speedup.size() == 4);
  CHECK(choice.speedup[0] == Approx(1));
  CHECK(choice.speedup[1] == Approx(std::sqrt(2.0 / 4 * 32 / 19)));
  CHECK(choice.speedup[2] == Approx(2));
  CHECK(choice.speedup[3] == 0);

  for (const auto& [dense_ms, form] : {std::pair{2 / 1.02, 0}, {2 / 1.04, 1}, {2.2, 0}}) {
    MadeUpMachine slow;
    slow.dense_ms = dense_ms;
    LatencyTable slow_table("m", {}, slow.Measure());
    const std::vector<LayerForm> two = {kFloat, kDense};
    const FormChoice stays = ChooseForm(slow_table, kShape, rows, two);
    CHECK(stays.form == static_cast<size_t>(form));
    CHECK(stays.speedup[1] == Approx(2 / dense_ms));
  }
}

}  // namespace
}  // namespace sparsefuse
