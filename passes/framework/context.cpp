#include "passes/framework/context.h"

#include <regex.h>

#include <algorithm>
#include <cctype>

namespace sparsefuse {

struct NodePatterns::Compiled {
  explicit Compiled(const std::string& expression);
  ~Compiled() { regfree(&regex); }
  Compiled(const Compiled&) = delete;
  Compiled& operator=(const Compiled&) = delete;

  regex_t regex;
};

namespace {

[[noreturn]] void Refuse(const std::string& expression, const std::string& why) {
  throw UserError(
      ErrorCode::kConfig,
      fmt::format("\"{}\" is not a usable regular expression: {}", Printable(expression), why),
      "POSIX extended syntax, matched against whole node names: \"/encoder/.*\", \"fc[0-9]+\"");
}

// What regcomp accepts, but with another meaning than its author had, or at a cost without bound.
void CheckExpression(const std::string& expression) {
  constexpr size_t kLongest = 1000;
  if (expression.empty()) Refuse(expression, "it is empty");
  if (expression.size() > kLongest) Refuse(expression, "it is longer than 1,000 characters");
  if (expression.find('\0') != std::string::npos) Refuse(expression, "it holds a NUL character");
  double copies = 1;  // nested {n} multiply the size of the automaton
  for (size_t i = 0; i < expression.size(); ++i) {
    const char next = i + 1 < expression.size() ? expression[i + 1] : '\0';
    if (expression[i] == '\\') {
      if (std::isalnum(static_cast<unsigned char>(next))) {
        Refuse(expression, fmt::format("\\{} has no meaning there; write [0-9], [a-z]…", next));
      }
      ++i;
    } else if (expression[i] == '{') {
      for (size_t k = i + 1, n = 0; k < expression.size() && expression[k] != '}'; ++k) {
        const bool digit = std::isdigit(static_cast<unsigned char>(expression[k]));
        n = digit ? std::min<size_t>(n * 10 + static_cast<size_t>(expression[k] - '0'), 100000) : 0;
        const bool last = k + 1 == expression.size() || expression[k + 1] == '}';
        if (last) copies *= static_cast<double>(std::max<size_t>(n, 1));
      }
      if (copies > 1000) Refuse(expression, "its repetitions multiply to more than 1,000");
    }
  }
}

}  // namespace

NodePatterns::Compiled::Compiled(const std::string& expression) {
  CheckExpression(expression);
  const std::string whole = "^(" + expression + ")$";
  const int code = regcomp(&regex, whole.c_str(), REG_EXTENDED | REG_NOSUB);
  if (code != 0) {
    char reason[128];
    regerror(code, &regex, reason, sizeof reason);
    Refuse(expression, reason);
  }
}

NodePatterns::NodePatterns(const std::vector<std::string>& expressions)
    : expressions_(expressions) {
  for (const std::string& expression : expressions) {
    compiled_.push_back(std::make_shared<const Compiled>(expression));
  }
}

bool NodePatterns::Match(const std::string& name) const {
  return std::any_of(compiled_.begin(), compiled_.end(), [&](const auto& compiled) {
    return regexec(&compiled->regex, name.c_str(), 0, nullptr, 0) == 0;
  });
}

bool Context::Excluded(const Node& node) const {
  const auto& types = exclude_op_types;
  return std::find(types.begin(), types.end(), node.op()) != types.end() ||
         exclude_nodes.Match(node.name());
}

std::vector<std::string> IdleExclusions(const Context& context) {
  std::vector<std::string> idle;
  const auto check = [&](const char* key, const std::string& text, const auto& matches) {
    bool used = false;
    ForEachGraph(*context.teacher, [&](const Graph& graph) {
      for (const Node* node : graph.Nodes()) used = used || matches(*node);
    });
    if (!used) idle.push_back(fmt::format("{} \"{}\"", key, Printable(text)));
  };
  for (const std::string& expression : context.exclude_nodes.expressions()) {
    const NodePatterns pattern{expression};
    check("nodes_to_exclude", expression,
          [&](const Node& node) { return pattern.Match(node.name()); });
  }
  for (const std::string& type : context.exclude_op_types) {
    check("op_types_to_exclude", type, [&](const Node& node) { return node.op() == type; });
  }
  return idle;
}

}  // namespace sparsefuse
