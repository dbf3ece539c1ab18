#include "passes/framework/params.h"

#include <nlohmann/json.hpp>

#include "onnx_io/error.h"
#include "tests/support/catch.h"
#include "tests/support/error_of.h"

namespace sparsefuse {
namespace {

using nlohmann::json;

const ParamSpec& Spec() {
  static const ParamSpec spec = {
      {.name = "symmetric", .otherwise = true, .summary = "A switch."},
      {.name = "bits", .otherwise = int64_t{8}, .summary = "A count.", .min = 2, .max = 8},
      {.name = "ratio", .otherwise = 0.5, .summary = "A share.", .min = 0, .max = 1},
      {.name = "limit", .otherwise = kUnset, .summary = "A limit, if any.", .min = 0},
      {.name = "weights",
       .otherwise = std::string("int8"),
       .summary = "A choice.",
       .choices = {"int8", "float"}},
      {.name = "exclude", .otherwise = std::vector<std::string>{}, .summary = "A list."},
      {.name = "metrics",
       .otherwise = std::vector<std::string>{"kl"},
       .summary = "A list of choices.",
       .choices = {"kl", "cosine"}}};
  return spec;
}

Params Parse(const char* text) { return Params::Parse(Spec(), json::parse(text), "$.passes[1]"); }

std::string ParamsError(const char* text) {
  return test::ErrorOf(ErrorCode::kConfig, [&] { Parse(text); });
}

TEST_CASE("absent parameters have their defaults") {
  const Params params = Parse(R"({"type": "quantize"})");
  CHECK(params.Bool("symmetric"));
  CHECK(params.Int("bits") == 8);
  CHECK(params.Double("ratio") == 0.5);
  CHECK(std::isnan(params.Double("limit")));
  CHECK(params.String("weights") == "int8");
  CHECK(params.Strings("exclude").empty());
  CHECK(params.ToJson() == Params::Defaults(Spec()).ToJson());
}

TEST_CASE("given parameters are read and written back") {
  const json given = json::parse(R"({"symmetric": false, "bits": 4, "ratio": 1, "limit": 2.5,
      "weights": "float", "exclude": ["a", "b"], "metrics": []})");
  const Params params = Params::Parse(Spec(), given, "$");
  CHECK_FALSE(params.Bool("symmetric"));
  CHECK(params.Int("bits") == 4);
  CHECK(params.Double("ratio") == 1.0);  // an integer is a number
  CHECK(params.Double("limit") == 2.5);
  CHECK(params.String("weights") == "float");
  CHECK(params.Strings("exclude") == std::vector<std::string>{"a", "b"});
  CHECK(params.ToJson() == given);
}

TEST_CASE("an unset number is null, both ways") {
  CHECK(Parse("{}").ToJson()["limit"].is_null());
  CHECK(std::isnan(Parse(R"({"limit": null})").Double("limit")));
  CHECK(ParamsError(R"({"ratio": null})") ==
        "$.passes[1].ratio: expected a number from 0 to 1, got null");
}

TEST_CASE("wrong values are errors that name the place, the value and what is allowed") {
  struct Case {
    const char *text, *line;
  };
  const Case cases[] = {
      {R"({"bist": 4})", "$.passes[1].bist: unknown key; did you mean \"bits\"?"},
      {R"({"zzzzzzzzzzzz": 4})",
       "$.passes[1].zzzzzzzzzzzz: unknown key; known here: \"symmetric\", \"bits\", \"ratio\", "
       "\"limit\", \"weights\", \"exclude\", \"metrics\""},
      {R"({"symmetric": 1})", "$.passes[1].symmetric: expected true or false, got 1"},
      {R"({"symmetric": "true"})", "$.passes[1].symmetric: expected true or false, got \"true\""},
      {R"({"bits": 0})", "$.passes[1].bits: expected an integer from 2 to 8, got 0"},
      {R"({"bits": 9})", "$.passes[1].bits: expected an integer from 2 to 8, got 9"},
      {R"({"bits": 3.5})", "$.passes[1].bits: expected an integer from 2 to 8, got 3.5"},
      {R"({"bits": 4.0})", "$.passes[1].bits: expected an integer from 2 to 8, got 4.0"},
      {R"({"bits": 9223372036854775808})",
       "$.passes[1].bits: expected an integer from 2 to 8, got 9223372036854775808"},
      {R"({"ratio": 1.01})", "$.passes[1].ratio: expected a number from 0 to 1, got 1.01"},
      {R"({"ratio": true})", "$.passes[1].ratio: expected a number from 0 to 1, got true"},
      {R"({"limit": -1})", "$.passes[1].limit: expected a number of 0 or more, got -1"},
      {R"({"weights": "int9"})",
       "$.passes[1].weights: expected one of \"int8\", \"float\", got \"int9\"; did you mean "
       "\"int8\"?"},
      {R"({"weights": 8})", "$.passes[1].weights: expected one of \"int8\", \"float\", got 8"},
      {R"({"weights": ["int8"]})",
       "$.passes[1].weights: expected one of \"int8\", \"float\", got a list"},
      {R"({"exclude": "a"})", "$.passes[1].exclude: expected a list of strings, got \"a\""},
      {R"({"exclude": ["a", 2]})", "$.passes[1].exclude[1]: expected a string, got 2"},
      {R"({"metrics": ["kl", "cosin"]})",
       "$.passes[1].metrics[1]: expected one of \"kl\", \"cosine\", got \"cosin\"; did you mean "
       "\"cosine\"?"},
      {R"({"weights": "a\u001b[2J"})",
       "$.passes[1].weights: expected one of \"int8\", \"float\", got \"a\\u001b[2J\""},
      {"[]", "$.passes[1]: expected an object, got []"},
  };
  for (const Case& c : cases) {
    INFO(c.text);
    CHECK(ParamsError(c.text) == c.line);
  }
}

TEST_CASE("long values are cut between characters") {
  const std::string brief = Brief(std::string(1000, 'x') + "ü");
  CHECK(brief.size() < 80);
  std::string umlauts;
  for (int i = 0; i < 100; ++i) umlauts += "ü";
  for (const char* first : {"", "a"}) {
    const std::string cut = Brief(first + umlauts);
    CHECK_NOTHROW(json(cut).dump());  // throws on invalid UTF-8
  }
}

TEST_CASE("asking for a parameter that the spec lacks, or by another type, is a bug") {
  const Params params = Params::Defaults(Spec());
  CHECK_THROWS_AS(params.Int("bist"), InternalError);
  CHECK_THROWS_AS(params.Int("ratio"), InternalError);
}

}  // namespace
}  // namespace sparsefuse
