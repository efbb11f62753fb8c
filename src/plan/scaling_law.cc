#include "plan/scaling_law.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace cachalot::plan {

namespace {

// L = floor + a N^-alpha + b D^-beta.
struct Surface {
  double floor, a, alpha, b, beta;
  double at(double n, double d) const {
    return floor + a * std::pow(n, -alpha) + b * std::pow(d, -beta);
  }
};

constexpr Surface kBesiroglu{1.8172, 482.01, 0.3478, 2085.43, 0.3658};

// Experts beyond E_max bring nothing, and one expert counts as E_start.
double saturated(double experts, double start, double most) {
  return 1 / (1 / (experts - 1 + 1 / (1 / start - 1 / most)) + 1 / most);
}

// The signs are those under which, as the paper reports, experts lower the parameters' term and
// call for more tokens.
Surface joint(double experts) {
  const double log_e = std::log(saturated(experts, 2.07, 290.45));
  return {1.3637, 35.91 * std::exp(-0.2285 * log_e), 0.1889 - 0.0098 * log_e,
          35.98 * std::exp(0.5529 * log_e), 0.1775 + 0.0259 * log_e};
}

// R*_D: how many readings again are worth one of new text, at most.
double repeats_worth(double unique) noexcept {
  constexpr double kPublished = 15.387756, kSmallestPublished = 1e8, kMeasured = 5;
  return unique < kSmallestPublished ? kMeasured : kPublished;
}

}  // namespace

std::string_view name(ScalingLaw law) noexcept {
  return law == ScalingLaw::kBesiroglu ? "besiroglu2024+clark2022" : "ludziejewski2025";
}

ScalingLaw parse_scaling_law(std::string_view text) {
  const std::string_view names[] = {name(ScalingLaw::kBesiroglu), name(ScalingLaw::kJointMoe)};
  if (text == names[0]) return ScalingLaw::kBesiroglu;
  if (text == names[1]) return ScalingLaw::kJointMoe;
  const std::string near = nearest(text, std::begin(names), std::end(names));
  throw Error(Code::kUsage,
              cat("'", text, "' is no scaling law this program has; ", names[0], " or ", names[1],
                  near.empty() ? "" : "; did you mean ", near, near.empty() ? "." : "?"));
}

std::string_view source(ScalingLaw law) noexcept {
  return law == ScalingLaw::kBesiroglu
             ? "L = 1.8172 + 482.01/N^0.3478 + 2085.43/D^0.3658 (Hoffmann et al. 2022 refitted by "
               "Besiroglu et al. 2024, arXiv 2404.10102); experts: dense model of equal loss after "
               "Clark et al. 2022 (arXiv 2202.01169, S-BASE); repeated data: Muennighoff et al. "
               "2023 (arXiv 2305.16264), R*_D 5 below 10^8 unique tokens (measured with this "
               "program); bytes: Limisiewicz et al. 2026 (arXiv 2605.01188)"
             : "Ludziejewski et al. 2025 (arXiv 2502.05172): active parameters, tokens and experts "
               "in one fit; repeated data: Muennighoff et al. 2023 (arXiv 2305.16264), R*_D 5 "
               "below 10^8 unique tokens (measured with this program); bytes: Limisiewicz et al. "
               "2026 (arXiv 2605.01188)";
}

double dense_equivalent(double active, double experts) {
  // log10 L = a log10 N + b log10 E + c log10 N log10 E + d, solved for N at one expert.
  constexpr double a = -0.082, b = -0.108, c = 0.009, start = 1.847, most = 314.478;
  if (experts <= 1) return active;
  const double log_e = std::log10(saturated(experts, start, most)), log_1 = std::log10(start);
  // The fit has models from 15 million parameters on; smaller ones are taken to gain as much.
  constexpr double kSmallest = 15e6;
  const double log_n = std::log10(std::max(active, kSmallest));
  const double equal = ((a + c * log_e) * log_n + b * (log_e - log_1)) / (a + c * log_1);
  // Beyond 10^12 active parameters the fit has experts do harm; nobody has measured that.
  return active * std::max(1.0, std::pow(10, equal - log_n));
}

double effective_tokens(double tokens, double unique) {
  if (unique <= 0 || tokens <= unique) return tokens;
  const double repeats = tokens / unique - 1;
  const double worth = repeats_worth(unique);
  return unique + unique * worth * (1 - std::exp(-repeats / worth));
}

double bits_per_byte(double law_loss) noexcept {
  return law_loss / std::numbers::ln2 / kLawTokenBytes;
}

double predicted_loss(ScalingLaw law, const LearningCase& l) {
  const Surface surface = law == ScalingLaw::kBesiroglu ? kBesiroglu : joint(l.experts);
  const double n = law == ScalingLaw::kBesiroglu ? dense_equivalent(l.active, l.experts) : l.active;
  const double own = l.token_bytes > 0 ? l.token_bytes / kLawTokenBytes : 1;
  return surface.at(n, effective_tokens(own * l.tokens, own * l.unique_tokens));
}

}  // namespace cachalot::plan
