#include "cost/train_memory.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "cost/cost.h"
#include "cost/cost_case_test.h"
#include "cost/train_traffic.h"

namespace cachalot::cost {
namespace {

model::Config config() { return small_config(4); }

Layout layout(int devices, TrainPrecision precision) {
  Layout l;
  l.devices = l.devices_per_node = devices;
  l.batch = 8 * devices;
  l.precision = precision;
  return l;
}

TrainMemory memory(const model::Config& c, const Layout& l, int pieces = 1) {
  const Schedule outline{l.schedule, l.stages(), l.micro_batches(), {}};
  return train_memory(c, l, split_stages(c, l, {}), outline, 0, pieces);
}

double parameters_of(const model::Config& c, const Layout& l) {
  const Schedule outline{l.schedule, l.stages(), l.micro_batches(), {}};
  return device_parameters(c, l, split_stages(c, l, {}), outline, 0).sum();
}

// What products read in f32 is the master. Where copies share the optimiser each has a part of it,
// and needs the rest all the same.
TEST(TrainMemoryTest, EveryDeviceHasAllItsWeightsInF32) {
  const model::Config c = config();
  for (const int devices : {1, 2, 8}) {
    Layout l = layout(devices, TrainPrecision::kF32);
    const double p = parameters_of(c, l);
    const TrainMemory m = memory(c, l);
    EXPECT_DOUBLE_EQ(m.optimizer, 12 * p / devices);
    EXPECT_DOUBLE_EQ(m.weights + 4 * p / devices, 4 * p) << devices;
    l.expert = devices;  // experts lie on one device each, and their master with them
    const TrainMemory dealt = memory(c, l);
    const double experts = 3.0 * 3 * 64 * 32 * 16 / devices, rest = parameters_of(c, l) - experts;
    EXPECT_DOUBLE_EQ(dealt.weights, 4 * (rest - rest / devices)) << devices;
  }
}

TEST(TrainMemoryTest, SharingTheOptimizerSavesMemoryInEveryPrecision) {
  const model::Config c = config();
  for (const auto precision : {TrainPrecision::kF32, TrainPrecision::kBf16, TrainPrecision::kFp8}) {
    Layout l = layout(8, precision);
    const double shared = memory(c, l).sum();
    l.shard_optimizer = false;
    EXPECT_LT(shared, memory(c, l).sum()) << name(precision);
  }
}

TEST(TrainMemoryTest, NoLayoutHasLessStateThanTheLeast) {
  const model::Config c = config();
  const auto per_parameter = [&](TrainPrecision precision) {
    const Layout l = layout(1, precision);
    const TrainMemory m = memory(c, l);
    return (m.weights + m.gradients + m.optimizer) / parameters_of(c, l);
  };
  EXPECT_DOUBLE_EQ(per_parameter(TrainPrecision::kF32), least_state_bytes(TrainPrecision::kF32));
  EXPECT_DOUBLE_EQ(per_parameter(TrainPrecision::kBf16), least_state_bytes(TrainPrecision::kBf16));
  // Scales, and tables in bf16, come on top.
  EXPECT_GT(per_parameter(TrainPrecision::kFp8), least_state_bytes(TrainPrecision::kFp8));
  EXPECT_LT(per_parameter(TrainPrecision::kFp8), least_state_bytes(TrainPrecision::kBf16));
}

TEST(TrainMemoryTest, ADenseMtpLayerKeepsWhatADenseLayerKeeps) {
  model::Config c = config();
  const Layout l = layout(1, TrainPrecision::kBf16);
  const double without = memory(c, l).activations;
  c.num_nextn_predict_layers = 1;
  const auto more = [&] { return (memory(c, l).activations - without) / l.sequence; };
  EXPECT_NEAR(more(), sum(kept_per_token(c, l, true)), 1e-6);
  c.first_k_dense_replace = 2;
  c.moe_layer_freq = 3;  // layers 3 and 6 have experts
  c.num_nextn_predict_layers = 0;
  const double sparse = memory(c, l).activations;
  c.num_nextn_predict_layers = 1;  // layer 4
  EXPECT_NEAR((memory(c, l).activations - sparse) / l.sequence, sum(kept_per_token(c, l, false)),
              1e-6);
}

// Matrices of the vocabulary: one where it is tied, and one more for an MTP layer that lies apart
// from the embedding.
TEST(TrainMemoryTest, TablesOfTheVocabulary) {
  constexpr double kTable = 1000.0 * 64;
  model::Config c = config();
  const auto alone = [&] { return parameters_of(c, layout(1, TrainPrecision::kBf16)); };
  const double apart = alone();
  c.tie_word_embeddings = true;
  EXPECT_DOUBLE_EQ(apart - alone(), kTable);
  c.num_nextn_predict_layers = 1;
  const double tied_mtp = alone();
  c.tie_word_embeddings = false;
  EXPECT_DOUBLE_EQ(alone() - tied_mtp, kTable);
  // The norm before the head is in no stage.
  EXPECT_DOUBLE_EQ(alone() + 64,
                   static_cast<double>(parameters(c).total + parameters(c).mtp.total));

  Layout l = layout(2, TrainPrecision::kBf16);
  l.pipeline = 2;
  const auto last = [&](ScheduleKind kind) {
    l.schedule = kind;
    const Schedule outline{kind, l.stages(), l.micro_batches(), {}};
    const auto stages = split_stages(c, l, {});
    return device_parameters(c, l, stages, outline, 1).sum() +
           device_parameters(c, l, stages, outline, 0).sum();
  };
  // 1F1B: the last rank has the head and the MTP layer, and needs an embedding beside them.
  EXPECT_DOUBLE_EQ(last(ScheduleKind::k1F1B), alone() + kTable);
}

TEST(TrainTrafficTest, TwoRanksOfAPipelineHaveOneNeighbourEach) {
  const model::Config c = config();
  Layout l = layout(4, TrainPrecision::kBf16);
  l.batch = 8;
  const auto sent = [&](int pipeline) {
    l.pipeline = pipeline;
    const Schedule outline = make_schedule(l.schedule, l.stages(), l.micro_batches());
    for (const Traffic& t : train_traffic(c, l, split_stages(c, l, {}), outline)) {
      if (t.purpose.starts_with("pipeline")) return t.bytes / l.micro_batches();
    }
    return 0.0;
  };
  EXPECT_DOUBLE_EQ(sent(2), 4096.0 * 64 * 2);
  EXPECT_DOUBLE_EQ(sent(4), 2 * 4096.0 * 64 * 2);  // of one in the middle
}

TEST(TrainTrafficTest, WhatIsComputedAgainIsSentAgain) {
  const model::Config c = config();
  Layout l = layout(4, TrainPrecision::kBf16);
  l.expert = l.tensor = 4;
  const auto sent = [&](Recompute recompute, std::string_view purpose) {
    l.recompute = recompute;
    const Schedule outline = make_schedule(l.schedule, l.stages(), l.micro_batches());
    double bytes = 0;
    for (const Traffic& t : train_traffic(c, l, split_stages(c, l, {}), outline)) {
      if (t.purpose.starts_with(purpose)) bytes += t.bytes;
    }
    return bytes;
  };
  for (const char* purpose : {"experts:", "tensor groups"}) {
    EXPECT_GT(sent(Recompute::kSelective, purpose), 0) << purpose;
    EXPECT_DOUBLE_EQ(sent(Recompute::kFull, purpose), 1.5 * sent(Recompute::kSelective, purpose));
  }
}

// Whatever the pipeline: the fullest rank of any of them has as much.
TEST(TrainMemoryTest, NoPipelineHasFewerActivations) {
  const model::Config c = config();
  for (const ScheduleKind kind : kScheduleKinds) {
    for (const int pipeline : {1, 2, 4}) {
      for (const auto recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
        for (const int batch : {4, 8, 32}) {
          Layout l = layout(4, TrainPrecision::kFp8);
          l.batch = batch;
          l.pipeline = pipeline;
          l.schedule = kind;
          l.recompute = recompute;
          if (first_problem(c, l) != LayoutProblem::kNone) continue;
          const Schedule outline{kind, l.stages(), l.micro_batches(), {}};
          const auto stages = split_stages(c, l, {1, 0, 1.5});
          double most = 0;
          for (int r = 0; r < pipeline; ++r) {
            const int pieces = kind == ScheduleKind::k1F1B
                                   ? std::min(pipeline - r, l.micro_batches())
                                   : std::min(l.stages(), l.micro_batches());
            const TrainMemory m = train_memory(c, l, stages, outline, r, pieces);
            most = std::max(most, m.activations + m.working);
          }
          EXPECT_LE(least_activations(c, l), most * (1 + 1e-12))
              << name(kind) << " " << pipeline << " " << name(recompute) << " " << batch;
        }
      }
    }
  }
}

}  // namespace
}  // namespace cachalot::cost
