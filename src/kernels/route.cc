#include "kernels/route.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/shape_check.h"
#include "kernels/table.h"

namespace cachalot {

namespace {

// The largest of `values` that is not yet `taken`; the lower index on ties.
template <class T>
int best_free(std::span<const T> values, const std::vector<char>& taken) {
  int best = -1;
  for (int i = 0; i < static_cast<int>(values.size()); ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (taken[at] == 0 && (best < 0 || values[at] > values[static_cast<std::size_t>(best)])) {
      best = i;
    }
  }
  return best;
}

// The k largest in falling order into out[0..k).
template <class T>
void top_k(std::span<const T> values, int k, std::int32_t* out) {
  std::vector<char> taken(values.size(), 0);
  for (int j = 0; j < k; ++j) {
    out[j] = best_free(values, taken);
    taken[static_cast<std::size_t>(out[j])] = 1;
  }
}

template <class T>
void scores_of_row(Scoring scoring, int n, const T* logits, T* scores) {
  if (scoring == Scoring::kSigmoid) {
    for (int e = 0; e < n; ++e) {
      scores[e] = static_cast<T>(1.0 / (1.0 + std::exp(-double{logits[e]})));
    }
    return;
  }
  const double top = double{*std::max_element(logits, logits + n)};
  double sum = 0;
  for (int e = 0; e < n; ++e) sum += std::exp(double{logits[e]} - top);
  for (int e = 0; e < n; ++e) {
    scores[e] = static_cast<T>(std::exp(double{logits[e]} - top) / sum);
  }
}

// A group is as good as the sum of its two best (noaux_tc) or its best (group_limited_greedy).
template <class T>
T group_score(TopkMethod method, std::span<const T> selection) {
  constexpr T kNone = -std::numeric_limits<T>::infinity();
  T first = kNone, second = kNone;
  for (const T s : selection) {
    if (s > first) {
      second = first;
      first = s;
    } else if (s > second) {
      second = s;
    }
  }
  return method == TopkMethod::kNoauxTc && selection.size() > 1 ? first + second : first;
}

// Experts outside the best groups become -inf: 0 would win over a negative score + bias.
template <class T>
void mask_groups(const RouteConfig& c, std::span<T> selection) {
  if (c.method == TopkMethod::kGreedy || c.topk_groups >= c.groups) return;
  const auto groups = static_cast<std::size_t>(c.groups);
  const std::size_t size = selection.size() / groups;
  std::vector<T> score(groups);
  for (std::size_t g = 0; g < groups; ++g) {
    score[g] = group_score<T>(c.method, selection.subspan(g * size, size));
  }
  std::vector<std::int32_t> kept(static_cast<std::size_t>(c.topk_groups));
  top_k<T>(score, c.topk_groups, kept.data());
  for (std::size_t g = 0; g < groups; ++g) {
    if (std::find(kept.begin(), kept.end(), static_cast<std::int32_t>(g)) != kept.end()) continue;
    const auto group = selection.subspan(g * size, size);
    std::fill(group.begin(), group.end(), -std::numeric_limits<T>::infinity());
  }
}

}  // namespace

RouteWeightRule route_weight_rule(const RouteConfig& c) noexcept {
  if (c.method == TopkMethod::kNoauxTc) return {c.norm_topk_prob, c.routed_scaling};
  const bool normalise = c.norm_topk_prob && c.topk > 1;
  return {normalise, normalise ? 1.0 : c.routed_scaling};
}

template <class T>
void select_experts_ref(const RouteConfig& config, std::span<T> selection, std::int32_t* index) {
  mask_groups<T>(config, selection);
  top_k<T>(selection, config.topk, index);
}

template <class T>
void route_ref(const Context& ctx, const Route<T>& a) {
  const RouteConfig& c = a.config;
  const int n = c.experts;
  const RouteWeightRule rule = route_weight_rule(c);
  ctx.for_each(a.logits.rows, /*grain=*/4, [&](std::int64_t t) {
    T* scores = a.scores.row(t);  // [E]
    scores_of_row(c.scoring, n, a.logits.row(t), scores);
    std::vector<T> selection(scores, scores + n);
    if (!a.bias.empty()) {
      for (std::size_t e = 0; e < selection.size(); ++e) selection[e] += static_cast<T>(a.bias[e]);
    }
    std::int32_t* index = a.index.row(t);  // [k]
    select_experts_ref<T>(c, selection, index);
    double sum = 0;
    for (int j = 0; j < c.topk; ++j) sum += double{scores[index[j]]};
    const double factor = rule.normalise ? rule.scale / (sum + kRouteWeightEps) : rule.scale;
    T* weight = a.weight.row(t);
    for (int j = 0; j < c.topk; ++j) weight[j] = static_cast<T>(double{scores[index[j]]} * factor);
  });
}

template <class T>
void route_backward_ref(const Context& ctx, const RouteBackward<T>& a) {
  const RouteConfig& c = a.config;
  const int n = c.experts;
  const RouteWeightRule rule = route_weight_rule(c);
  ctx.for_each(a.scores.rows, /*grain=*/4, [&](std::int64_t t) {
    const T* s = a.scores.row(t);  // [E]
    const std::int32_t* index = a.index.row(t);
    const T* dw = a.dweight.row(t);
    std::vector<double> ds(static_cast<std::size_t>(n), 0.0);
    if (!a.dscores.empty()) std::copy_n(a.dscores.row(t), n, ds.begin());
    // w_j = scale s_j / S with S = sum + eps: dw_j / ds_i = scale (1[i = j] / S - s_j / S^2).
    double sum = kRouteWeightEps, dot = 0;
    for (int j = 0; j < c.topk; ++j) {
      sum += double{s[index[j]]};
      dot += double{dw[j]} * double{s[index[j]]};
    }
    for (int j = 0; j < c.topk; ++j) {
      const double d = rule.normalise ? (double{dw[j]} - dot / sum) / sum : double{dw[j]};
      ds[static_cast<std::size_t>(index[j])] += rule.scale * d;
    }
    T* dlogits = a.dlogits.row(t);
    double mean = 0;  // of ds under the softmax
    for (int e = 0; e < n; ++e) mean += ds[static_cast<std::size_t>(e)] * double{s[e]};
    for (int e = 0; e < n; ++e) {
      const double d = ds[static_cast<std::size_t>(e)], p = double{s[e]};
      dlogits[e] =
          static_cast<T>(c.scoring == Scoring::kSigmoid ? d * p * (1 - p) : p * (d - mean));
    }
  });
}

// The balance loss of one sequence; its gradient scaled by `scale`.
template <class T>
static double sequence_balance(MatView<const T> scores, int topk, double scale,
                               MatView<T> dscores) {
  const int rows = scores.rows;
  const auto n = static_cast<std::size_t>(scores.cols);
  std::vector<double> load(n, 0.0), mean(n, 0.0);
  std::vector<std::int32_t> chosen(static_cast<std::size_t>(topk));
  for (int t = 0; t < rows; ++t) {
    const std::span<const T> s(scores.row(t), n);
    top_k<T>(s, topk, chosen.data());
    for (const std::int32_t e : chosen) load[static_cast<std::size_t>(e)] += 1;
    double sum = 0;
    for (const T value : s) sum += double{value};
    for (std::size_t e = 0; e < n; ++e) mean[e] += double{s[e]} / sum / rows;
  }
  const double to_f = static_cast<double>(n) / (static_cast<double>(topk) * rows);
  double loss = 0;
  for (std::size_t e = 0; e < n; ++e) loss += to_f * load[e] * mean[e];
  if (dscores.empty()) return loss;
  for (int t = 0; t < rows; ++t) {
    const std::span<const T> s(scores.row(t), n);
    double sum = 0, dot = 0;  // of s, and of f s
    for (std::size_t e = 0; e < n; ++e) {
      sum += double{s[e]};
      dot += to_f * load[e] * double{s[e]};
    }
    for (std::size_t e = 0; e < n; ++e) {
      const double d = (to_f * load[e] - dot / sum) / sum / rows;
      dscores.row(t)[e] = static_cast<T>(scale * d);
    }
  }
  return loss;
}

template <class T>
double balance_loss_ref(const Context& ctx, const BalanceLoss<T>& a) {
  const int rows = a.scores.rows / a.sequences;
  if (rows == 0) return 0;
  std::vector<double> loss(static_cast<std::size_t>(a.sequences));
  ctx.for_each(a.sequences, /*grain=*/1, [&](std::int64_t i) {
    const int begin = static_cast<int>(i) * rows;
    const MatView<T> d = a.dscores.empty() ? MatView<T>{} : a.dscores.sub_rows(begin, rows);
    loss[static_cast<std::size_t>(i)] = sequence_balance<T>(a.scores.sub_rows(begin, rows), a.topk,
                                                            double{a.grad_scale} / a.sequences, d);
  });
  double sum = 0;
  for (const double l : loss) sum += l;
  return sum / a.sequences;
}

template void select_experts_ref(const RouteConfig&, std::span<float>, std::int32_t*);
template void select_experts_ref(const RouteConfig&, std::span<double>, std::int32_t*);
template void route_ref(const Context&, const Route<float>&);
template void route_ref(const Context&, const Route<double>&);
template void route_backward_ref(const Context&, const RouteBackward<float>&);
template void route_backward_ref(const Context&, const RouteBackward<double>&);
template double balance_loss_ref(const Context&, const BalanceLoss<float>&);
template double balance_loss_ref(const Context&, const BalanceLoss<double>&);

void count_load(MatView<const std::int32_t> index, std::span<std::int64_t> load) {
  std::fill(load.begin(), load.end(), 0);
  for (int t = 0; t < index.rows; ++t) {
    const std::span<const std::int32_t> chosen(index.row(t), static_cast<std::size_t>(index.cols));
    require_range("count_load", "index", chosen, 0, static_cast<int>(load.size()));
    for (const std::int32_t e : chosen) ++load[static_cast<std::size_t>(e)];
  }
}

void update_router_bias(std::span<const std::int64_t> load, double gamma, std::span<float> bias) {
  require_length("update_router_bias", "bias", bias, load.size());
  std::int64_t sum = 0;
  for (const std::int64_t l : load) sum += l;
  const auto experts = static_cast<std::int64_t>(load.size());
  for (std::size_t e = 0; e < load.size(); ++e) {
    const std::int64_t over =
        load[e] * experts - sum;  // in integers: equal loads are exactly equal
    const int sign = (over < 0) - (over > 0);
    bias[e] = static_cast<float>(double{bias[e]} + gamma * sign);
  }
}

// What a config has to satisfy so that k experts can always be chosen.
static void check_config(std::string_view op, const RouteConfig& c) {
  require_shape(c.experts >= 1 && c.topk >= 1 && c.topk <= c.experts, op, ": ", c.topk, " of ",
                c.experts,
                " experts per token; num_experts_per_tok has to be 1 to n_routed_experts");
  if (c.method == TopkMethod::kGreedy) return;
  require_shape(c.groups >= 1 && c.experts % c.groups == 0, op, ": ", c.experts,
                " experts do not split into ", c.groups, " equal groups; check n_group");
  require_shape(c.topk_groups >= 1 && c.topk_groups <= c.groups, op, ": ", c.topk_groups, " of ",
                c.groups, " groups are kept; topk_group has to be 1 to n_group");
  const int reachable = c.experts / c.groups * c.topk_groups;
  require_shape(c.topk <= reachable, op, ": ", c.topk, " experts per token, but ", c.topk_groups,
                " kept groups hold only ", reachable, "; raise topk_group or lower k");
}

void check_shapes(const Route<float>& a) {
  const RouteConfig& c = a.config;
  check_config("route", c);
  require_size("route", "logits", a.logits, a.logits.rows, c.experts);
  require_size("route", "scores", a.scores, a.logits.rows, c.experts);
  require_size("route", "index", a.index, a.logits.rows, c.topk);
  require_size("route", "weight", a.weight, a.logits.rows, c.topk);
  if (!a.bias.empty()) {
    require_length("route", "bias", a.bias, static_cast<std::size_t>(c.experts));
  }
}

void check_shapes(const RouteBackward<float>& a) {
  constexpr std::string_view kOp = "route_backward";
  const RouteConfig& c = a.config;
  check_config(kOp, c);
  const int rows = a.scores.rows;
  require_size(kOp, "scores", a.scores, rows, c.experts);
  require_size(kOp, "index", a.index, rows, c.topk);
  require_size(kOp, "dweight", a.dweight, rows, c.topk);
  if (!a.dscores.empty()) require_size(kOp, "dscores", a.dscores, rows, c.experts);
  require_size(kOp, "dlogits", a.dlogits, rows, c.experts);
  for (int t = 0; t < rows; ++t) {
    require_range(kOp, "index",
                  std::span<const std::int32_t>(a.index.row(t), static_cast<std::size_t>(c.topk)),
                  0, c.experts);
  }
}

void check_shapes(const BalanceLoss<float>& a) {
  constexpr std::string_view kOp = "balance_loss";
  require_shape(a.sequences >= 1 && a.scores.rows % a.sequences == 0, kOp, ": ", a.scores.rows,
                " rows do not split into ", a.sequences, " equal sequences");
  require_shape(a.topk >= 1 && a.topk <= a.scores.cols, kOp, ": k is ", a.topk, " of ",
                a.scores.cols, " experts; it has to be 1 to that");
  if (!a.dscores.empty()) require_size(kOp, "dscores", a.dscores, a.scores.rows, a.scores.cols);
}

void route(const Context& ctx, const Route<float>& a) {
  check_shapes(a);
  ctx.ops().route(ctx, a);
}

void route_backward(const Context& ctx, const RouteBackward<float>& a) {
  check_shapes(a);
  ctx.ops().route_backward(ctx, a);
}

double balance_loss(const Context& ctx, const BalanceLoss<float>& a) {
  check_shapes(a);
  return ctx.ops().balance_loss(ctx, a);
}

}  // namespace cachalot
