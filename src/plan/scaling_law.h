// Predicted loss of a model from its size, its experts and the tokens it learns from.
//
// Both laws are fits to runs far larger than a few core hours: what they order, they order by
// extrapolation there. Their tokens are pieces of some 4.57 bytes of English. What models of other
// tokens call for goes by the bytes they read, not by their tokens (Limisiewicz et al. 2026), so
// tokens are converted by their bytes; losses stay in nats per token of the law's own kind.
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
//          Bytes: Limisiewicz et al. 2026 (arXiv 2605.01188).
//          Repeated data: Muennighoff et al. 2023 (arXiv 2305.16264), appendix A: tokens read again
//          count less and less (R*_D = 15.387756, from 100 million unique tokens on; below, 5, as
//          runs on one and on a quarter of a megabyte have it). Their second term, by which
//          parameters beyond what the unique tokens call for count less too (R*_N = 5.309743), is
//          left out: it comes from runs without dropout or tuned weight decay. Where those are
//          tuned the loss of a repeated text falls with the parameters by a plain power law (Kim et
//          al. 2025, arXiv 2509.14786), and repeating, not size, is what stops paying (Lovelace et
//          al. 2026, arXiv 2605.01640); docs/planning-training.md has what was measured here.
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
  double token_bytes = 0;    // of text in a token; 0: as many as in one of the law's
};
double predicted_loss(ScalingLaw law, const LearningCase& learning);

// Bytes of English in a token of the vocabularies that the laws were fitted with (Limisiewicz et
// al.: 4.57 of a common byte-pair vocabulary), and a law's loss by them.
inline constexpr double kLawTokenBytes = 4.57;
double bits_per_byte(double law_loss) noexcept;

// Of kBesiroglu: the size of a dense model with the loss of one with experts (Clark's equation 11).
double dense_equivalent(double active, double experts);
// Tokens after Muennighoff et al.; R*_D by how much text there is.
double effective_tokens(double tokens, double unique);

}  // namespace cachalot::plan
