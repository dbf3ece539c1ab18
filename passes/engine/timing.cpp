#include <algorithm>
#include <chrono>
#include <cmath>

#include "passes/engine/ort.h"

namespace sparsefuse {
namespace {

constexpr size_t kFewestRuns = 3;

Latency Summary(std::vector<double> ms) {
  std::sort(ms.begin(), ms.end());
  const size_t n = ms.size();
  const double median = n % 2 ? ms[n / 2] : (ms[n / 2 - 1] + ms[n / 2]) / 2;
  // The smallest time that at least 95 % of the runs do not exceed.
  const auto rank = static_cast<size_t>(std::ceil(0.95 * static_cast<double>(n)));
  return {ms.front(), median, ms[rank - 1], static_cast<int64_t>(n)};
}

}  // namespace

std::vector<Latency> TimeInterleaved(std::span<const Session* const> sessions, const Feeds& feeds,
                                     const TimingOptions& options) {
  using Clock = std::chrono::steady_clock;
  return WithEngineErrors([&] {
    std::vector<PreparedRun> runs;
    for (const Session* session : sessions) runs.push_back(session->state_->Prepare(feeds, {}));
    std::vector<std::vector<double>> ms(sessions.size());
    std::vector<double> seconds(sessions.size(), 0);
    const auto run_once = [&](size_t i) {
      const Clock::time_point start = Clock::now();
      const std::vector<Ort::Value> outputs = sessions[i]->state_->Run(runs[i]);
      return std::chrono::duration<double>(Clock::now() - start).count();
    };
    for (size_t i = 0; i < sessions.size(); ++i) {
      double spent = 0;
      for (int w = 0; w < options.warmup && spent < options.max_seconds; ++w) spent += run_once(i);
    }
    const auto enough = [&](size_t rounds) {
      const auto [least, most] = std::minmax_element(seconds.begin(), seconds.end());
      if (rounds >= kFewestRuns && *most >= options.max_seconds) return true;
      return rounds >= static_cast<size_t>(std::max(1, options.min_runs)) &&
             *least >= options.min_seconds;
    };
    for (size_t round = 0; !sessions.empty() && !enough(round); ++round) {
      // Each session goes first equally often: the first after a pause finds colder caches.
      for (size_t k = 0; k < sessions.size(); ++k) {
        const size_t i = (round + k) % sessions.size();
        const double spent = run_once(i);
        seconds[i] += spent;
        ms[i].push_back(spent * 1e3);
      }
    }
    std::vector<Latency> latencies;
    for (std::vector<double>& times : ms) latencies.push_back(Summary(std::move(times)));
    return latencies;
  });
}

}  // namespace sparsefuse
