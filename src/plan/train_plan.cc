#include "plan/train_plan.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "cost/cost.h"

namespace cachalot::plan {

namespace {

constexpr double kGb = 1e9;

cost::StageTimes mean_of(const std::vector<cost::StageTimes>& all) {
  cost::StageTimes m{0, 0, 0, 0, 0, 0, 0};
  const double n = static_cast<double>(all.size());
  for (const cost::StageTimes& t : all) {
    m.forward += t.forward / n;
    m.input_grad += t.input_grad / n;
    m.weight_grad += t.weight_grad / n;
    m.forward_paired += t.forward_paired / n;
    m.backward_paired += t.backward_paired / n;
    m.forward_sending += t.forward_sending / n;
    m.backward_sending += t.backward_sending / n;
  }
  return m;
}

std::string gb(double bytes) {
  const double tenths = std::round(bytes / kGb * 10);
  return cat(tenths / 10, " GB");
}

}  // namespace

double TrainPlan::flops_per_device(bool causal) const noexcept {
  return tokens_per_second() * (causal ? flops_per_token : flops_per_token_non_causal) /
         layout.devices;
}

int TrainPlan::fullest_rank() const noexcept {
  int best = 0;
  for (std::size_t r = 1; r < memory.size(); ++r) {
    if (memory[r].sum() > memory[static_cast<std::size_t>(best)].sum()) best = static_cast<int>(r);
  }
  return best;
}

double TrainPlan::memory_bytes() const noexcept {
  return memory.empty() ? 0 : memory[static_cast<std::size_t>(fullest_rank())].sum();
}

TrainPlan plan_training(const model::Config& config, const HardwareProfile& hardware,
                        const cost::Layout& layout) {
  const std::string problem = cost::why_impossible(config, layout);
  if (!problem.empty()) throw Error(Code::kConfig, cat("impossible layout: ", problem, "."));
  const TrainClock clock(config, layout, hardware);
  TrainPlan plan;
  plan.layout = layout;
  plan.stages = cost::split_stages(config, layout, clock.units());
  for (const cost::Stage& stage : plan.stages) plan.times.push_back(clock.stage_times(stage));
  const cost::Schedule schedule =
      cost::make_schedule(layout.schedule, layout.stages(), layout.micro_batches());
  plan.simulation = cost::simulate(schedule, plan.times, clock.send_seconds());
  plan.work = plan.simulation.mean_work();
  plan.bubble = plan.simulation.mean_idle();
  plan.formula_bubble =
      cost::published_bubble(layout.schedule, layout.stages(), mean_of(plan.times));
  for (std::size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    const int r = static_cast<int>(rank);
    plan.memory.push_back(cost::train_memory(config, layout, plan.stages, schedule, r,
                                             plan.simulation.ranks[rank].peak_pieces));
    plan.optimizer = std::max(plan.optimizer, clock.optimizer_seconds(cost::device_parameters(
                                                  config, layout, plan.stages, schedule, r)));
  }
  plan.traffic = cost::train_traffic(config, layout, plan.stages, schedule);
  plan.seconds = plan.simulation.seconds + plan.optimizer;
  plan.flops_per_token = cost::training_flops_per_token(config, layout.sequence, true);
  plan.flops_per_token_non_causal = cost::training_flops_per_token(config, layout.sequence, false);
  return plan;
}

double usable_memory(const HardwareProfile& hardware) noexcept {
  return hardware.device.memory_gb > 0
             ? kGb * std::max(0.0, hardware.device.memory_gb - hardware.training.reserve_gb)
             : 0;
}

std::string why_too_large(const TrainPlan& plan, const HardwareProfile& hardware) {
  const double room = usable_memory(hardware), need = plan.memory_bytes();
  if (room <= 0 || need <= room) return "";
  const cost::TrainMemory& m = plan.memory[static_cast<std::size_t>(plan.fullest_rank())];
  const double states = m.weights + m.gradients + m.optimizer;
  std::string advice;
  if (m.activations > states) {
    advice = plan.layout.recompute == cost::Recompute::kFull
                 ? "take a smaller micro-batch or more pipeline or tensor ranks"
                 : "compute more again (--recompute full), or take a smaller micro-batch";
  } else {
    advice =
        "take more pipeline ranks, deal the experts out to more devices, or take a schedule "
        "that stores the weights once (dualpipev, zb1p)";
  }
  return cat("rank ", plan.fullest_rank(), " of ", plan.memory.size(), " needs ", gb(need), " (",
             gb(m.weights), " weights, ", gb(m.gradients), " gradients, ", gb(m.optimizer),
             " optimizer, ", gb(m.activations), " activations, ", gb(m.working),
             " working memory), but a device has ", gb(room), " free (", hardware.device.memory_gb,
             " GB less ", hardware.training.reserve_gb, " GB reserved): ", gb(need - room),
             " too much; ", advice);
}

Bill bill_for(const TrainPlan& plan, const HardwareProfile& hardware, double tokens) {
  Bill bill;
  bill.tokens = tokens;
  bill.steps = tokens / plan.layout.tokens_per_step();
  bill.seconds = bill.steps * plan.seconds;
  bill.device_hours = bill.seconds / 3600 * plan.layout.devices;
  bill.money = bill.device_hours * hardware.device_hour();
  return bill;
}

}  // namespace cachalot::plan
