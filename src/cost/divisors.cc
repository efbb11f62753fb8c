#include "cost/divisors.h"

#include <algorithm>

#include "base/error.h"

namespace cachalot::cost {

std::vector<int> divisors(int of, int most) {
  std::vector<int> low, high;  // pairs whose product is `of`
  for (int d = 1; d <= of / d; ++d) {
    if (of % d != 0) continue;
    low.push_back(d);
    if (of / d != d) high.push_back(of / d);
  }
  low.insert(low.end(), high.rbegin(), high.rend());
  std::erase_if(low, [&](int d) { return d > most; });
  return low;
}

std::string divisors_near(int of, int wanted) {
  const std::vector<int> all = divisors(of);
  const auto above = std::lower_bound(all.begin(), all.end(), wanted);
  if (above == all.end()) return cat(all.back());
  return *above == wanted || above == all.begin() ? cat(*above) : cat(*(above - 1), " or ", *above);
}

}  // namespace cachalot::cost
