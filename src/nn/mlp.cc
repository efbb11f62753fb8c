#include "nn/mlp.h"

#include "kernels/elementwise.h"
#include "nn/linear.h"

namespace cachalot::nn {

namespace {

bool present(const MlpWeights& w) { return w.gate.rows > 0; }

// Rows of one expert in a matrix in expert order.
template <class T>
MatView<T> rows_of(const ExpertOrder& order, int expert, MatView<T> m) {
  const auto e = static_cast<std::size_t>(expert);
  return m.sub_rows(order.begin[e], order.begin[e + 1] - order.begin[e]);
}
bool has_rows(const ExpertOrder& order, int expert) {
  const auto e = static_cast<std::size_t>(expert);
  return order.begin[e + 1] > order.begin[e];
}

}  // namespace

void mlp_forward(const Context& ctx, Precision precision, const MlpWeights& w,
                 MatView<const float> h, MatView<float> y, MlpActs& acts) {
  const int width = w.gate.rows;
  acts.gate.resize(h.rows, width);
  acts.up.resize(h.rows, width);
  acts.hidden.resize(h.rows, width);
  const Gemm in[] = {linear(h, w.gate, acts.gate.view()), linear(h, w.up, acts.up.view())};
  gemm(ctx, precision, in);
  swiglu(ctx, {acts.gate.cview(), acts.up.cview(), acts.hidden.view()});
  gemm(ctx, precision, linear(acts.hidden.cview(), w.down, y, /*accumulate=*/true));
}

void mlp_backward(const Context& ctx, Precision precision, const MlpWeights& w,
                  const MlpGradients& g, MatView<const float> h, MatView<const float> dy,
                  MatView<float> dh, bool add_dh, MlpActs& acts, MlpScratch& s) {
  s.dhidden.resize(h.rows, w.gate.rows);
  linear_backward(ctx, precision,
                  {{dy, acts.hidden.cview(), w.down, g.down, s.dhidden.view(), false}});
  swiglu_backward(ctx, {acts.gate.cview(), acts.up.cview(), s.dhidden.cview(), acts.gate.view(),
                        acts.up.view()});
  linear_backward(ctx, precision, {{acts.gate.cview(), h, w.gate, g.gate, dh, add_dh}});
  linear_backward(ctx, precision, {{acts.up.cview(), h, w.up, g.up, dh, true}});
}

void moe_forward(const Context& ctx, Precision precision, const BlockDims& dims,
                 const MoeWeights& w, MatView<const float> h, MatView<float> y, MoeActs& acts) {
  const int t = h.rows;
  const int experts = dims.route.experts;
  const int topk = dims.route.topk;
  const int width = w.experts.front().gate.rows;
  acts.logits.resize(t, experts);
  acts.scores.resize(t, experts);
  acts.index.resize(t, topk);
  acts.weight.resize(t, topk);
  acts.x.resize(t * topk, h.cols);
  acts.gate.resize(t * topk, width);
  acts.up.resize(t * topk, width);
  acts.hidden.resize(t * topk, width);
  acts.y.resize(t * topk, h.cols);

  gemm(ctx, Precision::kF32, linear(h, w.router, acts.logits.view()));
  route(ctx, Route<float>{dims.route, acts.logits.cview(), w.bias, acts.scores.view(),
                          acts.index.view(), acts.weight.view()});
  expert_order(acts.index.cview(), experts, acts.order);
  gather_rows(ctx, {h, acts.order.token, acts.x.view()});

  // All experts, and the shared one, in one batch of products: small experts fill each other's
  // tails.
  std::vector<Gemm> batch;
  batch.reserve(2 * static_cast<std::size_t>(experts) + 2);
  if (present(w.shared)) {
    const int shared = w.shared.gate.rows;
    acts.shared.gate.resize(t, shared);
    acts.shared.up.resize(t, shared);
    acts.shared.hidden.resize(t, shared);
    batch.push_back(linear(h, w.shared.gate, acts.shared.gate.view()));
    batch.push_back(linear(h, w.shared.up, acts.shared.up.view()));
  }
  for (int e = 0; e < experts; ++e) {
    if (!has_rows(acts.order, e)) continue;
    const MlpWeights& expert = w.experts[static_cast<std::size_t>(e)];
    const auto x = rows_of(acts.order, e, acts.x.cview());
    batch.push_back(linear(x, expert.gate, rows_of(acts.order, e, acts.gate.view())));
    batch.push_back(linear(x, expert.up, rows_of(acts.order, e, acts.up.view())));
  }
  gemm(ctx, precision, batch);

  swiglu(ctx, {acts.gate.cview(), acts.up.cview(), acts.hidden.view()});
  batch.clear();
  if (present(w.shared)) {
    swiglu(ctx, {acts.shared.gate.cview(), acts.shared.up.cview(), acts.shared.hidden.view()});
    batch.push_back(linear(acts.shared.hidden.cview(), w.shared.down, y, /*accumulate=*/true));
  }
  for (int e = 0; e < experts; ++e) {
    if (!has_rows(acts.order, e)) continue;
    batch.push_back(linear(rows_of(acts.order, e, acts.hidden.cview()),
                           w.experts[static_cast<std::size_t>(e)].down,
                           rows_of(acts.order, e, acts.y.view())));
  }
  gemm(ctx, precision, batch);
  combine(ctx, {acts.y.cview(), acts.order.slot.cview(), acts.weight.cview(), y, true});
}

double moe_backward(const Context& ctx, Precision precision, const BlockDims& dims,
                    const MoeWeights& w, const MoeGradients& g, MatView<const float> h,
                    const BalanceTerm& balance, MatView<const float> dy, MatView<float> dh,
                    MoeActs& acts, MoeScratch& s) {
  const int t = h.rows;
  const int experts = dims.route.experts;
  s.dweight.resize(t, dims.route.topk);
  s.dscores.resize(t, experts);
  s.dlogits.resize(t, experts);
  s.dhidden.resize(acts.hidden.rows(), acts.hidden.cols());

  combine_backward(ctx, {dy, acts.y.cview(), acts.order.slot.cview(), acts.weight.cview(),
                         acts.y.view(), s.dweight.view()});
  std::vector<LinearBackward> layers;
  layers.reserve(static_cast<std::size_t>(experts));
  const auto for_experts = [&](auto&& make) {
    layers.clear();
    for (int e = 0; e < experts; ++e) {
      if (has_rows(acts.order, e)) layers.push_back(make(e, static_cast<std::size_t>(e)));
    }
    linear_backward(ctx, precision, layers);
  };
  for_experts([&](int e, std::size_t i) {
    return LinearBackward{rows_of(acts.order, e, acts.y.cview()),
                          rows_of(acts.order, e, acts.hidden.cview()),
                          w.experts[i].down,
                          g.experts[i].down,
                          rows_of(acts.order, e, s.dhidden.view()),
                          false};
  });
  swiglu_backward(ctx, {acts.gate.cview(), acts.up.cview(), s.dhidden.cview(), acts.gate.view(),
                        acts.up.view()});
  // dx goes into acts.y, whose contents (the gradient of the experts' results) are used up.
  for_experts([&](int e, std::size_t i) {
    return LinearBackward{rows_of(acts.order, e, acts.gate.cview()),
                          rows_of(acts.order, e, acts.x.cview()),
                          w.experts[i].gate,
                          g.experts[i].gate,
                          rows_of(acts.order, e, acts.y.view()),
                          false};
  });
  for_experts([&](int e, std::size_t i) {
    return LinearBackward{rows_of(acts.order, e, acts.up.cview()),
                          rows_of(acts.order, e, acts.x.cview()),
                          w.experts[i].up,
                          g.experts[i].up,
                          rows_of(acts.order, e, acts.y.view()),
                          true};
  });
  combine(ctx, {acts.y.cview(), acts.order.slot.cview(), MatView<const float>{}, dh, false});

  if (present(w.shared)) {
    mlp_backward(ctx, precision, w.shared, g.shared, h, dy, dh, true, acts.shared, s.shared);
  }

  const double loss = balance_loss(ctx, {acts.scores.cview(), balance.sequences, dims.route.topk,
                                         balance.grad_scale, s.dscores.view()});
  route_backward(ctx, {dims.route, acts.scores.cview(), acts.index.cview(), s.dweight.cview(),
                       s.dscores.cview(), s.dlogits.view()});
  linear_backward(ctx, Precision::kF32, {{s.dlogits.cview(), h, w.router, g.router, dh, true}});
  return loss;
}

}  // namespace cachalot::nn
