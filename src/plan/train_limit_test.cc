#include "plan/train_limit.h"

#include <gtest/gtest.h>

#include "cost/decoder.h"

namespace cachalot::plan {
namespace {

model::Config v3() {
  return model::load_config(CACHALOT_SOURCE_DIR + std::string("/") +
                            "configs/models/deepseek-v3.json");
}

cost::Layout layout(cost::ScheduleKind schedule) {
  cost::Layout l;
  l.devices = 2048;
  l.devices_per_node = 8;
  l.batch = 15360;
  l.sequence = 4096;
  l.precision = cost::TrainPrecision::kFp8;
  l.pipeline = 16;
  l.expert = 64;
  l.schedule = schedule;
  l.recompute = cost::Recompute::kSelective;
  return l;
}

TEST(TrainLimitTest, WithoutOverlapThePartsAreTheStep) {
  const model::Config config = v3();
  const HardwareProfile h800 = load_hardware("h800");
  const TrainPlan p = plan_training(config, h800, layout(cost::ScheduleKind::k1F1B));
  const TrainSpending s = spending_of(config, h800, p);
  EXPECT_FALSE(s.hidden);
  EXPECT_NEAR(p.seconds, s.compute + s.memory + s.communication + s.bubble + p.optimizer,
              1e-9 * p.seconds);
  EXPECT_EQ(TrainLimit::kCompute, s.limit());
}

TEST(TrainLimitTest, HiddenCommunicationCountsByWhatItExceedsComputingBy) {
  TrainSpending s{2, 1, 5, 0.5, false};
  EXPECT_EQ(TrainLimit::kCommunication, s.limit());
  s.hidden = true;  // 2 of the 5 are seen
  EXPECT_EQ(TrainLimit::kCompute, s.limit());
  s.communication = 5.5;
  EXPECT_EQ(TrainLimit::kCommunication, s.limit());
  s = {1, 3, 2, 4, true};
  EXPECT_EQ(TrainLimit::kBubble, s.limit());
  s.bubble = 0;
  EXPECT_EQ(TrainLimit::kMemory, s.limit());
}

TEST(TrainLimitTest, EveryLimitHasAName) {
  for (const TrainLimit limit : kTrainLimits) EXPECT_FALSE(name(limit).empty());
}

}  // namespace
}  // namespace cachalot::plan
