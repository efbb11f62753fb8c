// The training plan against what is published of DeepSeek-V3, and rules any layout must obey.
#include "plan/train_plan.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "cost/cost.h"
#include "cost/decoder.h"
#include "cost/expert_traffic.h"
#include "cost/routed_places.h"

namespace cachalot::plan {
namespace {

model::Config v3() {
  model::Config c;
  c.vocab_size = 129280;
  c.hidden_size = 7168;
  c.intermediate_size = 18432;
  c.moe_intermediate_size = 2048;
  c.num_hidden_layers = 61;
  c.first_k_dense_replace = 3;
  c.num_attention_heads = 128;
  c.q_lora_rank = 1536;
  c.kv_lora_rank = 512;
  c.qk_nope_head_dim = 128;
  c.qk_rope_head_dim = 64;
  c.v_head_dim = 128;
  c.n_shared_experts = 1;
  c.num_nextn_predict_layers = 1;
  c.route.experts = 256;
  c.route.topk = 8;
  c.route.groups = 8;
  c.route.topk_groups = 4;
  return c;
}

// As published: V3 report 3.2, 4.2.
cost::Layout v3_layout() {
  cost::Layout l;
  l.devices = 2048;
  l.devices_per_node = 8;
  l.pipeline = 16;
  l.expert = 64;
  l.schedule = cost::ScheduleKind::kDualPipe;
  l.batch = 15360;
  return l;
}

TEST(TrainPlanTest, TheV3StepIsWithinTenPercentOfTheMeasuredOne) {
  const TrainPlan p = plan_training(v3(), load_hardware("h800"), v3_layout());
  EXPECT_EQ(p.layout.micro_batches(), 120);
  EXPECT_EQ(p.layout.data(), 128);
  EXPECT_NEAR(p.seconds, 19.926, 0.10 * 19.926);
  // Parts and bubble are the step.
  EXPECT_NEAR(p.work.sum() + p.bubble + p.optimizer, p.seconds, 1e-9);
  EXPECT_EQ(why_too_large(p, load_hardware("h800")), "");
}

TEST(TrainPlanTest, UtilisationCountsLikeThePaper) {
  const TrainPlan p = plan_training(v3(), load_hardware("h800"), v3_layout());
  for (const auto& [step, causal, all] :
       {std::tuple{19.926, 38.94, 43.73}, std::tuple{19.946, 38.90, 43.68}}) {
    const double per_device = 15360.0 * 4096 / step / 2048;
    EXPECT_NEAR(100 * per_device * p.flops_per_token / 989e12, causal, 0.005);
    EXPECT_NEAR(100 * per_device * p.flops_per_token_non_causal / 989e12, all, 0.005);
  }
}

TEST(TrainPlanTest, TheBillIsThePublishedOne) {
  const HardwareProfile h = load_hardware("h800");
  EXPECT_DOUBLE_EQ(2.788e6 * h.device_hour(), 5.576e6);
  TrainPlan p = plan_training(v3(), h, v3_layout());
  p.seconds = 19.926;  // what was measured
  const Bill bill = bill_for(p, h, 14.8e12);
  EXPECT_NEAR(bill.device_hours, 2664e3, 3e3);
  EXPECT_NEAR(bill.money, 5.328e6, 6e3);
}

TEST(TrainPlanTest, StagesHoldEveryLayerOnce) {
  for (const auto kind : cost::kScheduleKinds) {
    for (const int pipeline : {1, 2, 4, 8, 16}) {
      cost::Layout l = v3_layout();
      l.schedule = kind;
      l.pipeline = pipeline;
      if (!cost::why_impossible(v3(), l).empty()) continue;
      const TrainPlan p = plan_training(v3(), load_hardware("h800"), l);
      int dense = 0, moe = 0, mtp = 0, next = 0;
      for (const cost::Stage& s : p.stages) {
        EXPECT_EQ(s.first_layer, next);
        next += s.layers();
        dense += s.dense_layers;
        moe += s.moe_layers;
        mtp += s.mtp_layers;
      }
      EXPECT_EQ(dense, 3);
      EXPECT_EQ(moe, 58);
      EXPECT_EQ(mtp, 1);
      // Every parameter lies in some stage; each device group has them all once per copy.
      double sum = 0;
      const auto schedule = cost::make_schedule(kind, l.stages(), l.micro_batches());
      for (int r = 0; r < pipeline; ++r) {
        const auto d = cost::device_parameters(v3(), l, p.stages, schedule, r);
        sum += d.replicated * l.tensor + d.experts * l.expert;
      }
      const cost::Parameters all = cost::parameters(v3());
      double want = static_cast<double>(all.total + all.mtp.total) *
                    (l.stages() > 1 ? cost::copies_of_weights(kind) : 1);
      // Where the last rank is not the first as well, its MTP layer needs an embedding of its own.
      const bool apart = kind == cost::ScheduleKind::k1F1B || kind == cost::ScheduleKind::kZb1p;
      if (apart && pipeline > 1) want += static_cast<double>(v3().vocab_size) * v3().hidden_size;
      EXPECT_NEAR(sum / want, 1, 1e-5) << name(kind) << " " << pipeline;
    }
  }
}

TEST(TrainPlanTest, DualPipeHidesCommunicationAndWinsOnTheV3Cluster) {
  const HardwareProfile h = load_hardware("h800");
  cost::Layout l = v3_layout();
  const double dual = plan_training(v3(), h, l).seconds;
  l.schedule = cost::ScheduleKind::kZb1p;
  const double zero_bubble = plan_training(v3(), h, l).seconds;
  l.schedule = cost::ScheduleKind::k1F1B;
  const double plain = plan_training(v3(), h, l).seconds;
  EXPECT_LT(dual, zero_bubble);
  EXPECT_LT(zero_bubble, plain);
}

void expect_impossible(const cost::Layout& l, const std::string& text) {
  try {
    plan_training(v3(), load_hardware("h800"), l);
    ADD_FAILURE() << "no error; wanted " << text;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kConfig);
    EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what();
  }
}

TEST(TrainPlanTest, ImpossibleLayoutsSayByHowMuch) {
  cost::Layout l = v3_layout();
  l.expert = 48;
  expect_impossible(l, "256 experts cannot be dealt out evenly to 48 devices: 16 are left over");
  l = v3_layout();
  l.pipeline = 64;
  expect_impossible(l, "3 stages would be empty");
  l = v3_layout();
  l.pipeline = 15;
  expect_impossible(l, "8 are left over");
  l = v3_layout();
  l.expert = 256;
  expect_impossible(l, "no whole groups of 256");
  l = v3_layout();
  l.batch = 15361;
  expect_impossible(l, "1 are left over");
  l = v3_layout();
  l.batch = 128 * 20;
  expect_impossible(l, "12 more");
  l = v3_layout();
  l.tensor = 3;
  l.devices = 2304;
  expect_impossible(l, "128 attention heads do not divide by tp = 3");
}

TEST(TrainPlanTest, MemoryThatDoesNotFitSaysByHowMuch) {
  const HardwareProfile h = load_hardware("h800");
  cost::Layout l = v3_layout();
  l.pipeline = 2;
  l.schedule = cost::ScheduleKind::kZb1p;
  l.expert = 8;
  const TrainPlan p = plan_training(v3(), h, l);
  const std::string miss = why_too_large(p, h);
  EXPECT_NE(miss.find("too much"), std::string::npos) << miss;
  EXPECT_NE(miss.find("74 GB free"), std::string::npos) << miss;
}

TEST(TrainPlanTest, KeptActivationsOfAV3Layer) {
  // By hand, FP8: input and feed-forward input 2 x 7168 x 2, latents (1536 + 576) x 2, output 128 x
  // (128 x (1.5 + 1/128) + 4), dispatched 8 x 7168 and SwiGLU 2 x 9 x 2048 at 1 + 1/32 bytes.
  const double want = 2 * 7168 * 2 + 2112 * 2 + 128 * (128 * (1.5 + 1.0 / 128) + 4) +
                      (8 * 7168 + 18 * 2048) * (1 + 1.0 / 32);
  EXPECT_NEAR(cost::sum(cost::kept_per_token(v3(), v3_layout(), true)), want, 1e-6);
}

TEST(TrainPlanTest, ATokenCrossesTheNetworkOncePerNode) {
  const cost::ExpertCopies c = cost::expert_copies(v3(), v3_layout());
  // Eight nodes with a group each, four of them chosen by their two best experts each.
  EXPECT_EQ(c.places, cost::routed_places(v3().route, 8));
  EXPECT_NEAR(c.places, 3.95, 0.02);
  EXPECT_NEAR(c.network, c.places * 7 / 8, 1e-12);
  // Inside a node it goes on once to each device with any of its experts, as in prefill.
  EXPECT_EQ(c.node, cost::routed_places(v3().route, 64) * 7 / 8);
  EXPECT_EQ(c.node, cost::expert_paths(cost::load_decoder("deepseek-v3"), 8, 8).link_copies);
  EXPECT_DOUBLE_EQ(c.bytes_there, 7168 * (1 + 4.0 / 128));
  EXPECT_DOUBLE_EQ(c.bytes_back, 14336);
  cost::Layout l = v3_layout();
  l.expert = 1;
  EXPECT_EQ(cost::expert_copies(v3(), l).places, 0);
}

// Of one pipeline rank on each node, with all copies of its weights.
cost::Layout two_nodes(cost::ScheduleKind schedule) {
  cost::Layout l = v3_layout();
  l.devices = 16;
  l.pipeline = 2;
  l.expert = 4;
  l.schedule = schedule;
  return l;
}

TEST(TrainPlanTest, CopiesOfANodeExchangeInside) {
  HardwareProfile h = load_hardware("h800");
  const auto optimizer = [&](cost::ScheduleKind schedule, double gbps) {
    h.network.achieved_gbps = gbps;
    return plan_training(v3(), h, two_nodes(schedule)).optimizer;
  };
  using cost::ScheduleKind;
  EXPECT_EQ(optimizer(ScheduleKind::k1F1B, 40), optimizer(ScheduleKind::k1F1B, 1));
  EXPECT_LT(optimizer(ScheduleKind::kDualPipe, 40), optimizer(ScheduleKind::kDualPipe, 1));
  // What is said to be sent goes the same way.
  for (const auto kind : {ScheduleKind::k1F1B, ScheduleKind::kDualPipe}) {
    int looked_at = 0;
    for (const cost::Traffic& t : plan_training(v3(), h, two_nodes(kind)).traffic) {
      if (!t.purpose.starts_with("gradients")) continue;
      ++looked_at;
      EXPECT_EQ(t.link, kind == ScheduleKind::k1F1B ? cost::Link::kNode : cost::Link::kNetwork);
    }
    EXPECT_EQ(looked_at, 2);
  }
}

TEST(TrainPlanTest, OneDeviceHasNoUnevenExperts) {
  HardwareProfile h = load_hardware("h800");
  cost::Layout l = v3_layout();
  const auto layer = [&](int expert, double imbalance) {
    l.expert = expert;
    h.training.expert_imbalance = imbalance;
    return TrainClock(v3(), l, h).stage({.moe_layers = 1}).computing().sum();
  };
  EXPECT_EQ(layer(1, 1.5), layer(1, 1));
  EXPECT_GT(layer(64, 1.5), 1.1 * layer(64, 1));
}

TEST(TrainPlanTest, SmallProductsAreSlower) {
  HardwareProfile h = load_hardware("h800");
  h.rates = {};
  h.training.half_size = 24;
  const model::Config c = v3();
  const cost::Layout l = v3_layout();
  const TrainClock clock(c, l, h);
  const auto rate = [&](double n) {
    return 2 * n * n * n / clock.product_seconds(Arithmetic::kBf16, n, n, n);
  };
  double last = 0;
  for (const double n : {8.0, 32.0, 128.0, 1024.0, 8192.0}) {
    EXPECT_GT(rate(n), last);
    last = rate(n);
  }
  const double large = h.product_rate(Arithmetic::kBf16) * h.training.sustained;
  EXPECT_NEAR(rate(24) / large, 1.0 / 8, 1e-9);
  EXPECT_GT(rate(8192), 0.98 * large);
}

TEST(TrainPlanTest, TheSearchFindsALayoutThatFitsAndIsNoSlower) {
  const HardwareProfile h = load_hardware("h800");
  LayoutChoice choice;
  choice.tensor = 1;
  choice.micro_batch = 1;
  const LayoutSearch s = search_layouts(v3(), h, v3_layout(), choice, 3);
  ASSERT_FALSE(s.best.empty());
  EXPECT_LE(s.best.front().seconds, plan_training(v3(), h, v3_layout()).seconds);
  EXPECT_EQ(why_too_large(s.best.front(), h), "");
  EXPECT_GT(s.too_large, 0);
  for (std::size_t i = 1; i < s.best.size(); ++i) {
    EXPECT_LE(s.best[i - 1].seconds, s.best[i].seconds);
  }
}

}  // namespace
}  // namespace cachalot::plan
