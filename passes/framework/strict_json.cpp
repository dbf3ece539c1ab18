#include "passes/framework/strict_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "onnx_io/error.h"

namespace sparsefuse {
namespace {

using nlohmann::json;

// Follows the parser through the document, to know where it is and which keys it has seen.
class Trail {
 public:
  void operator()(json::parse_event_t event, const json& parsed) {
    switch (event) {
      case json::parse_event_t::object_start:
      case json::parse_event_t::array_start:
        if (levels_.size() == kMaxJsonDepth) {
          throw UserError(ErrorCode::kConfig,
                          fmt::format("nested deeper than {} levels", kMaxJsonDepth))
              .At(Path());
        }
        levels_.push_back({.is_object = event == json::parse_event_t::object_start});
        break;
      case json::parse_event_t::object_end:
      case json::parse_event_t::array_end:
        levels_.pop_back();
        NextElement();
        break;
      case json::parse_event_t::key:
        levels_.back().key = parsed.get<std::string>();
        if (!levels_.back().keys.insert(levels_.back().key).second) {
          throw UserError(ErrorCode::kConfig, "the key is given twice").At(Path());
        }
        break;
      case json::parse_event_t::value:
        NextElement();
        break;
    }
  }

 private:
  struct Level {
    bool is_object;
    size_t index = 0;  // of a list's element being read
    std::string key = {};
    std::set<std::string> keys = {};
  };

  void NextElement() {
    if (!levels_.empty() && !levels_.back().is_object) ++levels_.back().index;
  }

  std::string Path() const {
    std::string path = "$";
    for (const Level& level : levels_) {
      path += level.is_object ? "." + Printable(level.key) : fmt::format("[{}]", level.index);
    }
    return path;
  }

  std::vector<Level> levels_;
};

// The library's text without its prefix "[json.exception.parse_error.101] parse error at line …: ".
std::string Reason(const json::exception& error) {
  std::string text = error.what();
  for (const char* prefix : {"] ", "syntax error ", "column "}) {
    const size_t at = text.find(prefix);
    if (at != std::string::npos) text = text.substr(at + std::string_view(prefix).size());
  }
  const size_t colon = text.find(": ");
  const bool numbered = !text.empty() && std::isdigit(static_cast<unsigned char>(text[0]));
  return numbered && colon != std::string::npos ? text.substr(colon + 2) : text;
}

std::string LineAndColumn(std::string_view text, size_t byte) {
  const std::string_view before = text.substr(0, std::min(byte, text.size()));
  const size_t line = 1 + static_cast<size_t>(std::count(before.begin(), before.end(), '\n'));
  const size_t start = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
  return fmt::format("line {}, column {}", line, std::max<size_t>(before.size() - start, 1));
}

}  // namespace

json ParseStrictJson(std::string_view text) {
  const auto starts = [&](std::string_view mark) { return text.substr(0, mark.size()) == mark; };
  if (starts("\xEF\xBB\xBF") || starts("\xFF\xFE") || starts("\xFE\xFF")) {
    throw UserError(ErrorCode::kConfig, "the file starts with a byte-order mark",
                    "save it as UTF-8 without one");
  }
  Trail trail;
  try {
    return json::parse(text, [&](int, json::parse_event_t event, json& parsed) {
      trail(event, parsed);
      return true;
    });
  } catch (const json::parse_error& error) {
    throw UserError(ErrorCode::kConfig, "not valid JSON: " + Reason(error))
        .At(LineAndColumn(text, error.byte));
  } catch (const json::exception& error) {
    throw UserError(ErrorCode::kConfig, "not valid JSON: " + Reason(error));
  }
}

}  // namespace sparsefuse
