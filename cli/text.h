// Numbers and lists as people read them.

#ifndef SPARSEFUSE_CLI_TEXT_H_
#define SPARSEFUSE_CLI_TEXT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "passes/framework/pass.h"

namespace sparsefuse {

std::string BytesText(uint64_t bytes);         // "13.6 MB", powers of 1,000 as disks are sold
std::string CountText(int64_t count);          // "12.9 M"
std::string SignedText(double x, int digits);  // "+0.6", "−1.1", "0.0"
std::string Plural(int64_t count, std::string_view noun);  // "1 layer", "4 layers"

// A line of a report: the label, at least ten columns wide, then the text.
std::string Line(std::string_view label, std::string_view text);

// Findings, each kind of thing on one line: "12 × MatMul: int8 linear 128…512→384 (custom)". Texts
// that differ in numbers alone are one kind. With kEach every finding by its name.
enum class Detail { kGrouped, kEach };
struct FindingLines {
  std::vector<std::string> done, skipped;
};
FindingLines Summarize(const std::vector<Finding>& findings, Detail detail);

// Texts in order of first occurrence, each with how often it occurs.
class Tally {
 public:
  void Add(const std::string& text) {
    const auto same = std::find_if(rows_.begin(), rows_.end(),
                                   [&](const auto& row) { return row.first == text; });
    if (same == rows_.end()) {
      rows_.emplace_back(text, 1);
    } else {
      ++same->second;
    }
  }
  const std::vector<std::pair<std::string, int64_t>>& rows() const { return rows_; }
  // "4 × 8 attention heads, 2 × 16 channels"
  std::string Text() const {
    std::string all;
    for (const auto& [text, count] : rows_) {
      all += fmt::format("{}{} × {}", all.empty() ? "" : ", ", count, text);
    }
    return all;
  }

 private:
  std::vector<std::pair<std::string, int64_t>> rows_;
};

// The reason that most skipped findings have; empty if none was skipped.
std::string CommonReason(const std::vector<Finding>& findings);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_CLI_TEXT_H_
