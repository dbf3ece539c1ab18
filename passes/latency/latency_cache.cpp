#include "passes/latency/latency_cache.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int kVersion = 1;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr uintmax_t kMostBytes = uintmax_t{64} << 20;  // more is no file of ours

bool IsPositive(const Json& number) {
  return number.is_number() && number.get<double>() > 0 && std::isfinite(number.get<double>());
}

std::optional<LatencyPoint> ParsePoint(const Json& json) {
  if (!json.is_object() || !json.contains("float_ms") || !IsPositive(json["float_ms"]) ||
      !json.contains("ratio") || !json["ratio"].is_object()) {
    return std::nullopt;
  }
  LatencyPoint point{json["float_ms"].get<double>(), {}};
  for (const auto& [form, ratio] : json["ratio"].items()) {
    if (!ratio.is_null() && !IsPositive(ratio)) return std::nullopt;
    point.ratio[form] = ratio.is_null() ? kInfinity : ratio.get<double>();
  }
  return point;
}

std::optional<LatencyPoints> ParsePoints(const Json& json) {
  if (!json.is_object()) return std::nullopt;
  LatencyPoints points;
  for (const auto& [name, value] : json.items()) {
    std::optional<LatencyPoint> point = ParsePoint(value);
    if (!point) return std::nullopt;
    points.emplace(name, std::move(*point));
  }
  return points;
}

Json ToJson(const LatencyPoints& points) {
  Json json = Json::object();
  for (const auto& [name, point] : points) {
    Json ratios = Json::object();
    for (const auto& [form, ratio] : point.ratio) {
      ratios[form] = std::isfinite(ratio) ? Json(ratio) : Json();
    }
    json[name] = {{"float_ms", point.float_ms}, {"ratio", std::move(ratios)}};
  }
  return json;
}

// The file's "machines"; an empty object where it is absent or unusable.
Json ReadMachines(const fs::path& file, std::string& problem) {
  std::error_code error;
  const fs::file_status status = fs::status(file, error);
  if (status.type() == fs::file_type::not_found) return Json::object();
  const auto unusable = [&](std::string_view why) {
    problem = fmt::format("{}: {}; layers are measured again", file.string(), why);
    return Json::object();
  };
  std::ifstream in(file, std::ios::binary);
  if (!fs::is_regular_file(status) || !in) return unusable("cannot be read");
  if (fs::file_size(file, error) > kMostBytes) return unusable("is too large for a latency table");
  // What lies deeper than a table goes does not get in: copies recurse.
  const auto shallow = [](int depth, Json::parse_event_t, Json&) { return depth < 8; };
  Json json = Json::parse(in, shallow, false);
  if (!json.is_object() || json.value("version", Json()) != kVersion ||
      !json.value("machines", Json()).is_object()) {
    return unusable("is no latency table of this version");
  }
  return std::move(json["machines"]);
}

// In a file of its own beside `file` first. The folders may be missing.
void Replace(const fs::path& file, const std::string& text, std::string& problem) {
  const auto failed = [&](const char* reason) {
    problem = fmt::format("{}: cannot be written: {}; the next run measures again", file.string(),
                          reason);
  };
  std::error_code error;
  fs::create_directories(file.parent_path(), error);
  std::string temporary = file.string() + ".XXXXXX";
  const int descriptor = mkstemp(temporary.data());
  if (descriptor < 0) return failed(std::strerror(errno));
  size_t written = 0;
  while (written < text.size()) {
    const ssize_t n = write(descriptor, text.data() + written, text.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) break;
    written += static_cast<size_t>(n);
  }
  bool good = written == text.size();
  good = close(descriptor) == 0 && good;
  good = good && rename(temporary.c_str(), file.c_str()) == 0;
  if (good) return;
  failed(std::strerror(errno));
  unlink(temporary.c_str());
}

}  // namespace

LatencyPoints ReadLatencyCache(const fs::path& file, const std::string& machine,
                               std::string& problem) {
  const Json machines = ReadMachines(file, problem);
  const auto own = machines.find(machine);
  if (own == machines.end()) return {};
  std::optional<LatencyPoints> points = ParsePoints(*own);
  if (points) return std::move(*points);
  problem = fmt::format("{}: holds times that are none; layers are measured again", file.string());
  return {};
}

void WriteLatencyCache(const fs::path& file, const std::string& machine,
                       const LatencyPoints& points, std::string& problem) {
  std::string unreadable;  // then it is replaced
  Json machines = ReadMachines(file, unreadable);
  LatencyPoints all = points;
  if (const auto own = machines.find(machine); own != machines.end()) {
    for (auto& [name, point] : ParsePoints(*own).value_or(LatencyPoints{})) {
      const auto [at, is_new] = all.emplace(name, point);
      if (!is_new) at->second.ratio.merge(point.ratio);
    }
    machines.erase(own);
  }
  machines[machine] = ToJson(all);
  while (machines.size() > kMostMachines) machines.erase(machines.begin());
  const Json json = {{"version", kVersion}, {"machines", std::move(machines)}};
  Replace(file, json.dump(1, ' ', false, Json::error_handler_t::replace) + '\n', problem);
}

}  // namespace sparsefuse
