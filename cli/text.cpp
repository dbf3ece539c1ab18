#include "cli/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>

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

// A text cut at its numbers: words.size() = numbers.size() + 1.
struct Pieces {
  std::vector<std::string> words, numbers;
};

Pieces Cut(std::string_view text) {
  Pieces pieces;
  pieces.words.emplace_back();
  const auto is_digit = [&](size_t i) {
    return i < text.size() && std::isdigit(static_cast<unsigned char>(text[i]));
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (!is_digit(i)) {
      pieces.words.back() += text[i];
      continue;
    }
    const size_t start = i;
    while (is_digit(i + 1) || (i + 1 < text.size() && text[i + 1] == '.' && is_digit(i + 2))) ++i;
    pieces.numbers.emplace_back(text.substr(start, i + 1 - start));
    pieces.words.emplace_back();
  }
  return pieces;
}

// Findings of one kind: the same operator, the same words; of each number the smallest and the
// largest.
struct Kind {
  std::string op, subject;
  Pieces low, high;
  int64_t count = 1;

  bool Takes(const Finding& finding, const Pieces& pieces) const {
    return op == finding.op && low.words == pieces.words;
  }
  void Add(const Pieces& pieces) {
    ++count;
    for (size_t i = 0; i < low.numbers.size(); ++i) {
      const double x = std::strtod(pieces.numbers[i].c_str(), nullptr);
      if (x < std::strtod(low.numbers[i].c_str(), nullptr)) low.numbers[i] = pieces.numbers[i];
      if (x > std::strtod(high.numbers[i].c_str(), nullptr)) high.numbers[i] = pieces.numbers[i];
    }
  }
  std::string Text() const {
    std::string text = low.words[0];
    for (size_t i = 0; i < low.numbers.size(); ++i) {
      text += low.numbers[i];
      if (low.numbers[i] != high.numbers[i]) text += "…" + high.numbers[i];
      text += low.words[i + 1];
    }
    return Printable(text);
  }
};

std::string LineOf(const Kind& kind) {
  if (kind.count > 1) {
    return fmt::format("{} × {}{}", kind.count, kind.op.empty() ? "" : kind.op + ": ", kind.Text());
  }
  if (kind.subject == "model") return kind.Text();
  return fmt::format("{}{}: {}", Printable(kind.subject),
                     kind.op.empty() ? "" : " (" + kind.op + ")", kind.Text());
}

std::vector<std::string> Grouped(const std::vector<Finding>& findings, std::string Finding::*text) {
  std::vector<Kind> kinds;
  for (const Finding& finding : findings) {
    if ((finding.*text).empty()) continue;
    const Pieces pieces = Cut(finding.*text);
    const auto kind = std::find_if(kinds.begin(), kinds.end(),
                                   [&](const Kind& k) { return k.Takes(finding, pieces); });
    if (kind == kinds.end()) {
      kinds.push_back({finding.op, finding.subject, pieces, pieces});
    } else {
      kind->Add(pieces);
    }
  }
  std::vector<std::string> lines;
  for (const Kind& kind : kinds) lines.push_back(LineOf(kind));
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
