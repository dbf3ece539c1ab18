#include "onnx_io/error.h"

#include <set>

#include "tests/support/catch.h"

namespace sparsefuse {

TEST_CASE("every error code has a name of its own and the documented exit code") {
  std::set<std::string_view> names;
  const std::vector<int> exit_codes = {1, 2, 2, 3, 3, 3, 3, 4, 5, 5, 6, 6, 7, 8, 9, 10, 11};
  for (size_t i = 0; i < exit_codes.size(); ++i) {
    const auto code = static_cast<ErrorCode>(i);
    CHECK(names.insert(ErrorName(code)).second);
    CHECK(ErrorName(code).starts_with("E_"));
    CHECK(ExitCode(code) == exit_codes[i]);
  }
  CHECK(ErrorName(ErrorCode::kBusy) == "E_BUSY");
  CHECK(ErrorName(ErrorCode::kTensor) == "E_TENSOR");
}

TEST_CASE("an error is one line: file, object, what, hint") {
  UserError error(ErrorCode::kTensor, "raw_data has 60 bytes", "the file looks truncated");
  CHECK(error.Line() == "raw_data has 60 bytes; the file looks truncated");
  error.At("initializer \"W\"").InFile("model.onnx");
  CHECK(error.Line() ==
        "model.onnx: initializer \"W\": raw_data has 60 bytes; the file looks truncated");
  error.At("elsewhere").InFile("other");  // whoever knew first knew best
  CHECK(error.where == "initializer \"W\"");
  CHECK(error.file == "model.onnx");
  CHECK(UserError(ErrorCode::kRead, "no such\nfile\x1b[2J").InFile("a\tb").Line() ==
        "a\\tb: no such\\nfile\\x1b[2J");
}

TEST_CASE("Printable escapes what could fake a line or move a cursor") {
  CHECK(Printable("conv1.weight") == "conv1.weight");
  CHECK(Printable("größe→✓") == "größe→✓");
  CHECK(Printable("a\"b\\c") == "a\\\"b\\\\c");
  CHECK(Printable("\x1b[31mred\r\n\t\x7f") == "\\x1b[31mred\\r\\n\\t\\x7f");
  CHECK(Printable(std::string_view("a\0b", 3)) == "a\\x00b");
  CHECK(Printable("\xff\xfe\xc0\x80") == "\\xff\\xfe\\xc0\\x80");  // no UTF-8
  CHECK(Printable("\xed\xa0\x80") == "\\xed\\xa0\\x80");           // a surrogate
  CHECK(Printable("\xe2\x82") == "\\xe2\\x82");                    // cut off
  CHECK(Printable("\xc2\x9b"
                  "2J") == "\\xc2\\x9b2J");  // an 8-bit control character
  CHECK(Printable("\u2028") == "\\xe2\\x80\\xa8");
}

TEST_CASE("Printable cuts after 200 characters, never inside one") {
  CHECK(Printable(std::string(200, 'a')) == std::string(200, 'a'));
  CHECK(Printable(std::string(201, 'a')) == std::string(200, 'a') + "…");
  std::string umlauts;
  for (int i = 0; i < 300; ++i) umlauts += "ü";
  const std::string cut = Printable(umlauts);
  CHECK(cut.size() == 400 + std::string("…").size());
  CHECK(IsUtf8(cut));
  CHECK(Printable(std::string(1 << 20, '\n')).size() <= 204);
}

TEST_CASE("IsUtf8") {
  CHECK(IsUtf8(""));
  CHECK(IsUtf8("plain, größe, 漢字, 🙂"));
  CHECK_FALSE(IsUtf8("\xff"));
  CHECK_FALSE(IsUtf8("\xc0\x80"));          // overlong
  CHECK_FALSE(IsUtf8("\xf4\x90\x80\x80"));  // above U+10FFFF
  CHECK_FALSE(IsUtf8("ok\xe2\x82"));
}

TEST_CASE("Nearest suggests only what is near") {
  const std::vector<std::string> known = {"weights", "exclude", "max_error", "emit"};
  CHECK(Nearest("weight", known) == "weights");
  CHECK(Nearest("wieghts", known) == "weights");
  CHECK(Nearest("max-error", known) == "max_error");
  CHECK(Nearest("emti", known) == "emit");
  CHECK(Nearest("temperature", known).empty());
  CHECK(Nearest("", known).empty());
  CHECK(Nearest("x", {}).empty());
}

TEST_CASE("SF_CHECK names the place and the condition") {
  try {
    SF_CHECK(1 == 2, "{} apples", 3);
    FAIL("no exception");
  } catch (const InternalError& error) {
    const std::string text = error.what();
    CHECK(text.find("error_test.cpp") != std::string::npos);
    CHECK(text.find("1 == 2") != std::string::npos);
    CHECK(text.find("3 apples") != std::string::npos);
  }
}

}  // namespace sparsefuse
