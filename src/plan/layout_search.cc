// All layouts that the counts allow, simulated; the fastest that fit are kept.
#include <algorithm>

#include "base/error.h"
#include "plan/train_plan.h"

namespace cachalot::plan {

namespace {

template <class T>
std::vector<T> choices(const std::optional<T>& fixed, std::vector<T> all) {
  return fixed ? std::vector<T>{*fixed} : std::move(all);
}

std::vector<int> divisors(int n, int most) {
  std::vector<int> out;
  for (int d = 1; d <= std::min(n, most); ++d) {
    if (n % d == 0) out.push_back(d);
  }
  return out;
}

// Expert groups: powers of two, as the ranks they are made of.
std::vector<int> expert_groups(int experts) {
  std::vector<int> out;
  for (int d = 1; d <= std::max(1, experts); d *= 2) {
    if (experts == 0 || experts % d == 0) out.push_back(d);
  }
  return out;
}

std::vector<cost::ScheduleKind> schedules(int pipeline) {
  if (pipeline == 1) return {cost::ScheduleKind::k1F1B};
  return {std::begin(cost::kScheduleKinds), std::end(cost::kScheduleKinds)};
}

class Search {
 public:
  Search(const model::Config& config, const HardwareProfile& hardware, int keep)
      : config_(config), hardware_(hardware), keep_(keep) {}

  void consider(const cost::Layout& layout) {
    ++out_.tried;
    const std::string problem = cost::why_impossible(config_, layout);
    if (!problem.empty()) {
      ++out_.impossible;
      out_.why_impossible = problem;
      return;
    }
    TrainPlan plan = plan_training(config_, hardware_, layout);
    const std::string miss = why_too_large(plan, hardware_);
    if (!miss.empty()) {
      ++out_.too_large;
      if (least_ < 0 || plan.memory_bytes() < least_) {
        least_ = plan.memory_bytes();
        out_.nearest_miss = miss;
      }
      return;
    }
    const auto slower = std::find_if(out_.best.begin(), out_.best.end(),
                                     [&](const TrainPlan& p) { return plan.seconds < p.seconds; });
    out_.best.insert(slower, std::move(plan));
    if (static_cast<int>(out_.best.size()) > keep_) out_.best.pop_back();
  }

  LayoutSearch take() { return std::move(out_); }

 private:
  const model::Config& config_;
  const HardwareProfile& hardware_;
  int keep_;
  double least_ = -1;
  LayoutSearch out_;
};

}  // namespace

LayoutSearch search_layouts(const model::Config& config, const HardwareProfile& hardware,
                            const cost::Layout& base, const LayoutChoice& fixed, int keep) {
  constexpr int kMostPipeline = 64;
  Search search(config, hardware, keep);
  cost::Layout l = base;
  for (const int pipeline : choices(fixed.pipeline, divisors(l.devices, kMostPipeline))) {
    l.pipeline = pipeline;
    for (const int tensor : choices(fixed.tensor, divisors(l.devices_per_node, 8))) {
      l.tensor = tensor;
      for (const int expert : choices(fixed.expert, expert_groups(config.route.experts))) {
        l.expert = expert;
        for (const auto kind : choices(fixed.schedule, schedules(pipeline))) {
          l.schedule = kind;
          for (const int micro_batch : choices(fixed.micro_batch, {1, 2, 4})) {
            l.micro_batch = micro_batch;
            for (const auto recompute :
                 choices(fixed.recompute, {cost::Recompute::kSelective, cost::Recompute::kFull})) {
              l.recompute = recompute;
              search.consider(l);
            }
          }
        }
      }
    }
  }
  return search.take();
}

}  // namespace cachalot::plan
