// Timing on a machine whose speed changes while one looks: ceiling, contestant, ceiling, and again.
//
// A shared host may put two virtual cores on one physical core for seconds, which halves every
// rate, also that of the ceiling. So a contestant is timed between two runs of the ceiling. A turn
// is dropped whose ceilings differ, or are far below the best of the case, or in which another
// process took a core; what counts is the median over turns of measured / ceiling.
//
// Threads: calls come from one thread; contestants and probes bring theirs.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace cachalot::perf {

struct Contestant {
  std::string name;
  std::function<void()> run;
};

// What the machine can do at this moment, in the unit of the result (1e9 per second).
struct Ceilings {
  double best = 0;    // what a fraction is taken of
  double second = 0;  // another one of interest, measured along; 0: none
};
using CeilingProbe = std::function<Ceilings()>;

struct TurnOptions {
  int turns = 9;               // valid ones wanted
  double limit_seconds = 8;    // no new turn of a case after that
  double turn_seconds = 0.03;  // of one contestant: repeated until it lasts about as long
  double tolerance = 0.1;      // the two ceilings of a valid turn differ by no more
  long preemptions = 1;        // of this process in a valid turn, at most
};

struct Measured {
  double value = 0;     // rate, median of the turns that count
  double ceiling = 0;   // likewise
  double fraction = 0;  // median of value / ceiling, each of one turn
  double of_second = 0;
  int valid = 0;  // turns that count; 0: none was, and all did
  int turns = 0;  // taken
};

// `work`: of one run, in 1e9 units. One result per contestant, all timed in each turn.
std::vector<Measured> measure(const std::vector<Contestant>& contestants, double work,
                              const CeilingProbe& probe, const TurnOptions& options);

double median(std::vector<double> x);

}  // namespace cachalot::perf
