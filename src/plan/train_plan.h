// A training run before it is run: time of a step by parts, memory, utilisation, hours, money; and
// the search for the fastest layout that fits.
//
// Threads: pure functions.
// Errors:  kConfig for a layout that cannot be or does not fit the memory (by how much, and what
//          would help), kConfig where the profile lacks a figure.
// Paper:   "Insights into DeepSeek-V3" table 4 (the parts, and what MFU counts); V3 report table 1.
#pragma once

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "plan/train_time.h"

namespace cachalot::plan {

struct TrainPlan {
  cost::Layout layout;
  std::vector<cost::Stage> stages;
  std::vector<cost::StageTimes> times;
  cost::Simulation simulation;
  std::vector<cost::TrainMemory> memory;  // of each pipeline rank
  std::vector<cost::Traffic> traffic;
  // One step. Parts are means over the ranks: they and the bubble add up to the pipeline's time.
  cost::WorkSeconds work;
  double bubble = 0;
  double optimizer = 0;
  double seconds = 0;
  // The bubble by the published formula, with the mean stage's times.
  double formula_bubble = 0;
  double flops_per_token = 0;  // causal
  double flops_per_token_non_causal = 0;

  double tokens_per_second() const noexcept { return layout.tokens_per_step() / seconds; }
  double flops_per_device(bool causal) const noexcept;  // FLOP/s
  int fullest_rank() const noexcept;
  double memory_bytes() const noexcept;  // of the fullest rank
};

TrainPlan plan_training(const model::Config& config, const HardwareProfile& hardware,
                        const cost::Layout& layout);

// Device memory that the model may use; 0: not known.
double usable_memory(const HardwareProfile& hardware) noexcept;
// "" where the plan fits; else by how much it does not, on which rank, and what would help.
std::string why_too_large(const TrainPlan& plan, const HardwareProfile& hardware);

struct Bill {
  double tokens = 0;
  double steps = 0;
  double seconds = 0;
  double device_hours = 0;
  double money = 0;  // 0: no price is known
};
Bill bill_for(const TrainPlan& plan, const HardwareProfile& hardware, double tokens);

// What the user fixed; the rest is searched.
struct LayoutChoice {
  std::optional<int> pipeline, tensor, expert, micro_batch;
  std::optional<cost::ScheduleKind> schedule;
  std::optional<cost::Recompute> recompute;
};
// What a search tries, unless it is fixed: pipelines of at most so many ranks, and experts dealt
// out to groups of 1, 2, 4, ... devices.
inline constexpr int kMostPipeline = 64;
std::vector<int> expert_groups(int experts, int devices);

struct LayoutSearch {
  std::vector<TrainPlan> best;  // those that fit, fastest first, at most `keep`
  int tried = 0;
  int impossible = 0;
  int too_large = 0;  // of those that are possible
};
// `base` gives devices, batch, sequence and precision. Of the layouts that take less than
// `below_seconds` a step those are found that no other is faster than; what cannot be one of them
// (least_needs) is not simulated.
LayoutSearch search_layouts(const model::Config& config, const HardwareProfile& hardware,
                            const cost::Layout& base, const LayoutChoice& fixed, int keep = 8,
                            double below_seconds = std::numeric_limits<double>::infinity());
// Where that found nothing at all: what is in the way of a layout as fixed, or, where some are
// possible, why the one that needs least memory does not fit.
std::string why_no_layout(const model::Config& config, const HardwareProfile& hardware,
                          const cost::Layout& base, const LayoutChoice& fixed);

}  // namespace cachalot::plan
