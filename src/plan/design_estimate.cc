#include "plan/design_estimate.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cost/cost.h"
#include "plan/layout_bound.h"

namespace cachalot::plan {

namespace {

using cost::TrainPrecision;

constexpr double kInfinite = std::numeric_limits<double>::infinity();

double stage_seconds(const TrainClock& clock, const model::Config& c) {
  cost::Stage whole;
  for (int layer = 0; layer < c.num_hidden_layers; ++layer) {
    ++(c.is_moe_layer(layer) ? whole.moe_layers : whole.dense_layers);
  }
  whole.embedding = whole.head = true;
  whole.mtp_layers = c.num_nextn_predict_layers;
  return clock.stage(whole).computing().sum();
}

// As many for each device as come nearest to so many in all.
int evenly(double sequences, int devices) {
  constexpr double kMost = 1 << 30;
  const double each = std::min(sequences, kMost) / devices;
  return static_cast<int>(std::max(1L, std::lround(each)) * devices);
}

// One token of one stream with a full cache: active weights and the cache are read once.
double tpot_ms(const HardwareProfile& h, const DesignRequest& r, const Design& d) {
  const double weight = d.precision == TrainPrecision::kFp8 ? 1 : 2;
  const double bytes = d.active * weight + d.kv_bytes * r.sequence;
  return 1e3 * bytes / h.read_rate();
}

void spend(const HardwareProfile& h, const DesignRequest& r, double seconds_per_token,
           double device_hours, Design& d) {
  d.device_hours = device_hours;
  d.seconds = device_hours * 3600 / devices_of(h, r.nodes);
  d.tokens = d.seconds / seconds_per_token;
  d.money = device_hours * h.device_hour();
  d.loss = loss_after(r, d, d.tokens);
  const double step = static_cast<double>(d.batch) * r.sequence;
  d.learning_rate = learning_rate(d.active, d.tokens, step, d.config.hidden_size);
  d.steps = d.tokens / step;
}

}  // namespace

cost::Layout alone(const DesignRequest& r, TrainPrecision precision, int sequences) {
  cost::Layout l;
  l.sequence = r.sequence;
  l.micro_batch = sequences;
  l.batch = l.micro_batch;
  l.precision = precision;
  return l;
}

Pace::Pace(const HardwareProfile& h, const DesignRequest& r, const model::Config& c,
           TrainPrecision precision)
    : hardware_(h),
      request_(r),
      config_(c),
      precision_(precision),
      devices_(devices_of(h, r.nodes)) {
  const cost::Layout layout = alone(r, precision, 1);
  const auto total = static_cast<double>(cost::parameters(c).total);
  optimizer_ = TrainClock(c, layout, h).optimizer_seconds({total / devices_, 0, 1, 1});
}

int Pace::batch(double tokens) {
  if (request_.batch > 0) return request_.batch;
  const int most = evenly(batch_tokens(tokens) / request_.sequence, devices_);
  if (devices_ > 1) return most;
  constexpr double kSlower = 1.05;
  for (int batch = 1; batch < most; batch *= 2) {
    if (seconds_per_token(batch) <= kSlower * seconds_per_token(most)) return batch;
  }
  return most;
}

// The optimiser's passes are shared by the tokens of a step.
double Pace::seconds_per_token(int batch) {
  constexpr double kUsual = 4096;  // tokens at a time
  const int usual = std::max(1, static_cast<int>(kUsual / request_.sequence));
  const double each = devices_ > 1 ? least_seconds(batch) : alone_seconds(std::min(batch, usual));
  const double sequences = batch / static_cast<double>(devices_);
  return (sequences * each + optimizer_) / (static_cast<double>(batch) * request_.sequence);
}

// Of a sequence on one device.
double Pace::alone_seconds(int at_once) {
  const auto found = alone_.find(at_once);
  if (found != alone_.end()) return found->second;
  const cost::Layout layout = alone(request_, precision_, at_once);
  const double seconds = stage_seconds(TrainClock(config_, layout, hardware_), config_) / at_once;
  return alone_[at_once] = seconds;
}

// Of a sequence on one of several devices, whatever the layout. Products are no slower with more
// rows, so it is the largest micro-batch that memory may allow. What is not computed again saves
// time and takes memory: more of that pays only where the micro-batch gets larger.
double Pace::least_seconds(int batch) {
  using cost::Recompute;
  cost::Layout l = alone(request_, precision_, 1);
  l.devices_per_node = hardware_.device.per_node;
  l.devices = devices_;
  l.batch = batch;
  double least = kInfinite;
  int last = 0;
  for (const auto recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
    l.recompute = recompute;
    const int micro_batch = largest_micro_batch(l);
    if (micro_batch <= last) continue;
    l.micro_batch = last = micro_batch;
    least = std::min(least, least_over_groups(l));
  }
  return least;
}

// However the experts are dealt out.
double Pace::least_over_groups(const cost::Layout& layout) {
  const std::pair key(layout.micro_batch, layout.recompute);
  const auto found = least_.find(key);
  if (found != least_.end()) return found->second;
  double least = kInfinite;
  cost::Layout l = layout;
  for (const int expert : expert_groups(config_.route.experts, devices_)) {
    l.expert = expert;
    least = std::min(least, least_sequence_seconds(config_, l, TrainClock(config_, l, hardware_)));
  }
  return least_[key] = least;
}

// 0: not even one sequence.
int Pace::largest_micro_batch(cost::Layout l) const {
  const double room = usable_memory(hardware_);
  int largest = 0;
  for (std::int64_t size = 1;
       size <= l.batch && size * devices_ <= std::int64_t{l.batch} * kMostPipeline; size *= 2) {
    l.micro_batch = static_cast<int>(size);
    if (room > 0 && cost::least_activations(config_, l) > room) break;
    largest = l.micro_batch;
  }
  return largest;
}

Design sized_design(const HardwareProfile& h, const DesignRequest& r, const model::Config& c,
                    TrainPrecision precision) {
  Design d;
  d.config = c;
  d.precision = precision;
  const cost::Parameters p = cost::parameters(c);
  d.active = static_cast<double>(p.matmul);
  d.total = static_cast<double>(p.total);
  d.kv_bytes = static_cast<double>(cost::kv_bytes_per_token(c));
  d.tpot_ms = tpot_ms(h, r, d);
  return d;
}

void estimate(const HardwareProfile& h, const DesignRequest& r, Pace& pace, double device_hours,
              Design& d) {
  constexpr int kFirst = 4096;  // tokens of a step on each device, to begin with
  const int devices = devices_of(h, r.nodes);
  d.batch = evenly(static_cast<double>(std::max(1, kFirst / r.sequence)) * devices, devices);
  for (int round = 0; round < 4; ++round) {
    spend(h, r, pace.seconds_per_token(d.batch), device_hours, d);
    d.batch = pace.batch(d.tokens);
  }
  spend(h, r, pace.seconds_per_token(d.batch), device_hours, d);
}

void settle(const HardwareProfile& h, const DesignRequest& r, const TrainPlan& plan,
            double device_hours, Design& d) {
  d.batch = plan.layout.batch;
  spend(h, r, plan.seconds / plan.layout.tokens_per_step(), device_hours, d);
}

double loss_after(const DesignRequest& r, const Design& d, double tokens) {
  // The report's bound on what FP8 costs (appendix B.1: relative loss error below 0.25 %).
  constexpr double kFp8Loss = 1.0025;
  const model::Config& c = d.config;
  const double used = c.route.topk + c.n_shared_experts;
  const double ratio = c.route.experts > 0 ? (c.route.experts + c.n_shared_experts) / used : 1.0;
  return predicted_loss(r.law, {d.active, ratio, tokens, r.unique_tokens, r.token_bytes}) *
         (d.precision == TrainPrecision::kFp8 ? kFp8Loss : 1);
}

double slowest_step(const DesignRequest& r, const Design& d, double loss) {
  if (loss == kInfinite) return kInfinite;
  // Tokens that are too few for it, and enough.
  constexpr double kFactor = 4, kMost = 1e30, kClose = 1 + 1e-9;
  double enough = 1;
  while (loss_after(r, d, enough) > loss) {
    if (enough > kMost) return 0;  // read as often as may be
    enough *= kFactor;
  }
  double few = enough / kFactor;
  while (enough > kClose * few) {
    const double middle = std::sqrt(few * enough);
    (loss_after(r, d, middle) > loss ? few : enough) = middle;
  }
  return d.seconds * d.batch * r.sequence / few;
}

}  // namespace cachalot::plan
