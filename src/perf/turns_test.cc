#include "perf/turns.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "perf/peaks.h"

namespace cachalot::perf {
namespace {

TEST(Turns, MedianOfFewAndMany) {
  EXPECT_EQ(median({}), 0);
  EXPECT_EQ(median({3}), 3);
  EXPECT_EQ(median({5, 1}), 3);
  EXPECT_EQ(median({9, 1, 5}), 5);
}

void nap(int milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); }

// The machine is at half speed for some turns, ceiling and contestant alike: those do not count.
TEST(Turns, TurnsAtHalfSpeedDoNotCount) {
  double speed = 1;
  int probes = 0;
  const CeilingProbe probe = [&] {
    speed = ++probes > 6 ? 1 : 0.5;  // three turns of two probes
    return Ceilings{100 * speed, 200 * speed};
  };
  const TurnOptions options{4, 5, 0.0001, 0.1};
  const Contestant one{"one", [&] { nap(speed == 1 ? 10 : 20); }};
  const Measured m = measure({one}, 1, probe, options)[0];  // 100 per second at most
  EXPECT_GE(m.turns, m.valid + 3);
  EXPECT_GT(m.valid, 0);
  EXPECT_EQ(m.ceiling, 100);
  EXPECT_NEAR(m.fraction, 1, 0.3);  // sleeping lasts a little longer than asked
  EXPECT_NEAR(m.of_second, m.fraction / 2, 1e-9);
}

TEST(Turns, CeilingsThatDisagreeDoNotCount) {
  bool fast = false;
  const CeilingProbe probe = [&] {
    fast = !fast;
    return Ceilings{fast ? 100.0 : 80.0, 0};
  };
  const TurnOptions options{3, 0.05, 0.0001, 0.1};
  const Measured m = measure({{"one", [] { nap(1); }}}, 0.01, probe, options)[0];
  EXPECT_EQ(m.valid, 0);
  EXPECT_GT(m.turns, 0);
  EXPECT_EQ(m.ceiling, 90);  // of all turns: better than nothing
}

TEST(Turns, EveryContestantIsInEveryTurn) {
  int a = 0, b = 0;
  const TurnOptions options{4, 5, 0, 0.1};
  const auto results = measure(
      {{"a", [&] { ++a; }}, {"b", [&] { ++b; }}}, 1,
      [] {
        return Ceilings{1, 0};
      },
      options);
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(a, b);
  EXPECT_GE(results[0].turns, 4);
  EXPECT_EQ(results[0].turns, results[1].turns);
}

TEST(Peaks, PassesOverMemoryTakeTime) {
  const Context ctx;
  EXPECT_GT(StreamProbe(2, 1, false, 1 << 16).gbps(ctx), 0);
  EXPECT_GT(StreamProbe(4, 3, true, 1000).gbps(ctx), 0);
  EXPECT_GT(StreamProbe(8, 0, false, 64).gbps(ctx), 0);
}

}  // namespace
}  // namespace cachalot::perf
