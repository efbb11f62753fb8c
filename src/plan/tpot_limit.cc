// The best case of each context at no more than so much time per token.
#include <algorithm>

#include "plan/infer.h"

namespace cachalot::plan {

namespace {

// Which of two cases that fit answers better; a case within the limit always beats one that is not.
bool better(const DecodeCase& a, const DecodeCase& b, double limit) {
  const bool a_within = a.tpot <= limit, b_within = b.tpot <= limit;
  if (a_within != b_within) return a_within;
  if (a_within && a.tokens_per_s != b.tokens_per_s) return a.tokens_per_s > b.tokens_per_s;
  return a.tpot < b.tpot;
}

}  // namespace

std::vector<TpotChoice> choose_by_tpot(const std::vector<DecodeCase>& cases, double limit) {
  std::vector<TpotChoice> choices;
  for (const DecodeCase& c : cases) {
    auto choice = std::find_if(choices.begin(), choices.end(),
                               [&](const TpotChoice& x) { return x.context == c.context; });
    if (choice == choices.end()) {
      choices.push_back({c.context, false, {}});
      choice = choices.end() - 1;
    }
    if (!c.fits) continue;
    if (!choice->decode || better(c, *choice->decode, limit)) choice->decode = c;
    choice->within = choice->decode->tpot <= limit;
  }
  return choices;
}

}  // namespace cachalot::plan
