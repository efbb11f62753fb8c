#include "plan/design.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "cost/cost.h"

namespace cachalot::plan {

namespace {

using cost::TrainPrecision;

// The report's bound on what FP8 costs (appendix B.1: relative loss error below 0.25 %).
constexpr double kFp8Loss = 1.0025;

bool has(const HardwareProfile& hardware, TrainPrecision precision) {
  switch (precision) {
    case TrainPrecision::kF32:
      return hardware.device.f32_tflops > 0 || !hardware.rates.f32_gflops.empty();
    case TrainPrecision::kBf16:
      return hardware.device.bf16_tflops > 0 || !hardware.rates.bf16_gflops.empty();
    case TrainPrecision::kFp8:
      return hardware.device.fp8_tflops > 0;
  }
  return false;
}

std::vector<TrainPrecision> precisions(const HardwareProfile& hardware, const DesignRequest& r) {
  if (r.precision) return {*r.precision};
  std::vector<TrainPrecision> out;
  for (const auto p : {TrainPrecision::kFp8, TrainPrecision::kBf16, TrainPrecision::kF32}) {
    if (has(hardware, p)) out.push_back(p);
  }
  if (out.empty()) {
    throw Error(Code::kConfig, cat("hardware profile '", hardware.name,
                                   "': no rate of products is known; give device.bf16_tflops, "
                                   "device.f32_tflops or rates."));
  }
  // f32 is the oracle path: only where there is nothing faster.
  if (out.size() > 1) std::erase(out, TrainPrecision::kF32);
  return out;
}

// One device that has everything, so many sequences at a time: how shapes are first ordered.
cost::Layout alone(const DesignRequest& r, TrainPrecision precision, int sequences) {
  cost::Layout l;
  l.sequence = r.sequence;
  l.micro_batch = sequences;
  l.batch = l.micro_batch;
  l.precision = precision;
  return l;
}

double stage_seconds(const TrainClock& clock, const model::Config& c) {
  cost::Stage whole;
  for (int layer = 0; layer < c.num_hidden_layers; ++layer) {
    ++(c.is_moe_layer(layer) ? whole.moe_layers : whole.dense_layers);
  }
  whole.embedding = whole.head = true;
  whole.mtp_layers = c.num_nextn_predict_layers;
  return clock.stage(whole).computing().sum();
}

int law_batch(const DesignRequest& r, double tokens, int devices) {
  const double sequences = batch_tokens(tokens) / r.sequence;
  const int multiple = std::max(1, devices);
  return std::max(1, static_cast<int>(std::lround(sequences / multiple))) * multiple;
}

// How fast a shape learns on all devices, by the size of a step. Communication is left out: layouts
// are searched for the best shapes alone.
class Pace {
 public:
  Pace(const HardwareProfile& h, const DesignRequest& r, const model::Config& c,
       TrainPrecision precision)
      : hardware_(h),
        request_(r),
        config_(c),
        precision_(precision),
        devices_(r.nodes * h.device.per_node) {
    const cost::Layout layout = alone(r, precision, 1);
    const auto total = static_cast<double>(cost::parameters(c).total);
    optimizer_ = TrainClock(c, layout, h).optimizer_seconds({total / devices_, 0, 1, 1});
  }

  // For a run of so many tokens.
  int batch(double tokens) {
    if (request_.batch > 0) return request_.batch;
    const int most = law_batch(request_, tokens, devices_);
    if (devices_ > 1) return most;
    constexpr double kSlower = 1.05;
    for (int batch = 1; batch < most; batch *= 2) {
      if (seconds_per_token(batch) <= kSlower * seconds_per_token(most)) return batch;
    }
    return most;
  }

  // The optimiser's passes are shared by the tokens of a step.
  double seconds_per_token(int batch) {
    constexpr double kUsual = 4096;  // tokens at a time, where several devices share a step
    const int usual = std::max(1, static_cast<int>(kUsual / request_.sequence));
    const int at_once = devices_ > 1 ? usual : std::min(batch, usual);
    const double sequences = batch / static_cast<double>(devices_);
    return (sequences * sequence_seconds(at_once) + optimizer_) /
           (static_cast<double>(batch) * request_.sequence);
  }

 private:
  double sequence_seconds(int at_once) {
    const auto found = known_.find(at_once);
    if (found != known_.end()) return found->second;
    const cost::Layout layout = alone(request_, precision_, at_once);
    const double seconds = stage_seconds(TrainClock(config_, layout, hardware_), config_) / at_once;
    return known_[at_once] = seconds;
  }

  const HardwareProfile& hardware_;
  const DesignRequest& request_;
  const model::Config& config_;
  TrainPrecision precision_;
  int devices_;
  double optimizer_ = 0;
  std::map<int, double> known_;  // seconds of a sequence, by how many are computed at once
};

// One token of one stream with a full cache: active weights and the cache are read once.
double tpot_ms(const HardwareProfile& h, const DesignRequest& r, const Design& d) {
  const double weight = d.precision == TrainPrecision::kFp8 ? 1 : 2;
  const double bytes = d.active * weight + d.kv_bytes * r.sequence;
  return 1e3 * bytes / h.read_rate();
}

void finish(const HardwareProfile& h, const DesignRequest& r, double seconds_per_token,
            double device_hours, Design& d) {
  const int devices = r.nodes * h.device.per_node;
  d.device_hours = device_hours;
  d.seconds = device_hours * 3600 / devices;
  d.tokens = d.seconds / seconds_per_token;
  d.money = device_hours * h.device_hour();
  const cost::Parameters p = cost::parameters(d.config);
  d.active = static_cast<double>(p.matmul);
  d.total = static_cast<double>(p.total);
  d.kv_bytes = static_cast<double>(cost::kv_bytes_per_token(d.config));
  d.tpot_ms = tpot_ms(h, r, d);
  const model::Config& c = d.config;
  const double used = c.route.topk + c.n_shared_experts;
  const double ratio = c.route.experts > 0 ? (c.route.experts + c.n_shared_experts) / used : 1.0;
  d.loss = predicted_loss(r.law, {d.active, ratio, d.tokens, r.unique_tokens, r.token_bytes}) *
           (d.precision == TrainPrecision::kFp8 ? kFp8Loss : 1);
  const double step = static_cast<double>(d.batch) * r.sequence;
  d.learning_rate = learning_rate(d.active, d.tokens, step, c.hidden_size);
  d.steps = d.tokens / step;
}

// What a step has depends on the tokens of the run, and these on the speed of its steps, so this is
// settled in a few rounds.
Design alone_design(const HardwareProfile& h, const DesignRequest& r, const model::Config& c,
                    TrainPrecision precision, double device_hours) {
  constexpr double kFirst = 4096;  // tokens of a step, to begin with
  Design d;
  d.config = c;
  d.precision = precision;
  Pace pace(h, r, c, precision);
  d.batch = std::max(1, static_cast<int>(kFirst / r.sequence)) * r.nodes * h.device.per_node;
  for (int round = 0; round < 4; ++round) {
    finish(h, r, pace.seconds_per_token(d.batch), device_hours, d);
    d.batch = pace.batch(d.tokens);
  }
  finish(h, r, pace.seconds_per_token(d.batch), device_hours, d);
  return d;
}

// With the layout that was found for it: its speed, its batch.
void settle(const HardwareProfile& h, const DesignRequest& r, const TrainPlan& plan,
            double device_hours, Design& d) {
  d.batch = plan.layout.batch;
  finish(h, r, plan.seconds / plan.layout.tokens_per_step(), device_hours, d);
}

std::string refusal(const DesignRequest& r, const Design& d) {
  // Experts learn a repeated text by heart sooner than dense models do (Xue et al. 2023, arXiv
  // 2305.13230), and no law knows that: beyond four readings as many as were of use in runs here.
  constexpr double kOften = 4, kMostRatio = 4;
  const double ratio = d.config.route.topk > 0 ? d.config.route.experts / d.config.route.topk : 1;
  if (r.unique_tokens > 0 && d.tokens > kOften * r.unique_tokens && ratio > kMostRatio) {
    return cat("it has ", ratio, " times the experts that a token uses, above ", kMostRatio,
               " where the text is read more than ", kOften, " times");
  }
  const auto over = [](const char* what, double value, double bound) {
    return bound > 0 && value > bound ? cat(what, " is ", value, ", above ", bound) : std::string();
  };
  for (const std::string& text :
       {over("kv_bytes", d.kv_bytes, r.kv_bytes), over("tpot (ms)", d.tpot_ms, r.tpot_ms),
        over("active parameters", d.active, r.active_parameters),
        over("parameters", d.total, r.total_parameters)}) {
    if (!text.empty()) return text;
  }
  return "";
}

bool fits(const HardwareProfile& h, const DesignRequest& r, const Design& d) {
  const double room = usable_memory(h) * r.nodes * h.device.per_node;
  constexpr double kBytesPerParameter = 14;  // bf16 copy, float gradient and master, bf16 moments
  return room <= 0 || d.total * kBytesPerParameter <= room;
}

bool dominates(const Design& a, const Design& b) {
  const bool no_worse =
      a.loss <= b.loss && a.device_hours <= b.device_hours && a.kv_bytes <= b.kv_bytes;
  const bool better = a.loss < b.loss || a.device_hours < b.device_hours || a.kv_bytes < b.kv_bytes;
  return no_worse && better;
}

void add_to_front(std::vector<Design>& front, const Design& d) {
  for (const Design& other : front) {
    const bool same = other.loss == d.loss && other.device_hours == d.device_hours &&
                      other.kv_bytes == d.kv_bytes;
    if (same || dominates(other, d)) return;
  }
  std::erase_if(front, [&](const Design& other) { return dominates(d, other); });
  front.push_back(d);
}

// On several devices: what the best layout makes of a shape.
std::optional<TrainPlan> laid_out(const HardwareProfile& h, const DesignRequest& r,
                                  const Design& d) {
  cost::Layout base = alone(r, d.precision, 1);
  base.devices_per_node = h.device.per_node;
  base.devices = r.nodes * h.device.per_node;
  base.batch = d.batch;
  LayoutChoice choice;
  choice.tensor = 1;
  if (base.devices == 1) {
    choice.micro_batch = d.batch;
    choice.recompute = cost::Recompute::kSelective;
    // The largest micro-batch that fits: fewest passes over the weights' gradients.
    while (*choice.micro_batch > 1) {
      LayoutSearch s = search_layouts(d.config, h, base, choice, 1);
      if (!s.best.empty()) return std::move(s.best.front());
      do {
        choice.micro_batch = *choice.micro_batch - 1;
      } while (d.batch % *choice.micro_batch != 0);
    }
  }
  LayoutSearch s = search_layouts(d.config, h, base, choice, 1);
  if (s.best.empty()) return std::nullopt;
  return std::move(s.best.front());
}

}  // namespace

bool is_large(const HardwareProfile& hardware) noexcept {
  return std::max(hardware.device.bf16_tflops, hardware.device.f32_tflops) > 20;
}

double batch_tokens(double tokens) { return 0.58 * std::pow(tokens, 0.571); }

double learning_rate(double parameters, double tokens, double batch, double width) {
  constexpr double kMost = 3e-3, kSmallestOfLaw = 6e7;
  constexpr double kSmall = 1e-3, kSmallWidth = 256, kSmallStep = 2048;
  if (parameters < kSmallestOfLaw) {
    return std::min(kMost, kSmall * kSmallWidth / width * std::sqrt(batch / kSmallStep));
  }
  const double law = 1.79 * std::pow(parameters, -0.713) * std::pow(tokens, 0.307);
  return std::min(kMost, law * std::min(1.0, std::sqrt(batch / batch_tokens(tokens))));
}

TimedDesign evaluate_design(const HardwareProfile& hardware, const DesignRequest& request,
                            const model::Config& config, TrainPrecision precision,
                            double device_hours) {
  Design d = alone_design(hardware, request, config, precision, device_hours);
  std::optional<TrainPlan> plan = laid_out(hardware, request, d);
  if (!plan) {
    throw Error(Code::kConfig, cat("no layout of ", request.nodes * hardware.device.per_node,
                                   " devices of '", hardware.name, "' fits this model."));
  }
  settle(hardware, request, *plan, device_hours, d);
  return {std::move(d), *std::move(plan)};
}

DesignResult search_designs(const HardwareProfile& h, const DesignRequest& r) {
  DesignResult result;
  std::vector<Design> all;
  std::string last_refusal;
  for (const TrainPrecision precision : precisions(h, r)) {
    for (const model::Config& c : design_shapes(r, is_large(h))) {
      ++result.considered;
      Design d = alone_design(h, r, c, precision, r.device_hours);
      const std::string why = refusal(r, d);
      if (!why.empty() || !fits(h, r, d)) {
        ++result.refused;
        last_refusal = why.empty() ? cat(d.total, " parameters do not fit the memory") : why;
        continue;
      }
      for (const double share : {0.125, 0.25, 0.5}) {
        add_to_front(result.front, alone_design(h, r, c, precision, share * r.device_hours));
      }
      all.push_back(std::move(d));
    }
  }
  const auto order = [](const Design& a, const Design& b) {
    return a.loss != b.loss ? a.loss < b.loss : a.kv_bytes < b.kv_bytes;
  };
  std::stable_sort(all.begin(), all.end(), order);
  // The first ones again, with the layout that suits each.
  constexpr std::size_t kFinalists = 12;
  double best = 0;
  for (std::size_t i = 0, tried = 0; i < all.size() && tried < kFinalists; ++i) {
    std::optional<TrainPlan> plan = laid_out(h, r, all[i]);
    if (!plan) {
      ++result.refused;
      last_refusal = "no layout of the best shapes fits the memory";
      continue;
    }
    ++tried;
    Design d = all[i];
    settle(h, r, *plan, r.device_hours, d);
    add_to_front(result.front, d);
    if (!result.plan || d.loss < best) {
      best = d.loss;
      result.best = d;
      result.plan = std::move(plan);
    }
  }
  if (!result.plan) {
    throw Error(Code::kConfig, cat("no design meets the request: of ", result.considered,
                                   " shapes all are refused (the last: ", last_refusal,
                                   "). Relax a constraint, or take more nodes."));
  }
  std::stable_sort(result.front.begin(), result.front.end(), order);
  return result;
}

}  // namespace cachalot::plan
