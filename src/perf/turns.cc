#include "perf/turns.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>

namespace cachalot::perf {

namespace {

using Clock = std::chrono::steady_clock;

constexpr double kFullSpeed = 0.8;  // of the best ceiling of the case: less is another mode

double since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Times the system took a core from a thread of this process to give it to something else.
long preemptions() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_nivcsw;
}

struct Turn {
  double rate = 0;
  long preempted = 0;
  Ceilings before, after;

  double best() const { return (before.best + after.best) / 2; }
  double second() const { return (before.second + after.second) / 2; }
  bool valid(const TurnOptions& o) const {
    return preempted <= o.preemptions &&
           std::abs(before.best - after.best) <= o.tolerance * std::max(before.best, after.best);
  }
};

// Turns that count: valid, and at the machine's full speed. Where two virtual cores share a
// physical one, each waits less for itself, so that fractions come out higher than on two cores.
std::vector<Turn> counted_of(const std::vector<Turn>& turns, const TurnOptions& options) {
  double best = 0;
  for (const Turn& t : turns) best = std::max(best, t.best());
  std::vector<Turn> counted;
  for (const Turn& t : turns) {
    if (t.valid(options) && t.best() >= kFullSpeed * best) counted.push_back(t);
  }
  return counted;
}

Measured summary(const std::vector<Turn>& turns, const TurnOptions& options) {
  Measured m;
  m.turns = static_cast<int>(turns.size());
  std::vector<Turn> counted = counted_of(turns, options);
  m.valid = static_cast<int>(counted.size());
  if (counted.empty()) counted = turns;
  std::vector<double> rate, ceiling, best, second;
  for (const Turn& t : counted) {
    rate.push_back(t.rate);
    ceiling.push_back(t.best());
    if (t.best() > 0) best.push_back(t.rate / t.best());
    if (t.second() > 0) second.push_back(t.rate / t.second());
  }
  m.value = median(rate);
  m.ceiling = median(ceiling);
  m.fraction = median(best);
  m.of_second = median(second);
  return m;
}

int repeats_of(const Contestant& c, double seconds) {
  const auto begin = Clock::now();
  c.run();
  return std::clamp(static_cast<int>(seconds / std::max(since(begin), 1e-7)), 1, 100000);
}

}  // namespace

double median(std::vector<double> x) {
  if (x.empty()) return 0;
  std::sort(x.begin(), x.end());
  const std::size_t half = x.size() / 2;
  return x.size() % 2 == 1 ? x[half] : (x[half - 1] + x[half]) / 2;
}

std::vector<Measured> measure(const std::vector<Contestant>& contestants, double work,
                              const CeilingProbe& probe, const TurnOptions& options) {
  std::vector<int> repeats;
  for (const Contestant& c : contestants) {
    c.run();  // warm
    repeats.push_back(repeats_of(c, options.turn_seconds));
  }
  std::vector<std::vector<Turn>> turns(contestants.size());
  const auto enough = [&] {
    return std::all_of(turns.begin(), turns.end(), [&](const std::vector<Turn>& of_one) {
      return static_cast<int>(counted_of(of_one, options).size()) >= options.turns;
    });
  };
  const auto begin = Clock::now();
  do {
    Ceilings ceiling = probe();
    for (std::size_t i = 0; i < contestants.size(); ++i) {
      Turn turn;
      turn.before = ceiling;
      const long preempted = preemptions();
      const auto start = Clock::now();
      for (int n = 0; n < repeats[i]; ++n) contestants[i].run();
      turn.rate = work * repeats[i] / since(start);
      turn.preempted = preemptions() - preempted;
      turn.after = ceiling = probe();
      turns[i].push_back(turn);
    }
  } while (!enough() && since(begin) < options.limit_seconds);
  std::vector<Measured> results;
  for (const auto& of_one : turns) results.push_back(summary(of_one, options));
  return results;
}

}  // namespace cachalot::perf
