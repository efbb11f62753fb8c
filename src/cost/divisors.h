// Divisors: in how many ways something can be shared out evenly.
//
// Threads: pure functions.
// Errors:  none.
#pragma once

#include <limits>
#include <string>
#include <vector>

namespace cachalot::cost {

// Those of `of` (at least 1) up to `most`, rising.
std::vector<int> divisors(int of, int most = std::numeric_limits<int>::max());
// The nearest one to either side of `wanted` (at least 1), for messages: "32 or 64".
std::string divisors_near(int of, int wanted);

}  // namespace cachalot::cost
