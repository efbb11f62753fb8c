// The bound against simulated layouts: never above them, and close where no pieces are paired.
#include "plan/layout_bound.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "cost/decoder.h"
#include "plan/train_plan.h"

namespace cachalot::plan {
namespace {

// Layouts of a node that the counts allow, over all kinds of schedules.
std::vector<cost::Layout> layouts(const model::Config& c, int devices, int batch, int sequence) {
  std::vector<cost::Layout> out;
  cost::Layout l;
  l.devices = devices;
  l.devices_per_node = 8;
  l.batch = batch;
  l.sequence = sequence;
  for (const int pipeline : {1, 2, 4, 8}) {
    for (const int tensor : {1, 2}) {
      for (const int expert : {1, 4, 16}) {
        for (const int micro_batch : {1, 4}) {
          for (const auto kind : cost::kScheduleKinds) {
            l.pipeline = pipeline;
            l.tensor = tensor;
            l.expert = expert;
            l.micro_batch = micro_batch;
            l.schedule = kind;
            if (cost::why_impossible(c, l).empty()) out.push_back(l);
          }
        }
      }
    }
  }
  return out;
}

void expect_bounds(const std::string& model, int devices, int batch, int sequence) {
  const model::Config c = cost::load_latent_config(model);
  const HardwareProfile h = load_hardware("h800");
  const std::vector<cost::Layout> all = layouts(c, devices, batch, sequence);
  EXPECT_GT(all.size(), 50U);
  for (const cost::Layout& l : all) {
    const TrainClock clock(c, l, h);
    const LeastNeeds least = least_needs(c, l, clock);
    const TrainPlan plan = plan_training(c, h, l);
    const std::string what = cat(name(l.schedule), " pp ", l.pipeline, " tp ", l.tensor, " ep ",
                                 l.expert, " micro-batch ", l.micro_batch);
    EXPECT_LE(least.seconds, plan.seconds * (1 + 1e-12)) << what;
    EXPECT_LE(least.memory, plan.memory_bytes() * (1 + 1e-12)) << what;
    const double alone = least_sequence_seconds(c, l, clock) * l.batch * l.tensor / l.devices;
    EXPECT_LE(alone, least.seconds * (1 + 1e-12)) << what;
    const bool paired =
        l.schedule == cost::ScheduleKind::kDualPipe || l.schedule == cost::ScheduleKind::kDualPipeV;
    EXPECT_GE(least.seconds, (paired ? 0.5 : 0.75) * plan.seconds) << what;
    EXPECT_GE(least.memory, 0.6 * plan.memory_bytes()) << what;
  }
}

TEST(LayoutBoundTest, NoLayoutIsBelowItsBound) {
  expect_bounds("deepseek-v2-lite", 16, 128, 2048);
  expect_bounds("deepseek-v3", 64, 256, 4096);
}

TEST(LayoutBoundTest, WithoutAPipelineItIsTheStep) {
  const model::Config c = cost::load_latent_config("deepseek-v2-lite");
  const HardwareProfile h = load_hardware("h800");
  cost::Layout l;
  l.devices = l.devices_per_node = l.expert = 8;
  l.batch = 64;
  const LeastNeeds least = least_needs(c, l, TrainClock(c, l, h));
  const TrainPlan plan = plan_training(c, h, l);
  EXPECT_NEAR(least.seconds / plan.seconds, 1, 1e-12);
  EXPECT_NEAR(least.memory / plan.memory_bytes(), 1, 1e-12);
}

}  // namespace
}  // namespace cachalot::plan
