#include "nn/moe.h"

#include <algorithm>

#include "kernels/bf16_ops.h"
#include "kernels/profile.h"
#include "kernels/saved.h"

namespace cachalot::nn {

namespace {

bool present(const MlpWeights& w) { return w.gate.rows > 0; }

// The parts of a layer: its experts, and the shared one where there is one.
struct Parts {
  FfnPart list[2];
  std::size_t count = 0;

  FfnPart& add() { return list[count++]; }
  std::span<const FfnPart> all() const { return {list, count}; }
};

MlpRows rows_of(const MlpWeights& w) {
  const auto weight = [](const WeightRef& m) { return RowsWeight{m, m.quant}; };
  return {weight(w.gate), weight(w.up), weight(w.down)};
}

// The routed experts and the shared one, but for their choices and where they read and write.
RoutedRows routed_of(const Numerics& num, const MoeWeights& w, MoeActs& acts) {
  acts.routed.clear();
  for (const MlpWeights& e : w.experts) acts.routed.push_back(rows_of(e));
  RoutedRows a;
  a.precision = num.products;
  a.experts = acts.routed;
  if (present(w.shared)) a.shared = rows_of(w.shared);
  return a;
}

// Whether floats are what experts read and send.
bool plain_rows(const Context& ctx, const Numerics& num) {
  return ctx.device != nullptr && !num.fp8 && !num.send_results &&
         num.quant_activations == QuantActivations::kBf16;
}

}  // namespace

bool routes_on_device(const Context& ctx, const Numerics& num, const BlockDims& dims,
                      const MoeWeights& w, int rows, MoeActs& acts) {
  if (!plain_rows(ctx, num)) return false;
  RoutedRows a = routed_of(num, w, acts);
  a.x.rows = a.y.rows = a.index.rows = a.weight.rows = rows;
  a.x.cols = a.y.cols = dims.hidden;
  a.index.cols = a.weight.cols = dims.route.topk;
  return takes_routed_rows(ctx, a);
}

void mlp_forward(const Context& ctx, const Numerics& num, const MlpWeights& w, const Operand& h,
                 MatView<float> y, FfnActs& acts, FfnSaved* saved, Products& products, bool add) {
  const PartScope scope(ctx, Part::kDense);
  FfnPart part;
  part.x = &h;
  part.w = {&w, 1};
  part.y = y;
  part.add_y = add;
  part.acts = &acts;
  part.saved = saved;
  ffn_forward(ctx, num, {&part, 1}, products);
}

void mlp_backward(const Context& ctx, const Numerics& num, const MlpWeights& w,
                  const MlpGradients& g, const Operand& h, const Operand& dy, MatView<float> dh,
                  FfnActs& acts, FfnSaved& saved, Products& products) {
  const PartScope scope(ctx, Part::kDense);
  FfnPart part;
  part.x = &h;
  part.w = {&w, 1};
  part.g = {&g, 1};
  part.acts = &acts;
  part.saved = &saved;
  part.dy = &dy;
  part.dx = dh;
  ffn_backward(ctx, num, {&part, 1}, products);
}

// Which experts the rows of h go to.
static void choose(const Context& ctx, const BlockDims& dims, const MoeWeights& w,
                   MatView<const float> h, MoeActs& acts, MoeRoute& r) {
  const PartScope scope(ctx, Part::kRouting);
  acts.logits.resize(h.rows, dims.route.experts);
  r.scores.resize(h.rows, dims.route.experts);
  r.index.resize(h.rows, dims.route.topk);
  r.weight.resize(h.rows, dims.route.topk);
  gemm(ctx, Precision::kF32, linear(h, w.router, acts.logits.view()));
  route(ctx, Route<float>{dims.route, acts.logits.cview(), w.bias, r.scores.view(), r.index.view(),
                          r.weight.view()});
}

static RoutedRows routed_rows_of(const Numerics& num, const MoeWeights& w, MatView<const float> h,
                                 MatView<float> y, MoeActs& acts, const MoeRoute& r) {
  RoutedRows a = routed_of(num, w, acts);
  a.x = h;
  a.index = r.index.cview();
  a.weight = r.weight.cview();
  a.y = y;
  return a;
}

void moe_forward_routed(const Context& ctx, const Numerics& num, const BlockDims& dims,
                        const MoeWeights& w, MatView<const float> h, MatView<float> y,
                        VecRef norm_weight, MatView<float> normed, MoeActs& acts, MoeRoute& r) {
  choose(ctx, dims, w, h, acts, r);
  const PartScope scope(ctx, Part::kExperts);
  RoutedRows routed = routed_rows_of(num, w, h, y, acts, r);
  routed.add = true;
  routed.normed = normed;
  routed.norm_weight = norm_weight;
  routed.eps = dims.eps;
  routed_rows(ctx, routed);
}

void moe_forward(const Context& ctx, const Numerics& num, const BlockDims& dims,
                 const MoeWeights& w, const Operand& h, MatView<const float> h_plain,
                 MatView<float> y, MoeActs& acts, MoeRoute& r, MoeSaved* saved, bool add) {
  const int t = h.rows();
  const int experts = dims.route.experts;
  const int topk = dims.route.topk;
  choose(ctx, dims, w, h_plain, acts, r);
  if (saved == nullptr && plain_rows(ctx, num)) {
    const PartScope scope(ctx, Part::kExperts);
    RoutedRows routed = routed_rows_of(num, w, h_plain, y, acts, r);
    routed.add = add;
    if (takes_routed_rows(ctx, routed)) return routed_rows(ctx, routed);
  }
  {
    const PartScope scope(ctx, Part::kRouting);
    expert_order(ctx, r.index.cview(), experts, r.order);
    acts.x.gather(ctx, num, h, r.order.token.span(), r.order.begin);
  }
  Parts parts;
  const bool shared_too = present(w.shared);
  if (shared_too) {
    FfnPart& shared = parts.add();
    shared.x = &h;
    shared.w = {&w.shared, 1};
    shared.y = y;
    shared.add_y = add;
    shared.acts = &acts.shared;
    shared.saved = saved != nullptr ? &saved->shared : nullptr;
  }
  FfnPart& routed = parts.add();
  routed.x = &acts.x;
  routed.w = w.experts;
  routed.acts = &acts.experts;
  routed.saved = saved != nullptr ? &saved->experts : nullptr;
  // What is sent in bf16 may as well be written so.
  const bool sent_in_bf16 = num.fp8 && num.send_results && num.combine == numeric::Payload::kBf16 &&
                            in_bf16(num, parts.all());
  if (sent_in_bf16) {
    routed.y_bf16 = acts.rows.as<Bf16>(t * topk, h.cols());
  } else {
    routed.y = acts.rows.as<float>(t * topk, h.cols());
  }
  {
    const PartScope scope(ctx, Part::kExperts);
    ffn_forward(ctx, num, parts.all(), acts.products);
  }
  const PartScope scope(ctx, Part::kRouting);
  if (sent_in_bf16) {
    combine_bf16(ctx,
                 {routed.y_bf16, r.order.slot.cview(), r.weight.cview(), y, add || shared_too});
    return;
  }
  if (num.send_results) payload_round_trip(ctx, num.combine, routed.y);
  combine(ctx, {routed.y, r.order.slot.cview(), r.weight.cview(), y, add || shared_too});
}

double balance_over(const Context& ctx, MatView<const float> scores, const BalanceTerm& balance,
                    int topk, MatView<float> dscores) {
  const std::span<const int> runs = balance.runs;
  const bool equal =
      std::all_of(runs.begin(), runs.end(), [&](int run) { return run == runs.front(); });
  if (equal) {
    return balance_loss(ctx,
                        {scores, static_cast<int>(runs.size()), topk, balance.grad_scale, dscores});
  }
  double loss = 0;
  int begin = 0;
  for (const int run : runs) {
    const double share = static_cast<double>(run) / scores.rows;
    const MatView<float> d = dscores.rows > 0 ? dscores.sub_rows(begin, run) : MatView<float>{};
    loss += share * balance_loss(ctx, {scores.sub_rows(begin, run), 1, topk,
                                       balance.grad_scale * static_cast<float>(share), d});
    begin += run;
  }
  return loss;
}

double moe_backward(const Context& ctx, const Numerics& num, const BlockDims& dims,
                    const MoeWeights& w, const MoeGradients& g, const Operand& h,
                    MatView<const float> h_plain, const BalanceTerm& balance, const Operand& dy,
                    MatView<float> dh, MoeActs& acts, MoeSaved& saved, MoeScratch& s) {
  const int t = h.rows();
  const MoeRoute& r = saved.route;
  const int rows = t * dims.route.topk;
  s.dweight.resize(t, dims.route.topk);
  s.dscores.resize(t, dims.route.experts);
  s.dlogits.resize(t, dims.route.experts);
  s.row_weight.resize(1, rows);
  s.drow_weight.resize(1, rows);
  {
    // Experts' rows: of their input, and of the gradient before the weights, which act on the
    // hidden rows instead, so that the experts' results need not be kept.
    const PartScope scope(ctx, Part::kRouting);
    acts.x.gather(ctx, num, h, r.order.token.span(), r.order.begin);
    acts.x.add_columns(ctx, num);
    s.dy.gather(ctx, num, dy, r.order.token.span(), r.order.begin);
    s.dy.add_columns(ctx, num);
    choices_to_rows(ctx, {saved.route.weight.view(), r.order.slot.cview(), s.row_weight.span()});
  }
  Parts parts;
  FfnPart& routed = parts.add();
  routed.x = &acts.x;
  routed.w = w.experts;
  routed.g = g.experts;
  routed.acts = &acts.experts;
  routed.saved = &saved.experts;
  routed.dy = &s.dy;
  routed.row_weight = s.row_weight.span();
  routed.drow_weight = s.drow_weight.span();
  const bool shared_too = present(w.shared);
  if (shared_too) {
    FfnPart& shared = parts.add();
    shared.x = &h;
    shared.w = {&w.shared, 1};
    shared.g = {&g.shared, 1};
    shared.acts = &acts.shared;
    shared.saved = &saved.shared;
    shared.dy = &dy;
    shared.dx = dh;
  }
  const bool dx_in_bf16 = in_bf16(num, parts.all());
  FfnPart& first = parts.list[0];  // the routed experts
  if (dx_in_bf16) {
    first.dx_bf16 = acts.rows.as<Bf16>(rows, h.cols());
  } else {
    first.dx = acts.rows.as<float>(rows, h.cols());
  }
  {
    const PartScope scope(ctx, Part::kExperts);
    ffn_backward(ctx, num, parts.all(), acts.products);
  }
  const PartScope scope(ctx, Part::kRouting);
  const auto slot = r.order.slot.cview();
  if (dx_in_bf16) {
    combine_bf16(ctx, {first.dx_bf16, slot, MatView<const float>{}, dh, shared_too});
  } else {
    combine(ctx, {first.dx, slot, MatView<const float>{}, dh, shared_too});
  }
  rows_to_choices(ctx, {s.dweight.view(), slot, s.drow_weight.span()});
  const double loss =
      balance_over(ctx, r.scores.cview(), balance, dims.route.topk, s.dscores.view());
  route_backward(ctx, {dims.route, r.scores.cview(), r.index.cview(), s.dweight.cview(),
                       s.dscores.cview(), s.dlogits.view()});
  const Gemm gate[] = {{s.dlogits.cview(), w.router, dh, false, false, true},
                       {s.dlogits.cview(), h_plain, g.router, true, false, !num.fresh_gradients}};
  gemm(ctx, Precision::kF32, gate);
  return loss;
}

}  // namespace cachalot::nn
