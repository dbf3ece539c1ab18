#include <cctype>

#include "passes/engine/ort.h"

namespace sparsefuse {
namespace {

constexpr size_t kMaxReason = 300;

// Whether `text` at `at` is a source position such as "/onnxruntime_src/core/graph/model.cc:149 ";
// its length, 0 if not.
size_t SourcePosition(std::string_view text, size_t at) {
  if (text[at] != '/') return 0;
  size_t end = at;
  while (end < text.size() && text[end] != ' ' && text[end] != ':') ++end;
  const std::string_view path = text.substr(at, end - at);
  if (!path.ends_with(".cc") && !path.ends_with(".h") && !path.ends_with(".cpp")) return 0;
  if (end == text.size() || text[end] != ':') return 0;
  const size_t digits = ++end;
  while (end < text.size() && std::isdigit(static_cast<unsigned char>(text[end]))) ++end;
  if (end == digits) return 0;
  return end - at;
}

// The length of a C++ signature that `text` begins with, such as "virtual Status
// ns::Class::Name(int, const T&) const "; 0 if it begins with none. Only qualified names count: a
// sentence has no "::" before its first parenthesis.
size_t Signature(std::string_view text) {
  const size_t open = text.find('(');
  const size_t scope = text.find("::");
  if (open == std::string_view::npos || scope == std::string_view::npos || scope > open) return 0;
  int depth = 0;
  size_t end = open;
  for (; end < text.size(); ++end) {
    if (text[end] == '(') ++depth;
    if (text[end] == ')' && --depth == 0) break;
  }
  if (end == text.size()) return 0;
  ++end;
  // gcc appends " const" and the template's arguments, " [with T = …]".
  if (text.substr(end).starts_with(" const")) end += 6;
  if (text.substr(end).starts_with(" [with ")) {
    const size_t close = text.find("] ", end);
    if (close != std::string_view::npos) end = close + 1;
  }
  return end;
}

// Cuts at most `limit` bytes, not inside a UTF-8 character.
void Cut(std::string& text, size_t limit) {
  if (text.size() <= limit) return;
  constexpr std::string_view kMark = "…";
  size_t end = limit - kMark.size();
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  text.resize(end);
  text += kMark;
}

}  // namespace

std::string CleanReason(std::string_view message) {
  std::string flat;  // one line, single spaces
  for (const char c : message) {
    const bool space = std::iscntrl(static_cast<unsigned char>(c)) || c == ' ';
    if (!space) {
      flat += c;
    } else if (!flat.empty() && flat.back() != ' ') {
      flat += ' ';
    }
  }
  // The file is named by the error's own field.
  constexpr std::string_view kLoad = "Load model from ", kFailed = " failed:";
  size_t start = 0;
  if (flat.starts_with(kLoad)) {
    const size_t failed = flat.find(kFailed);
    if (failed != std::string::npos) start = failed + kFailed.size();
  }
  std::string reason;
  for (size_t at = start; at < flat.size();) {
    size_t skipped = SourcePosition(flat, at);
    if (skipped == 0) {
      reason += flat[at++];
      continue;
    }
    at += skipped;
    if (at < flat.size() && flat[at] == ' ') ++at;
    at += Signature(std::string_view(flat).substr(at));
    if (at < flat.size() && flat[at] == ' ' && (reason.empty() || reason.back() == ' ')) ++at;
  }
  while (!reason.empty() && reason.back() == ' ') reason.pop_back();
  Cut(reason, kMaxReason);
  return reason.empty() ? "ONNX Runtime gave no reason" : reason;
}

}  // namespace sparsefuse
