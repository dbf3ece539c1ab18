#include "onnx_io/error.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>

namespace sparsefuse {
namespace {

struct CodeRow {
  ErrorCode code;
  std::string_view name;
  int exit_code;
};

constexpr std::array<CodeRow, 17> kCodes = {{
    {ErrorCode::kInternal, "E_INTERNAL", 1},
    {ErrorCode::kUsage, "E_USAGE", 2},
    {ErrorCode::kConfig, "E_CONFIG", 2},
    {ErrorCode::kModel, "E_MODEL", 3},
    {ErrorCode::kTensor, "E_TENSOR", 3},
    {ErrorCode::kPath, "E_PATH", 3},
    {ErrorCode::kData, "E_DATA", 3},
    {ErrorCode::kUnsupported, "E_UNSUPPORTED", 4},
    {ErrorCode::kRead, "E_READ", 5},
    {ErrorCode::kChanged, "E_CHANGED", 5},
    {ErrorCode::kOutputExists, "E_OUTPUT_EXISTS", 6},
    {ErrorCode::kWrite, "E_WRITE", 6},
    {ErrorCode::kLimit, "E_LIMIT", 7},
    {ErrorCode::kVerify, "E_VERIFY", 8},
    {ErrorCode::kGoal, "E_GOAL", 9},
    {ErrorCode::kEngine, "E_ENGINE", 10},
    {ErrorCode::kBusy, "E_BUSY", 11},
}};

const CodeRow& RowOf(ErrorCode code) noexcept {
  for (const CodeRow& row : kCodes) {
    if (row.code == code) return row;
  }
  return kCodes[0];
}

// Length of the UTF-8 sequence at the start of `text`, 0 if it is none (also for overlong forms,
// surrogates and code points above U+10FFFF).
size_t Utf8Length(std::string_view text) noexcept {
  const auto byte = [&](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const auto continues = [&](size_t i) { return (byte(i) & 0xC0u) == 0x80u; };
  const unsigned lead = byte(0), second = byte(1);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return continues(1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    const unsigned low = lead == 0xE0 ? 0xA0 : 0x80, high = lead == 0xED ? 0x9F : 0xBF;
    return second >= low && second <= high && continues(2) ? 3 : 0;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    const unsigned low = lead == 0xF0 ? 0x90 : 0x80, high = lead == 0xF4 ? 0x8F : 0xBF;
    return second >= low && second <= high && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

enum class Quotes { kKeep, kEscape };

// Appends the character at text[i] and returns the index after it.
size_t AppendEscaped(std::string_view text, size_t i, Quotes quotes, std::string& out) {
  const unsigned char c = static_cast<unsigned char>(text[i]);
  const size_t length = Utf8Length(text.substr(i));
  // U+0080…U+009F are control characters too (C2 80 … C2 9F); U+2028, U+2029 end a line.
  const bool control = c < 0x20 || c == 0x7F ||
                       (length == 2 && c == 0xC2 && (text[i + 1] & 0x7F) < 0x20) ||
                       text.substr(i, 3) == "\u2028" || text.substr(i, 3) == "\u2029";
  if (c == '\n') {
    out += "\\n";
  } else if (c == '\t') {
    out += "\\t";
  } else if (c == '\r') {
    out += "\\r";
  } else if (length == 0) {
    out += fmt::format("\\x{:02x}", c);
  } else if (control) {
    for (size_t k = 0; k < length; ++k) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[i + k]));
    }
  } else if (quotes == Quotes::kEscape && (c == '"' || c == '\\')) {
    out += '\\';
    out += static_cast<char>(c);
  } else {
    out += text.substr(i, length);
  }
  return i + std::max<size_t>(length, 1);
}

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitute = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({substitute, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string_view ErrorName(ErrorCode code) noexcept { return RowOf(code).name; }

int ExitCode(ErrorCode code) noexcept { return RowOf(code).exit_code; }

std::string UserError::Line() const {
  std::string text;
  for (const std::string* part : {&file, &where, &message}) {
    if (part->empty()) continue;
    if (!text.empty()) text += ": ";
    text += *part;
  }
  if (!hint.empty()) text += (text.empty() ? "" : "; ") + hint;
  std::string line;
  for (size_t i = 0; i < text.size();) i = AppendEscaped(text, i, Quotes::kKeep, line);
  return line;
}

std::string Printable(std::string_view text) {
  constexpr size_t kMost = 200;  // characters of the result, without the mark of the cut
  std::string out;
  size_t characters = 0;
  for (size_t i = 0; i < text.size();) {
    std::string one;
    const size_t next = AppendEscaped(text, i, Quotes::kEscape, one);
    // A character printed as itself counts once however many bytes it has, an escape its length.
    characters += one.size() == next - i && next - i > 1 ? 1 : one.size();
    if (characters > kMost) return out + "…";
    out += one;
    i = next;
  }
  return out;
}

bool IsUtf8(std::string_view text) noexcept {
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string Nearest(std::string_view word, const std::vector<std::string>& known) {
  // At most a third of the longer word may differ, else the suggestion only puzzles.
  std::string best;
  size_t best_distance = SIZE_MAX;
  for (const std::string& candidate : known) {
    const size_t allowed = std::max(word.size(), candidate.size()) / 3 + 1;
    const size_t distance = EditDistance(word, candidate);
    if (distance <= allowed && distance < candidate.size() && distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

}  // namespace sparsefuse
