#include "base/nearest.h"

#include <algorithm>
#include <vector>

#include "base/error.h"

namespace cachalot {

static std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({substitute, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

std::string nearest(std::string_view word, const std::string_view* begin,
                    const std::string_view* end) {
  return nearest_within(std::max<std::size_t>(2, word.size() / 2), word, begin, end);
}

std::string nearest_within(std::size_t most, std::string_view word, const std::string_view* begin,
                           const std::string_view* end) {
  std::string best;
  std::size_t best_distance = most + 1;
  for (const std::string_view* candidate = begin; candidate != end; ++candidate) {
    const std::size_t distance = edit_distance(word, *candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = *candidate;
    }
  }
  return best;
}

}  // namespace cachalot
