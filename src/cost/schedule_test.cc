// The lists against the published formulas (V3 report table 2, DualPipe README) and against rules
// that any schedule must obey; nothing here is taken from the generator.
#include "cost/schedule.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "cost/schedule_simulate.h"

namespace cachalot::cost {
namespace {

Simulation run(ScheduleKind kind, int stages, int micro_batches, const StageTimes& times) {
  const Schedule schedule = make_schedule(kind, stages, micro_batches);
  return simulate(schedule, std::span(&times, 1));
}

// Counts that each kind can have, up to 32 stages.
std::vector<std::pair<int, int>> counts(ScheduleKind kind) {
  std::vector<std::pair<int, int>> out;
  for (const int stages : {1, 2, 3, 4, 6, 8, 10, 16, 32}) {
    for (const int m : {1, 2, 3, 5, 8, 12, 20, 32, 33, 64, 120}) {
      if (why_impossible(kind, stages, m).empty()) out.emplace_back(stages, m);
    }
  }
  return out;
}

TEST(ScheduleTest, EveryKindObeysTheRules) {
  for (const ScheduleKind kind : kScheduleKinds) {
    EXPECT_GT(counts(kind).size(), 25U);
    for (const auto& [stages, m] : counts(kind)) {
      const Schedule s = make_schedule(kind, stages, m);
      ASSERT_NO_THROW(check(s)) << name(kind) << " " << stages << " " << m;
      EXPECT_EQ(s.ranks.size(), static_cast<std::size_t>(ranks_for(kind, stages)));
    }
  }
}

TEST(ScheduleTest, BubblesOf1F1BAndZeroBubbleAreThePublishedOnes) {
  const StageTimes times[] = {{1, 1, 1, 1, 2}, {1, 1.2, 0.5, 1, 2}, {2, 3, 1, 2, 4}, {1, 1.5, 0.8}};
  for (const ScheduleKind kind : {ScheduleKind::k1F1B, ScheduleKind::kZb1p}) {
    for (const auto& [stages, m] : counts(kind)) {
      if (m < stages) continue;  // the pipeline is never full
      for (const StageTimes& t : times) {
        const Simulation sim = run(kind, stages, m, t);
        for (const SimulatedRank& rank : sim.ranks) {
          EXPECT_NEAR(rank.idle, published_bubble(kind, stages, t), 1e-9)
              << name(kind) << " " << stages << " " << m;
        }
        EXPECT_EQ(sim.peak_pieces(), published_pieces(kind, stages));
      }
    }
  }
}

TEST(ScheduleTest, BubblesOfDualPipeAreThePublishedOnes) {
  const StageTimes unit;  // F = b = W = 1, F&B = 3
  for (const ScheduleKind kind : {ScheduleKind::kDualPipe, ScheduleKind::kDualPipeV}) {
    for (const auto& [stages, m] : counts(kind)) {
      const Simulation sim = run(kind, stages, m, unit);
      for (const SimulatedRank& rank : sim.ranks) {
        EXPECT_NEAR(rank.idle, published_bubble(kind, stages, unit), 1e-9)
            << name(kind) << " " << stages << " " << m;
      }
      EXPECT_EQ(sim.peak_pieces(), published_pieces(kind, stages)) << stages << " " << m;
    }
  }
  EXPECT_EQ(published_bubble(ScheduleKind::kDualPipe, 8, unit), 6);
  EXPECT_EQ(published_bubble(ScheduleKind::kDualPipe, 16, unit), 14);
}

// The README's picture: 8 ranks, 20 micro-batches.
TEST(ScheduleTest, DualPipeHasThePublishedNumberOfEachWork) {
  const Schedule s = make_schedule(ScheduleKind::kDualPipe, 16, 120);
  const auto count = [&](Work work) {
    return std::count_if(s.ranks[0].begin(), s.ranks[0].end(),
                         [&](const WorkItem& item) { return item.work == work; });
  };
  EXPECT_EQ(count(Work::kForward), 23);
  EXPECT_EQ(count(Work::kOverlapped), 97);
  EXPECT_EQ(count(Work::kBackward), 8);
  EXPECT_EQ(count(Work::kInputGrad), 15);
  EXPECT_EQ(count(Work::kWeightGrad), 15);
}

TEST(ScheduleTest, ABubbleDoesNotGrowWithTheMicroBatches) {
  const StageTimes t{1, 1.3, 0.7, 0.9, 1.6};
  for (const ScheduleKind kind : kScheduleKinds) {
    const double few = run(kind, 8, 16, t).mean_idle();
    const double many = run(kind, 8, 160, t).mean_idle();
    EXPECT_LE(many, few + 1e-9) << name(kind);
  }
}

TEST(ScheduleTest, ASendDelaysWhatWaitsForIt) {
  const StageTimes t;
  const Schedule s = make_schedule(ScheduleKind::k1F1B, 4, 1);
  EXPECT_NEAR(simulate(s, std::span(&t, 1), 0.5).seconds, 4 * 3 + 6 * 0.5, 1e-12);
  // The fold of DualPipeV sends nothing: two ranks, four stages, three hops between ranks each way
  // less the one in the fold.
  const Schedule v = make_schedule(ScheduleKind::kDualPipeV, 4, 4);
  EXPECT_GT(simulate(v, std::span(&t, 1), 0.5).seconds, simulate(v, std::span(&t, 1)).seconds);
}

TEST(ScheduleTest, TheSlowestStageSetsThePace) {
  std::vector<StageTimes> stages(4);
  stages[2] = {2, 2, 2, 2, 4};
  const Schedule s = make_schedule(ScheduleKind::k1F1B, 4, 100);
  const Simulation sim = simulate(s, stages);
  EXPECT_GE(sim.seconds, 600);
  EXPECT_LT(sim.seconds, 612);
  EXPECT_GT(sim.ranks[0].idle, 300);
}

TEST(ScheduleTest, WhatLiesOnARankIsKnownBeforeTheList) {
  for (const ScheduleKind kind : kScheduleKinds) {
    const bool paired = kind == ScheduleKind::kDualPipe || kind == ScheduleKind::kDualPipeV;
    for (const auto& [stages, m] : counts(kind)) {
      const Schedule s = make_schedule(kind, stages, m);
      for (std::size_t r = 0; r < s.ranks.size(); ++r) {
        const int least = least_peak_pieces(kind, stages, m, static_cast<int>(r));
        const int peak = peak_pieces(s.ranks[r]);
        EXPECT_LE(least, peak) << name(kind) << " " << stages << " " << m << " rank " << r;
        EXPECT_GE(least + (paired ? 1 : 0), peak) << name(kind) << " " << stages << " " << m;
      }
    }
  }
}

void expect_defect(const Schedule& s, const std::string& text) {
  try {
    check(s);
    ADD_FAILURE() << "no error; wanted " << text;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kConfig);
    EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what();
  }
}

TEST(ScheduleTest, CheckFindsWhatIsWrong) {
  const Schedule good = make_schedule(ScheduleKind::kZb1p, 2, 2);
  Schedule s = good;
  s.ranks[0].pop_back();
  expect_defect(s, "no weight gradient of micro-batch 1 in stage 0");
  s = good;
  s.ranks[0].push_back(s.ranks[0].front());
  expect_defect(s, "twice");
  s = good;
  std::swap(s.ranks[0].front(), s.ranks[1].front());
  expect_defect(s, "belongs to rank");
  s = good;
  s.ranks[0].front().piece.micro_batch = 7;
  expect_defect(s, "outside 2 micro-batches");
  s = good;  // backward before forward on the last rank
  std::swap(s.ranks[1][0], s.ranks[1][1]);
  expect_defect(s, "stands still");
  s = good;
  s.ranks.pop_back();
  expect_defect(s, "1 ranks; 2 stages need 2");
}

TEST(ScheduleTest, ImpossibleCountsSayByHowMuch) {
  EXPECT_NE(why_impossible(ScheduleKind::kDualPipe, 8, 12).find("4 more"), std::string::npos);
  EXPECT_NE(why_impossible(ScheduleKind::kDualPipe, 7, 20).find("even"), std::string::npos);
  EXPECT_NE(why_impossible(ScheduleKind::kDualPipe, 8, 21).find("even"), std::string::npos);
  EXPECT_NE(why_impossible(ScheduleKind::kDualPipeV, 8, 5).find("3 more"), std::string::npos);
  EXPECT_EQ(why_impossible(ScheduleKind::kDualPipeV, 8, 9), "");
  EXPECT_NE(why_impossible(ScheduleKind::k1F1B, 65, 1 << 16), "");
  for (const ScheduleKind kind : kScheduleKinds) {
    for (const int stages : {-1, 0, 1, 2, 7, 8, 1 << 16, 2147483647}) {
      for (const int m : {-1, 0, 1, 7, 8, 15, 16, 17, 120, 2147483647}) {
        EXPECT_EQ(is_possible(kind, stages, m), why_impossible(kind, stages, m).empty())
            << name(kind) << " " << stages << " " << m;
      }
    }
  }
  EXPECT_THROW(make_schedule(ScheduleKind::kDualPipe, 8, 12), Error);
  EXPECT_THROW(parse_schedule_kind("dualpip"), Error);
  for (const ScheduleKind kind : kScheduleKinds) EXPECT_EQ(parse_schedule_kind(name(kind)), kind);
}

}  // namespace
}  // namespace cachalot::cost
