#include "infer/latency_histogram.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/rng.h"

namespace cachalot::infer {
namespace {

TEST(LatencyHistogram, PercentilesAreWithinABucketOfTheSortedOnes) {
  const Rng rng(5);
  LatencyHistogram histogram;
  std::vector<double> all;
  for (std::uint64_t i = 0; i < 5000; ++i) {
    all.push_back(std::exp2(20 * rng.uniform(i) - 15));  // 30 us to 32 s
    histogram.add(all.back());
  }
  std::sort(all.begin(), all.end());
  const auto want = [&](double share) {
    return all[static_cast<std::size_t>(share * static_cast<double>(all.size() - 1))];
  };
  const Percentiles got = histogram.percentiles();
  const double width = std::exp2(1.0 / 32);
  const auto near = [&](double x, double exact) {
    EXPECT_GE(x, exact);
    EXPECT_LE(x, exact * width);
  };
  near(got.p50, want(0.5));
  near(got.p95, want(0.95));
  near(got.p99, want(0.99));
  EXPECT_EQ(got.most, all.back());
  EXPECT_EQ(histogram.events(), 5000);
}

TEST(LatencyHistogram, NothingOneEventAndWhatIsOutOfRange) {
  LatencyHistogram histogram;
  EXPECT_EQ(histogram.percentiles().p99, 0);
  EXPECT_EQ(histogram.percentiles().most, 0);
  histogram.add(0.25);
  EXPECT_EQ(histogram.percentiles().p50, 0.25);  // no percentile is above the largest
  histogram.add(0);
  histogram.add(1e9);
  EXPECT_EQ(histogram.percentiles().most, 1e9);
  EXPECT_NEAR(histogram.percentiles().p50, 0.25, 0.25 * 0.03);
}

}  // namespace
}  // namespace cachalot::infer
