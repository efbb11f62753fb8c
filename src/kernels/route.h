// The MoE gate: scores, group-limited top-k, weights; its gradient; the sequence balance loss.
//
// Symbols: T tokens, E routed experts, k experts per token, G groups.
// Threads: tokens are independent.
// Paper:   V3 report eq. 12-20; V2 report eq. 20-22; order of operations as in the released files:
//   sigmoid (noaux_tc):  selection = s + bias; group score = sum of its two largest selections;
//     experts of groups not kept are -inf; weights from s without bias, / (their sum + 1e-20) where
//     norm_topk_prob, then * routed_scaling.
//   softmax: over all experts in float; `greedy` ignores groups; `group_limited_greedy` group score
//   =
//     max; weights = s * routed_scaling, or (norm_topk_prob and k > 1) s / (sum + 1e-20), not
//     scaled.
//   Ties: the lower index wins. topk_idx is in falling order of the selection score.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/context.h"
#include "tensor/mat.h"

namespace cachalot {

enum class Scoring : std::uint8_t { kSigmoid, kSoftmax };
enum class TopkMethod : std::uint8_t { kNoauxTc, kGreedy, kGroupLimitedGreedy };

struct RouteConfig {
  int experts = 0;
  int topk = 0;
  int groups = 1;
  int topk_groups = 1;
  Scoring scoring = Scoring::kSigmoid;
  TopkMethod method = TopkMethod::kNoauxTc;
  bool norm_topk_prob = true;
  double routed_scaling = 1;
};

// How the weights come from the scores of the chosen experts: divided by (their sum + eps) or not,
// then scaled. This, like the selection, is decided by `method`.
struct RouteWeightRule {
  bool normalise;
  double scale;
};
RouteWeightRule route_weight_rule(const RouteConfig& config) noexcept;
inline constexpr double kRouteWeightEps = 1e-20;

template <class T>
struct Route {
  RouteConfig config;
  MatView<const T> logits;      // [T, E]
  std::span<const float> bias;  // [E] or empty (no bias)
  MatView<T> scores;            // [T, E]
  MatView<std::int32_t> index;  // [T, k]
  MatView<T> weight;            // [T, k]
};

// The choice and the bias get no gradient; scores get it through the weights (and their norm).
template <class T>
struct RouteBackward {
  RouteConfig config;
  MatView<const T> scores;            // [T, E]
  MatView<const std::int32_t> index;  // [T, k]
  MatView<const T> dweight;           // [T, k]
  MatView<const T> dscores;           // [T, E] or empty: further gradient on scores (balance loss)
  MatView<T> dlogits;                 // [T, E] overwritten
};

// The choice alone: selection scores [E] (masked in place) to index [k].
template <class T>
void select_experts_ref(const RouteConfig& config, std::span<T> selection, std::int32_t* index);
template <class T>
void route_ref(const Context& ctx, const Route<T>& a);
template <class T>
void route_backward_ref(const Context& ctx, const RouteBackward<T>& a);

// Sequence-wise balance loss of one MoE layer (eq. 17-20), for `sequences` equal runs of rows:
// mean over sequences of sum_e f_e P_e, f_e from the k largest PLAIN scores (ties: lower index; no
// bias, no groups), P_e = mean over rows of s_e / sum_j s_j. `dscores` (or empty) is overwritten
// with grad_scale * d(loss)/d(scores); f is a constant. sequences = 1 for a whole batch is the
// batch-wise auxiliary loss (report 4.5.3): no sequence has to be balanced by itself.
template <class T>
struct BalanceLoss {
  MatView<const T> scores;  // [T, E], T = sequences * rows per sequence
  int sequences = 1;
  int topk = 1;
  T grad_scale = 0;
  MatView<T> dscores;  // [T, E] or empty
};
template <class T>
double balance_loss_ref(const Context& ctx, const BalanceLoss<T>& a);

// Tokens per expert: what the bias update and the metrics count. `load` [E] is overwritten.
void count_load(MatView<const std::int32_t> index, std::span<std::int64_t> load);
// b_e += gamma * sign(mean load - load_e), sign(0) = 0 (V3 report 2.1.2).
void update_router_bias(std::span<const std::int64_t> load, double gamma, std::span<float> bias);

void check_shapes(const Route<float>& a);
void check_shapes(const RouteBackward<float>& a);
void check_shapes(const BalanceLoss<float>& a);
void route(const Context& ctx, const Route<float>& a);
void route_backward(const Context& ctx, const RouteBackward<float>& a);
double balance_loss(const Context& ctx, const BalanceLoss<float>& a);

}  // namespace cachalot
