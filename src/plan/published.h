// Figures that the papers print, beside what the formulas of this program give for them: a table
// that says where they agree to the last digit and, where not, by which computation.
//
// Threads: pure functions.
// Errors:  none: the models are those inside the program.
// Paper:   "Insights into DeepSeek-V3" tables 1, 2, 4 and 2.3.2; V3 report 4.2 and table 1; the
// README
//          of the published weights.
#pragma once

#include <string>
#include <vector>

namespace cachalot::plan {

struct Claim {
  std::string what;
  std::string source;
  double printed = 0;
  double unit = 1;  // of its last printed digit
  double computed = 0;
  std::string note;  // the computation, where the two differ or the figure needs one
  double slack = 0;  // what the rounding of printed inputs leaves open, in either direction
  // A value within the slack rounds to what is printed.
  bool agrees() const noexcept;
};

std::vector<Claim> published_claims();

}  // namespace cachalot::plan
