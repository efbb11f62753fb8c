#include "plan/train_time.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace cachalot::plan {

namespace {

// Of the network between nodes, or of the links within one.
[[noreturn]] void lacks_rate(const HardwareProfile& h, bool network, const std::string& why,
                             const char* otherwise) {
  const bool counts_nics = network && h.network.nics_per_node <= 0;
  throw Error(Code::kConfig,
              cat("hardware profile '", h.name, "': ", network ? "network.gbps" : "link.gbps",
                  counts_nics ? " and network.nics_per_node are" : " is", " not known, but ", why,
                  ". Write the profile to a file (cachalot plan hardware NAME > FILE.toml), add "
                  "the figure with its source and give --hardware FILE.toml",
                  otherwise, "."));
}

double or_one(double share) noexcept { return share > 0 ? share : 1; }

// Between the points on a line in the logarithms, as at the ends beyond them; rows fewer than the
// first are taken in proportion, since the weights are read all the same.
double interpolate(const std::vector<double>& at, const std::vector<double>& value, double x) {
  if (x <= at.front()) return value.front() * x / at.front();
  if (x >= at.back()) return value.back();
  const auto above =
      static_cast<std::size_t>(std::upper_bound(at.begin(), at.end(), x) - at.begin());
  const double share = std::log(x / at[above - 1]) / std::log(at[above] / at[above - 1]);
  return value[above - 1] * std::pow(value[above] / value[above - 1], share);
}

const std::vector<double>& rates_of(const RatesProfile& rates, Arithmetic arithmetic) {
  switch (arithmetic) {
    case Arithmetic::kF32:
      return rates.f32_gflops;
    case Arithmetic::kBf16:
      return rates.bf16_gflops;
    case Arithmetic::kFp8:
      return rates.fp8_gflops;
    case Arithmetic::kInt8:
      return rates.int8_gflops;
  }
  return rates.f32_gflops;
}

}  // namespace

PassSeconds& PassSeconds::operator+=(const PassSeconds& other) noexcept {
  forward += other.forward;
  input_grad += other.input_grad;
  weight_grad += other.weight_grad;
  return *this;
}

PassSeconds operator*(double factor, const PassSeconds& p) noexcept {
  return {factor * p.forward, factor * p.input_grad, factor * p.weight_grad};
}

PassSeconds LayerTime::computing() const noexcept {
  PassSeconds sum = products;
  sum += attention;
  sum += elementwise;
  sum += accumulation;
  return sum;
}

LayerTime& LayerTime::operator+=(const LayerTime& other) noexcept {
  products += other.products;
  attention += other.attention;
  elementwise += other.elementwise;
  accumulation += other.accumulation;
  sending += other.sending;
  return *this;
}

Arithmetic arithmetic_of(cost::TrainPrecision precision) noexcept {
  switch (precision) {
    case cost::TrainPrecision::kF32:
      return Arithmetic::kF32;
    case cost::TrainPrecision::kBf16:
      return Arithmetic::kBf16;
    case cost::TrainPrecision::kFp8:
      return Arithmetic::kFp8;
  }
  return Arithmetic::kF32;
}

TrainClock::TrainClock(const model::Config& config, const cost::Layout& layout,
                       const HardwareProfile& hardware)
    : config_(config),
      layout_(layout),
      hardware_(hardware),
      linear_arithmetic_(arithmetic_of(layout.precision)),
      other_arithmetic_(layout.precision == cost::TrainPrecision::kF32 ? Arithmetic::kF32
                                                                       : Arithmetic::kBf16),
      tokens_(layout.tokens_per_micro_batch()) {
  if (hardware.read_rate() <= 0) {
    throw Error(Code::kConfig, cat("hardware profile '", hardware.name,
                                   "': device.memory_gbps is not known; training needs it."));
  }
  parts_ = parts();
}

double TrainClock::sustained() const noexcept { return or_one(hardware_.training.sustained); }

double TrainClock::product_seconds(Arithmetic arithmetic, double m, double n, double k) const {
  const TrainingProfile& t = hardware_.training;
  const RatesProfile& rates = hardware_.rates;
  const std::vector<double>& measured = rates_of(rates, arithmetic);
  double rate = 0;
  if (!measured.empty()) {
    rate = 1e9 * interpolate(rates.rows, measured, m);
  } else {
    rate = hardware_.product_rate(arithmetic) * m / (m + t.half_size);
  }
  if (rate <= 0) {
    throw Error(
        Code::kConfig,
        cat("hardware profile '", hardware_.name, "': the rate of products in ", name(arithmetic),
            " is not known; give device.", name(arithmetic), "_tflops or rates.", name(arithmetic),
            "_gflops, or train in another precision (--precision)."));
  }
  rate *= sustained() * n / (n + t.half_size) * k / (k + t.half_size);
  return 2 * m * n * k / rate + 1e-6 * t.product_us;
}

PassSeconds TrainClock::linear(Arithmetic arithmetic, double rows, double in, double out) const {
  return {product_seconds(arithmetic, rows, out, in), product_seconds(arithmetic, rows, in, out),
          // dW = dY^T X: as deep as there are rows.
          product_seconds(arithmetic, rows, out, in)};
}

PassSeconds TrainClock::pass_over(double values) const {
  constexpr double kReadAndWritten = 4;  // in bf16
  const double given = hardware_.training.elementwise_bytes;
  const double seconds = values * (given > 0 ? given : kReadAndWritten) / hardware_.read_rate();
  return {seconds, seconds, seconds};
}

PassSeconds TrainClock::accumulate(double parameters) const {
  return {0, 0, 8 * parameters / hardware_.read_rate()};
}

LayerTime TrainClock::attention_block() const {
  const model::Config& c = config_;
  const double hidden = c.hidden_size, heads = c.num_attention_heads, qk = c.qk_head_dim();
  const double query = heads * qk, value = heads * c.v_head_dim;
  const double row = c.kv_lora_rank + c.qk_rope_head_dim;
  LayerTime t;
  if (c.q_lora_rank > 0) {
    t.products += linear(linear_arithmetic_, tokens_, hidden, c.q_lora_rank + row);
    t.products += linear(linear_arithmetic_, tokens_, c.q_lora_rank, query);
  } else {
    t.products += linear(linear_arithmetic_, tokens_, hidden, query + row);
  }
  t.products += linear(linear_arithmetic_, tokens_, c.kv_lora_rank,
                       heads * (c.qk_nope_head_dim + c.v_head_dim));
  t.products += linear(linear_arithmetic_, tokens_, value, hidden);

  const TrainingProfile& p = hardware_.training;
  const auto peak_of = hardware_.device.bf16_tflops > 0 ? Arithmetic::kBf16 : Arithmetic::kF32;
  const double peak = hardware_.peak(peak_of);
  const double forward =
      p.attention_forward > 0 ? peak * p.attention_forward : hardware_.attention_rate();
  const double backward = p.attention_backward > 0 ? peak * p.attention_backward : forward;
  const double flops = 2 * heads * (qk + c.v_head_dim) * layout_.sequence / 2 * tokens_;
  t.attention = {flops / (forward * sustained()), 2.5 * flops / (backward * sustained()), 0};
  // Input, norm, latents, queries, keys, values, output, sum.
  t.elementwise = pass_over(tokens_ * (2 * hidden + c.q_lora_rank + row + 2 * query + 2 * value));
  t.accumulation = accumulate(cost::layer_sizes(c).attention);
  return t;
}

double TrainClock::expert_bandwidth(const std::vector<double>& measured) const {
  const bool network = layout_.expert > layout_.devices_per_node;
  if (!measured.empty()) {
    const auto& ranks = hardware_.training.expert_ranks;
    const double x = std::clamp<double>(layout_.expert, ranks.front(), ranks.back());
    return 1e9 * interpolate(ranks, measured, x);
  }
  const double rate = network ? hardware_.network_rate() : hardware_.link_rate();
  if (rate <= 0) {
    lacks_rate(hardware_, network, cat("experts on ", layout_.expert, " devices need it"),
               ", or take ep = 1");
  }
  return rate;
}

void TrainClock::add_experts(LayerTime& t) const {
  if (layout_.expert == 1) return;
  const cost::ExpertCopies copies = cost::expert_copies(config_, layout_);
  const double tokens = tokens_ / layout_.tensor;
  const double seconds = tokens * copies.places *
                         (copies.bytes_there / expert_bandwidth(hardware_.training.dispatch_gbps) +
                          copies.bytes_back / expert_bandwidth(hardware_.training.combine_gbps));
  t.sending += {seconds, seconds, 0};
}

void TrainClock::add_tensor_groups(LayerTime& t) const {
  if (layout_.tensor == 1) return;
  if (hardware_.link_rate() <= 0) {
    lacks_rate(hardware_, false, cat("tp = ", layout_.tensor, " needs it"), ", or take tp = 1");
  }
  const double value = layout_.precision == cost::TrainPrecision::kF32 ? 4 : 2;
  // Gather and scatter around attention and around the feed-forward part.
  const double seconds = 4 * tokens_ / layout_.tensor * config_.hidden_size * value *
                         (layout_.tensor - 1) / hardware_.link_rate();
  t.sending += {seconds, seconds, 0};
}

LayerTime TrainClock::feed_forward(bool moe) const {
  const model::Config& c = config_;
  const double hidden = c.hidden_size;
  const cost::LayerSizes sizes = cost::layer_sizes(c);
  LayerTime t;
  const auto mlp = [&](double rows, double width) {
    PassSeconds p = linear(linear_arithmetic_, rows, hidden, 2 * width);
    p += linear(linear_arithmetic_, rows, width, hidden);
    return p;
  };
  if (!moe) {
    t.products = mlp(tokens_, c.intermediate_size);
    t.elementwise = pass_over(tokens_ * (3 * hidden + 3.0 * c.intermediate_size));
    t.accumulation = accumulate(sizes.dense_ffn);
    return t;
  }
  const double width = c.moe_intermediate_size;
  t.products = linear(other_arithmetic_, tokens_, hidden, c.route.experts);
  if (c.n_shared_experts > 0) t.products += mlp(tokens_, c.n_shared_experts * width);
  // The experts of one device, each on its share of the tokens of the whole group.
  const double here = static_cast<double>(c.route.experts) / layout_.expert;
  // One device has all of them, whichever are chosen.
  const double uneven = layout_.expert > 1 ? or_one(hardware_.training.expert_imbalance) : 1;
  t.products += here * mlp(tokens_ * c.route.topk / here * uneven, width);
  const double copies = c.route.topk * uneven;
  t.elementwise = pass_over(
      tokens_ * (3 * hidden + copies * 2 * hidden + 3 * (copies + c.n_shared_experts) * width));
  // The layer is divided by `tensor` as a whole below; experts are not split that way.
  t.accumulation = accumulate(sizes.shared + sizes.router + layout_.tensor * here * sizes.expert);
  return t;
}

// What is computed again goes with the input's gradient.
void TrainClock::add_recomputation(LayerTime& t, bool moe) const {
  const model::Config& c = config_;
  if (layout_.recompute == cost::Recompute::kNone) return;
  if (layout_.recompute == cost::Recompute::kFull) {
    t.products.input_grad += t.products.forward;
    t.attention.input_grad += t.attention.forward;
    t.elementwise.input_grad += t.elementwise.forward;
    t.sending.input_grad += t.sending.forward;
    return;
  }
  const double query = static_cast<double>(c.num_attention_heads) * c.qk_head_dim();
  double again = product_seconds(
      linear_arithmetic_, tokens_,
      static_cast<double>(c.num_attention_heads) * (c.qk_nope_head_dim + c.v_head_dim),
      c.kv_lora_rank);
  if (c.q_lora_rank > 0) {
    again += product_seconds(linear_arithmetic_, tokens_, query, c.q_lora_rank);
  }
  t.products.input_grad += again / layout_.tensor;
  const double widths = moe ? (c.route.topk + c.n_shared_experts) * 1.0 * c.moe_intermediate_size
                            : c.intermediate_size;
  t.elementwise.input_grad +=
      pass_over(tokens_ * (2.0 * c.hidden_size + c.q_lora_rank + c.kv_lora_rank + widths)).forward /
      layout_.tensor;
}

LayerTime TrainClock::layer(bool moe) const {
  LayerTime t = attention_block();
  t += feed_forward(moe);
  const double share = 1.0 / layout_.tensor;
  t.products = share * t.products;
  t.attention = share * t.attention;
  t.elementwise = share * t.elementwise;
  t.accumulation = share * t.accumulation;
  if (moe) add_experts(t);
  add_tensor_groups(t);
  add_recomputation(t, moe);
  return t;
}

LayerTime TrainClock::head() const {
  LayerTime t;
  const double share = 1.0 / layout_.tensor;
  t.products = share * linear(other_arithmetic_, tokens_, config_.hidden_size, config_.vocab_size);
  t.elementwise = share * pass_over(tokens_ * config_.vocab_size);
  t.elementwise.weight_grad = 0;
  t.accumulation = share * accumulate(cost::layer_sizes(config_).table);
  return t;
}

LayerTime TrainClock::projection() const {
  const double share = 1.0 / layout_.tensor;
  LayerTime t;
  t.products =
      share * linear(other_arithmetic_, tokens_, 2.0 * config_.hidden_size, config_.hidden_size);
  t.accumulation = share * accumulate(cost::layer_sizes(config_).projection);
  return t;
}

TrainClock::Parts TrainClock::parts() const {
  const bool has_mtp = config_.num_nextn_predict_layers > 0;
  bool has_dense = false, has_moe = false;
  for (int i = 0; i < config_.num_hidden_layers + (has_mtp ? 1 : 0); ++i) {
    (config_.is_moe_layer(i) ? has_moe : has_dense) = true;
  }
  Parts p;
  if (has_dense) p.dense = layer(false);
  if (has_moe) p.moe = layer(true);
  p.head = head();
  if (has_mtp) {
    p.mtp = config_.is_moe_layer(config_.num_hidden_layers) ? p.moe : p.dense;
    p.mtp += projection();
    p.mtp += p.head;
  }
  return p;
}

cost::StageUnits TrainClock::units() const {
  const auto all = [](const LayerTime& t) { return t.computing().sum(); };
  const bool moe = config_.is_moe_layer(config_.num_hidden_layers - 1);
  return {all(moe ? parts_.moe : parts_.dense), 0,
          all(parts_.head) + config_.num_nextn_predict_layers * all(parts_.mtp)};
}

LayerTime TrainClock::stage(const cost::Stage& stage) const {
  LayerTime t;
  for (int i = 0; i < stage.dense_layers; ++i) t += parts_.dense;
  for (int i = 0; i < stage.moe_layers; ++i) t += parts_.moe;
  for (int i = 0; i < stage.mtp_layers; ++i) t += parts_.mtp;
  if (stage.head) t += parts_.head;
  return t;
}

cost::StageTimes TrainClock::stage_times(const cost::Stage& s) const {
  const LayerTime t = stage(s);
  const PassSeconds compute = t.computing();
  // Some of the cores communicate while a pair is computed.
  const bool sends = t.sending.sum() > 0;
  const double left = sends ? 1 - hardware_.network.compute_share : 1;
  return {compute.forward + t.sending.forward,
          compute.input_grad + t.sending.input_grad,
          compute.weight_grad,
          compute.forward / left,
          (compute.input_grad + compute.weight_grad) / left,
          t.sending.forward,
          t.sending.input_grad};
}

double TrainClock::send_seconds() const {
  if (layout_.pipeline == 1) return 0;
  const bool network = layout_.devices > layout_.devices_per_node;
  const double rate = network ? hardware_.network_rate() : hardware_.link_rate();
  if (rate <= 0) {
    lacks_rate(hardware_, network, cat("pp = ", layout_.pipeline, " needs it"), ", or take pp = 1");
  }
  const double value = layout_.precision == cost::TrainPrecision::kF32 ? 4 : 2;
  const double latency = network ? hardware_.network.latency_us : hardware_.link.latency_us;
  return tokens_ / layout_.tensor * config_.hidden_size * value / rate + 1e-6 * latency;
}

double TrainClock::optimizer_seconds(const cost::DeviceParameters& p) const {
  const double value = layout_.precision == cost::TrainPrecision::kF32 ? 4 : 2;
  const double moment = value;
  const double copies = cost::copies_of_weights(layout_.schedule);
  const double replicated_group = layout_.data() * copies;
  const double expert_group =
      static_cast<double>(layout_.data()) * layout_.tensor / layout_.expert * copies;
  const bool many_nodes = layout_.copies_cross_nodes();
  double seconds = 0;
  // Scatter the gradients' sums, gather the weights. What all devices of a node have is summed in
  // the node first, so each card carries its share; what only one has goes through its own card.
  const auto exchange = [&](double parameters, double group, bool whole_node) {
    if (group <= 1 || parameters <= 0) return;
    double rate = hardware_.link_rate();
    if (many_nodes) {
      const double network = hardware_.network_rate();
      const double across = whole_node ? network * layout_.devices_per_node : network;
      rate = rate > 0 && whole_node ? std::min(rate, across) : across;
    }
    if (rate <= 0) {
      lacks_rate(hardware_, many_nodes, cat(layout_.data(), " data-parallel copies need it"),
                 many_nodes ? ", or take one node" : "");
    }
    constexpr double kGradient = 4;  // summed in float, as it is kept
    seconds += (kGradient + value) * parameters * (group - 1) / group / rate;
  };
  exchange(p.replicated, replicated_group, true);
  exchange(p.experts, expert_group, false);
  const double owned = p.replicated / p.replicated_shards + p.experts / p.expert_shards;
  // Gradient read for the norm by everybody; the owner reads gradient, weight and moments and
  // writes all but the gradient; what products read is written.
  const double bytes = 4 * p.sum() + owned * (4 + 8 + 4 * moment) + value * p.sum();
  return seconds + bytes / hardware_.read_rate();
}

}  // namespace cachalot::plan
