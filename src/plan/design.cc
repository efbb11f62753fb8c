#include "plan/design.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "cost/divisors.h"
#include "plan/design_estimate.h"

namespace cachalot::plan {

namespace {

using cost::TrainPrecision;

constexpr double kInfinite = std::numeric_limits<double>::infinity();
// Of the budget: the front says what less of it would do.
constexpr double kShares[] = {0.125, 0.25, 0.5, 1};

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

// What a shape may have at most, where the request says so.
struct Bound {
  const char* what;
  double Design::*value;
  double DesignRequest::*most;
};
constexpr Bound kBounds[] = {
    {"kv_bytes", &Design::kv_bytes, &DesignRequest::kv_bytes},
    {"tpot (ms)", &Design::tpot_ms, &DesignRequest::tpot_ms},
    {"active parameters", &Design::active, &DesignRequest::active_parameters},
    {"parameters", &Design::total, &DesignRequest::total_parameters},
};

bool is_over(const Bound& bound, const DesignRequest& r, double value) {
  return r.*bound.most > 0 && value > r.*bound.most;
}

// Why a shape is not to be trained, by its sizes: "" where it may.
std::string refusal(const HardwareProfile& h, const DesignRequest& r, const Design& d) {
  for (const Bound& bound : kBounds) {
    if (!is_over(bound, r, d.*bound.value)) continue;
    return cat(bound.what, " is ", d.*bound.value, ", above ", r.*bound.most);
  }
  const double room = usable_memory(h) * devices_of(h, r.nodes);
  if (room <= 0 || d.total * cost::least_state_bytes(d.precision) <= room) return "";
  return cat(d.total, " parameters do not fit the memory");
}

// Tokens that a shape may learn from. Experts learn a repeated text by heart sooner than dense
// models do (Xue et al. 2023, arXiv 2305.13230), and no law knows that: beyond four readings as
// many as were of use in runs here.
constexpr double kOften = 4, kMostRatio = 4;

double experts_for_one(const Design& d) {
  const double experts = d.config.route.experts;
  return d.config.route.topk > 0 ? experts / d.config.route.topk : 1;
}

double most_tokens(const DesignRequest& r, const Design& d) {
  const bool bounded = r.unique_tokens > 0 && experts_for_one(d) > kMostRatio;
  return bounded ? kOften * r.unique_tokens : kInfinite;
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

// One machine takes the largest micro-batch that fits: fewest passes over the weights' gradients.
std::optional<TrainPlan> on_one_device(const HardwareProfile& h, const Design& d,
                                       const cost::Layout& base, LayoutChoice choice) {
  choice.recompute = cost::Recompute::kSelective;
  const std::vector<int> sizes = cost::divisors(d.batch);
  for (auto size = sizes.rbegin(); size != sizes.rend(); ++size) {
    choice.micro_batch = *size;
    LayoutSearch s = search_layouts(d.config, h, base, choice, 1);
    if (!s.best.empty()) return std::move(s.best.front());
  }
  return std::nullopt;
}

// What the best layout makes of a shape; none where that takes `below_seconds` a step or more.
std::optional<TrainPlan> laid_out(const HardwareProfile& h, const DesignRequest& r, const Design& d,
                                  double below_seconds) {
  cost::Layout base = alone(r, d.precision, 1);
  base.devices_per_node = h.device.per_node;
  base.devices = devices_of(h, r.nodes);
  base.batch = d.batch;
  LayoutChoice choice;
  choice.tensor = 1;
  if (base.devices == 1) return on_one_device(h, d, base, choice);
  LayoutSearch s = search_layouts(d.config, h, base, choice, 1, below_seconds);
  if (s.best.empty()) return std::nullopt;
  return std::move(s.best.front());
}

// For each share of the budget the designs of lowest loss, by the cache that they may have. Shapes
// are looked at from the smallest cache on, and only those are laid out that could come to a lower
// loss than all before them. So the last one of the whole budget is the best of all.
class Search {
 public:
  Search(const HardwareProfile& h, const DesignRequest& r) : h_(h), r_(r) {}

  DesignResult run() {
    for (const TrainPrecision precision : precisions(h_, r_)) {
      for (const model::Config& c : design_shapes(r_, is_large(h_))) enter(c, precision);
    }
    for (std::size_t i = 0; i < std::size(kShares); ++i) settle_share(i);
    if (!result_.plan) {
      throw Error(Code::kConfig, cat("no design meets the request: of ", result_.considered,
                                     " shapes all are refused (", why_none(),
                                     "). Relax a constraint, or take more nodes."));
    }
    std::stable_sort(result_.front.begin(), result_.front.end(),
                     [](const Design& a, const Design& b) {
                       return a.loss != b.loss ? a.loss < b.loss : a.kv_bytes < b.kv_bytes;
                     });
    return std::move(result_);
  }

 private:
  struct Candidate {
    std::size_t shape = 0;
    int batch = 0;
    double estimate = 0;  // of the loss; on several devices the least
  };

  // A bound that no shape keeps is named with the least there is; else bounds together leave none.
  std::string why_none() const {
    for (std::size_t i = 0; i < std::size(kBounds); ++i) {
      if (!is_over(kBounds[i], r_, least_[i])) continue;
      return cat("of ", kBounds[i].what, " the least is ", least_[i], ", above ",
                 r_.*kBounds[i].most);
    }
    return cat("the last: ", last_refusal_);
  }

  void refuse(const std::string& why) {
    ++result_.refused;
    last_refusal_ = why;
  }

  void enter(const model::Config& config, TrainPrecision precision) {
    ++result_.considered;
    Design d = sized_design(h_, r_, config, precision);
    for (std::size_t i = 0; i < std::size(kBounds); ++i) {
      least_[i] = std::min(least_[i], d.*kBounds[i].value);
    }
    const std::string why = refusal(h_, r_, d);
    if (!why.empty()) {
      refuse(why);
      return;
    }
    Pace pace(h_, r_, config, precision);
    for (std::size_t i = 0; i < std::size(kShares); ++i) {
      estimate(h_, r_, pace, kShares[i] * r_.device_hours, d);
      const double loss = loss_after(r_, d, std::min(d.tokens, most_tokens(r_, d)));
      candidates_[i].push_back({shapes_.size(), d.batch, loss});
    }
    shapes_.push_back(std::move(d));
  }

  void settle_share(std::size_t share) {
    std::vector<Candidate>& candidates = candidates_[share];
    std::stable_sort(candidates.begin(), candidates.end(),
                     [&](const Candidate& a, const Candidate& b) {
                       const double x = shapes_[a.shape].kv_bytes, y = shapes_[b.shape].kv_bytes;
                       return x != y ? x < y : a.estimate < b.estimate;
                     });
    const bool is_bound = devices_of(h_, r_.nodes) > 1;
    const bool whole = kShares[share] == 1;
    double lowest = kInfinite;
    for (const Candidate& candidate : candidates) {
      if (is_bound && candidate.estimate >= lowest) continue;
      Design d = shapes_[candidate.shape];
      d.batch = candidate.batch;
      std::optional<TrainPlan> plan = settled(kShares[share] * r_.device_hours, lowest, whole, d);
      if (!plan || d.loss >= lowest) continue;
      lowest = d.loss;
      add_to_front(result_.front, d);
      if (!whole) continue;
      result_.best = std::move(d);
      result_.plan = std::move(plan);
    }
  }

  // With its own layout, if that may come below the loss `lowest`.
  std::optional<TrainPlan> settled(double device_hours, double lowest, bool count, Design& d) {
    d.seconds = device_hours * 3600 / devices_of(h_, r_.nodes);
    const double below = slowest_step(r_, d, lowest);
    std::optional<TrainPlan> plan = laid_out(h_, r_, d, below);
    std::string why;
    if (plan) {
      settle(h_, r_, *plan, device_hours, d);
      if (d.tokens <= most_tokens(r_, d)) return plan;
      why = cat("it has ", experts_for_one(d), " times the experts that a token uses, above ",
                kMostRatio, " where the text is read more than ", kOften, " times");
    } else if (below == kInfinite) {
      why = "no layout of the best shapes fits the memory";
    }
    if (count && !why.empty()) refuse(why);
    return std::nullopt;
  }

  const HardwareProfile& h_;
  const DesignRequest& r_;
  std::vector<Design> shapes_;  // that the constraints allow
  std::vector<Candidate> candidates_[std::size(kShares)];
  std::string last_refusal_;
  double least_[std::size(kBounds)] = {kInfinite, kInfinite, kInfinite,
                                       kInfinite};  // of all shapes
  DesignResult result_;
};

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
  Design d = sized_design(hardware, request, config, precision);
  Pace pace(hardware, request, config, precision);
  estimate(hardware, request, pace, device_hours, d);
  std::optional<TrainPlan> plan = laid_out(hardware, request, d, kInfinite);
  if (!plan) {
    throw Error(Code::kConfig, cat("no layout of ", devices_of(hardware, request.nodes),
                                   " devices of '", hardware.name, "' fits this model."));
  }
  settle(hardware, request, *plan, device_hours, d);
  return {std::move(d), *std::move(plan)};
}

DesignResult search_designs(const HardwareProfile& hardware, const DesignRequest& request) {
  return Search(hardware, request).run();
}

}  // namespace cachalot::plan
