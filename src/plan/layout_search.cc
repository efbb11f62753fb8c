// All layouts that the counts allow. Each is judged by what it takes at least; those that could
// still be among the fastest are simulated, the most promising first.
#include <algorithm>
#include <utility>

#include "cost/divisors.h"
#include "plan/layout_bound.h"
#include "plan/train_plan.h"

namespace cachalot::plan {

namespace {

using cost::LayoutProblem;

template <class T>
std::vector<T> choices(const std::optional<T>& fixed, std::vector<T> all) {
  return fixed ? std::vector<T>{*fixed} : std::move(all);
}

std::vector<int> powers_of_two(int most) {
  std::vector<int> out;
  for (std::int64_t x = 1; x <= most; x *= 2) out.push_back(static_cast<int>(x));
  return out;
}

struct Pipeline {
  int ranks = 1;
  cost::ScheduleKind schedule = cost::ScheduleKind::k1F1B;
};

std::vector<Pipeline> pipelines(const cost::Layout& base, const LayoutChoice& fixed) {
  const std::vector<cost::ScheduleKind> kinds(std::begin(cost::kScheduleKinds),
                                              std::end(cost::kScheduleKinds));
  std::vector<Pipeline> out;
  for (const int ranks : choices(fixed.pipeline, cost::divisors(base.devices, kMostPipeline))) {
    for (const auto kind :
         choices(fixed.schedule, ranks == 1 ? std::vector{cost::ScheduleKind::k1F1B} : kinds)) {
      out.push_back({ranks, kind});
    }
  }
  return out;
}

// What a device computes on at once: all of a layout but its pipeline.
template <class Visit>
void for_each_share(const model::Config& config, const cost::Layout& base,
                    const LayoutChoice& fixed, const Visit& visit) {
  using cost::Recompute;
  cost::Layout l = base;
  for (const int tensor : choices(fixed.tensor, cost::divisors(l.devices_per_node, 8))) {
    l.tensor = tensor;
    for (const int expert : choices(fixed.expert, expert_groups(config.route.experts, l.devices))) {
      l.expert = expert;
      for (const int micro_batch : choices(fixed.micro_batch, powers_of_two(l.batch))) {
        l.micro_batch = micro_batch;
        for (const auto recompute : choices(
                 fixed.recompute, {Recompute::kSelective, Recompute::kFull, Recompute::kNone})) {
          l.recompute = recompute;
          visit(l);
        }
      }
    }
  }
}

class Search {
 public:
  Search(const model::Config& config, const HardwareProfile& hardware, const cost::Layout& base,
         const LayoutChoice& fixed, double below_seconds)
      : config_(config),
        hardware_(hardware),
        pipelines_(pipelines(base, fixed)),
        room_(usable_memory(hardware)),
        below_seconds_(below_seconds) {}

  // All pipelines of one share.
  void consider(cost::Layout l) {
    const std::vector<Pipeline> possible = possible_pipelines(l);
    if (possible.empty()) return;
    if (room_ > 0 && cost::least_activations(config_, l) > room_) {
      out_.too_large += static_cast<int>(possible.size());
      return;
    }
    const TrainClock clock(config_, l, hardware_);  // goes on with each pipeline that `l` gets
    const double least = least_sequence_seconds(config_, l, clock) * l.batch * l.tensor / l.devices;
    if (least >= below_seconds_) return;
    for (const Pipeline& pipeline : possible) {
      l.pipeline = pipeline.ranks;
      l.schedule = pipeline.schedule;
      const LeastNeeds needs = least_needs(config_, l, clock);
      if (room_ > 0 && needs.memory > room_) {
        ++out_.too_large;
      } else if (needs.seconds < below_seconds_) {
        candidates_.push_back({needs.seconds, l});
      }
    }
  }

  LayoutSearch simulate(int keep) {
    std::stable_sort(
        candidates_.begin(), candidates_.end(),
        [](const Candidate& a, const Candidate& b) { return a.least_seconds < b.least_seconds; });
    std::vector<TrainPlan>& best = out_.best;
    for (const Candidate& candidate : candidates_) {
      const bool full = static_cast<int>(best.size()) >= keep;
      const double bound = full ? best.back().seconds : below_seconds_;
      if (candidate.least_seconds >= bound) break;
      TrainPlan plan = plan_training(config_, hardware_, candidate.layout);
      if (room_ > 0 && plan.memory_bytes() > room_) {
        ++out_.too_large;
        continue;
      }
      if (plan.seconds >= bound) continue;
      if (full) best.pop_back();
      const auto slower = std::find_if(
          best.begin(), best.end(), [&](const TrainPlan& p) { return plan.seconds < p.seconds; });
      best.insert(slower, std::move(plan));
    }
    return std::move(out_);
  }

 private:
  struct Candidate {
    double least_seconds = 0;
    cost::Layout layout;
  };

  std::vector<Pipeline> possible_pipelines(cost::Layout l) {
    std::vector<Pipeline> possible;
    for (const Pipeline& pipeline : pipelines_) {
      l.pipeline = pipeline.ranks;
      l.schedule = pipeline.schedule;
      ++out_.tried;
      if (cost::first_problem(config_, l) == LayoutProblem::kNone) {
        possible.push_back(pipeline);
      } else {
        ++out_.impossible;
      }
    }
    return possible;
  }

  const model::Config& config_;
  const HardwareProfile& hardware_;
  std::vector<Pipeline> pipelines_;
  double room_;
  double below_seconds_;
  std::vector<Candidate> candidates_;
  LayoutSearch out_;
};

// What is fixed, and 1 of everything else.
cost::Layout plainest(cost::Layout l, const LayoutChoice& fixed) {
  l.pipeline = fixed.pipeline.value_or(1);
  l.tensor = fixed.tensor.value_or(1);
  l.expert = fixed.expert.value_or(1);
  l.micro_batch = fixed.micro_batch.value_or(1);
  l.schedule = fixed.schedule.value_or(cost::ScheduleKind::k1F1B);
  return l;
}

}  // namespace

std::vector<int> expert_groups(int experts, int devices) {
  std::vector<int> out;
  for (const int group : powers_of_two(std::max(1, std::min(experts, devices)))) {
    if (experts % group == 0) out.push_back(group);
  }
  return out;
}

LayoutSearch search_layouts(const model::Config& config, const HardwareProfile& hardware,
                            const cost::Layout& base, const LayoutChoice& fixed, int keep,
                            double below_seconds) {
  Search search(config, hardware, base, fixed, below_seconds);
  for_each_share(config, base, fixed, [&](const cost::Layout& l) { search.consider(l); });
  return search.simulate(keep);
}

std::string why_no_layout(const model::Config& config, const HardwareProfile& hardware,
                          const cost::Layout& base, const LayoutChoice& fixed) {
  // The layout that gets furthest before it fails; a schedule of two lanes fails on one rank in any
  // case, so one on more says more.
  cost::Layout culprit = plainest(base, fixed);
  const auto progress = [&](const cost::Layout& l) {
    return std::pair(cost::first_problem(config, l), l.pipeline > 1);
  };
  const LayoutProblem problem = cost::first_problem(config, culprit);
  const bool is_plain = problem < LayoutProblem::kSchedule || fixed.pipeline.has_value();
  const std::vector<Pipeline> all = pipelines(base, fixed);
  std::optional<cost::Layout> smallest;
  double least_memory = 0;
  for_each_share(config, base, fixed, [&](cost::Layout l) {
    std::optional<TrainClock> clock;
    for (const Pipeline& pipeline : all) {
      l.pipeline = pipeline.ranks;
      l.schedule = pipeline.schedule;
      if (!is_plain && progress(l) > progress(culprit)) culprit = l;
      if (cost::first_problem(config, l) != LayoutProblem::kNone) continue;
      if (!clock) clock.emplace(config, l, hardware);
      const double memory = least_needs(config, l, *clock).memory;
      if (smallest && memory >= least_memory) continue;
      smallest = l;
      least_memory = memory;
    }
  });
  if (!smallest) return cost::why_impossible(config, culprit);
  return why_too_large(plan_training(config, hardware, *smallest), hardware);
}

}  // namespace cachalot::plan
