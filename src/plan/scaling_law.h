// Predicted loss of a model from its size, its experts and the tokens it learns from.
//
// Both laws are fits to runs far larger than a few core hours: what they order, they order by
// extrapolation there, and their nats per token are those of a text cut into some 32,000 kinds of
// tokens.
//
// Threads: pure functions.
// Errors:  kUsage for a law nobody knows.
// Paper:   kBesiroglu: L = E + A/N^a + B/D^b of Hoffmann et al. 2022 with the coefficients of
//          Besiroglu et al. 2024 (arXiv 2404.10102): 1.8172, 482.01, 0.3478, 2085.43, 0.3658;
//          experts by Clark et al. 2022 (arXiv 2202.01169), table 3, S-BASE: the dense model of
//          equal loss takes the place of N.
//          That fit is one of runs with equally many tokens, so it cannot say how experts and
//          tokens go together; kJointMoe can: Ludziejewski et al. 2025 (arXiv 2502.05172), one fit
//          over active parameters, tokens and experts.
//          Repeated data: Muennighoff et al. 2023 (arXiv 2305.16264), appendix A: tokens read again
//          and parameters beyond what the unique tokens call for count less and less
//          (R*_D = 15.387756, R*_N = 5.309743).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace cachalot::plan {

enum class ScalingLaw : std::uint8_t { kBesiroglu, kJointMoe };
std::string_view name(ScalingLaw law) noexcept;  // "besiroglu2024+clark2022", "ludziejewski2025"
ScalingLaw parse_scaling_law(std::string_view text);
std::string_view source(ScalingLaw law) noexcept;

struct LearningCase {
  double active = 0;         // weights of products that one token uses, head included
  double experts = 1;        // feed-forward weights over those one token uses; 1: dense
  double tokens = 0;         // seen in training
  double unique_tokens = 0;  // of the corpus; 0: never repeated
};
double predicted_loss(ScalingLaw law, const LearningCase& learning);

// Of kBesiroglu: the size of a dense model with the loss of one with experts (Clark's equation 11).
double dense_equivalent(double active, double experts);
// Tokens and parameters after Muennighoff et al.; `fitting` parameters are what `unique` tokens
// call for.
double effective_tokens(double tokens, double unique);
double effective_parameters(double parameters, double fitting);

}  // namespace cachalot::plan
