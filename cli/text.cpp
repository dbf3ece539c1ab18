#include "cli/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>

namespace sparsefuse {
namespace {

std::string Scaled(double x, std::string_view unit) {
  constexpr std::string_view kPrefixes[] = {"", "k", "M", "G", "T", "P", "E"};
  size_t power = 0;
  while (x >= 999.5 && power + 1 < std::size(kPrefixes)) {
    x /= 1000;
    ++power;
  }
  const std::string name = fmt::format("{}{}", kPrefixes[power], unit);
  const std::string number =
      power == 0 || x >= 99.95 ? fmt::format("{:.0f}", x) : fmt::format("{:.1f}", x);
  return name.empty() ? number : number + " " + name;
}

// The text with every number as one '#'.
std::string WithoutNumbers(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto is_digit = [&](size_t k) {
      return k < text.size() && std::isdigit(static_cast<unsigned char>(text[k]));
    };
    if (!is_digit(i)) {
      out += text[i];
      continue;
    }
    while (is_digit(i + 1) || (i + 1 < text.size() && text[i + 1] == '.' && is_digit(i + 2))) ++i;
    out += '#';
  }
  return out;
}

struct Kind {
  std::string key, op, subject, text;
  int64_t count = 0;
  bool alike = false;  // texts differ in numbers
};

std::vector<std::string> Grouped(const std::vector<Finding>& findings, std::string Finding::*text) {
  std::vector<Kind> kinds;
  for (const Finding& finding : findings) {
    if ((finding.*text).empty()) continue;
    const std::string key = finding.op + '\n' + WithoutNumbers(finding.*text);
    auto kind =
        std::find_if(kinds.begin(), kinds.end(), [&](const Kind& k) { return k.key == key; });
    if (kind == kinds.end()) {
      kinds.push_back({key, finding.op, finding.subject, finding.*text});
      kind = kinds.end() - 1;
    }
    kind->alike |= kind->text != finding.*text;
    ++kind->count;
  }
  std::vector<std::string> lines;
  for (const Kind& kind : kinds) {
    if (kind.count == 1) {
      const bool named = kind.subject != "model";
      lines.push_back(fmt::format("{}{}{}", named ? Printable(kind.subject) : "",
                                  named && !kind.op.empty() ? " (" + kind.op + ")" : "",
                                  named ? ": " + Printable(kind.text) : Printable(kind.text)));
    } else {
      lines.push_back(fmt::format("{} × {}{}{}", kind.count, kind.op.empty() ? "" : kind.op + ": ",
                                  Printable(kind.text),
                                  kind.alike ? fmt::format(" and {} alike", kind.count - 1) : ""));
    }
  }
  return lines;
}

std::vector<std::string> Each(const std::vector<Finding>& findings, std::string Finding::*text) {
  std::vector<std::string> lines;
  for (const Finding& finding : findings) {
    if ((finding.*text).empty()) continue;
    lines.push_back(fmt::format(
        "{}{}: {}{}", Printable(finding.subject),
        finding.op.empty() ? "" : " (" + Printable(finding.op) + ")", Printable(finding.*text),
        finding.error >= 0 ? fmt::format(", relative error {:.2g}", finding.error) : ""));
  }
  return lines;
}

}  // namespace

std::string BytesText(uint64_t bytes) { return Scaled(static_cast<double>(bytes), "B"); }

std::string CountText(int64_t count) { return Scaled(static_cast<double>(count), ""); }

std::string SignedText(double x, int digits) {
  const std::string number = fmt::format("{:.{}f}", std::abs(x), digits);
  const bool zero = number.find_first_not_of("0.") == std::string::npos;
  return (zero ? "" : x < 0 ? "−" : "+") + number;
}

std::string Plural(int64_t count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

std::string Line(std::string_view label, std::string_view text) {
  return fmt::format("{:<10}{}\n", label, text);
}

FindingLines Summarize(const std::vector<Finding>& findings, Detail detail) {
  const auto lines = detail == Detail::kEach ? Each : Grouped;
  return {lines(findings, &Finding::action), lines(findings, &Finding::reason)};
}

std::string CommonReason(const std::vector<Finding>& findings) {
  std::vector<std::pair<std::string, int64_t>> counts;
  for (const Finding& finding : findings) {
    if (finding.reason.empty()) continue;
    const auto same = std::find_if(counts.begin(), counts.end(),
                                   [&](const auto& c) { return c.first == finding.reason; });
    if (same == counts.end()) {
      counts.emplace_back(finding.reason, 1);
    } else {
      ++same->second;
    }
  }
  const auto most =
      std::max_element(counts.begin(), counts.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == counts.end() ? "" : most->first;
}

}  // namespace sparsefuse
