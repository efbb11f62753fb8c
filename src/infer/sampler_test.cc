#include "infer/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "base/error.h"

namespace cachalot::infer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Logits whose softmax is exactly `p` up to float rounding.
std::vector<float> logits_of(const std::vector<double>& p) {
  std::vector<float> logits;
  for (const double x : p) logits.push_back(static_cast<float>(std::log(x)));
  return logits;
}

// token -> probability, as the sampler will draw it.
std::map<int, double> distribution(const SamplerConfig& config, const std::vector<float>& logits,
                                   const std::vector<int>& prompt = {},
                                   const std::vector<int>& output = {}) {
  Sampler sampler(config);
  sampler.observe_prompt(prompt);
  for (const int token : output) sampler.accept(token);
  double total = 0;
  std::map<int, double> result;
  for (const Candidate& c : sampler.candidates(logits)) total += c.weight;
  for (const Candidate& c : sampler.candidates(logits)) result[c.token] = c.weight / total;
  return result;
}

void expect_distribution(const std::map<int, double>& got, const std::map<int, double>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (const auto& [token, p] : want) {
    ASSERT_TRUE(got.contains(token)) << token;
    EXPECT_NEAR(got.at(token), p, 1e-6) << token;  // logits are floats
  }
}

TEST(SamplerTest, GreedyTakesTheLargestAndTheLowestOfEquals) {
  Sampler sampler({});
  EXPECT_EQ(sampler.sample(std::vector<float>{0, 3, 1}, 0), 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{2, 3, 3, 3}, 0), 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{-1}, 7), 0);
  const float low = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(sampler.sample(std::vector<float>{low, -5, low}, 0), 1);
}

TEST(SamplerTest, TemperatureScalesLogits) {
  const std::vector<float> logits = logits_of({0.5, 0.3, 0.2});
  expect_distribution(distribution({.temperature = 1}, logits), {{0, 0.5}, {1, 0.3}, {2, 0.2}});
  const double z = 0.25 + 0.09 + 0.04;  // T = 1/2 squares the probabilities
  expect_distribution(distribution({.temperature = 0.5}, logits),
                      {{0, 0.25 / z}, {1, 0.09 / z}, {2, 0.04 / z}});
}

TEST(SamplerTest, TopKKeepsKAndTheLowerIdOfEquals) {
  const std::vector<float> logits = logits_of({0.1, 0.3, 0.2, 0.2, 0.2});
  expect_distribution(distribution({.temperature = 1, .top_k = 2}, logits), {{1, 0.6}, {2, 0.4}});
  EXPECT_EQ(distribution({.temperature = 1, .top_k = 99}, logits).size(), 5u);
  EXPECT_EQ(distribution({.temperature = 1, .top_k = 1}, logits).begin()->first, 1);
}

TEST(SamplerTest, TopPKeepsTheSmallestSetThatReachesP) {
  const std::vector<float> logits = logits_of({0.1, 0.4, 0.2, 0.3});
  expect_distribution(distribution({.temperature = 1, .top_p = 0.69}, logits),
                      {{1, 0.4 / 0.7}, {3, 0.3 / 0.7}});
  EXPECT_EQ(distribution({.temperature = 1, .top_p = 0.71}, logits).size(), 3u);
  EXPECT_EQ(distribution({.temperature = 1, .top_p = 1e-9}, logits).size(), 1u);
  // After top-k the rest is renormalised first: 0.4 of 0.7 reaches 0.55.
  expect_distribution(distribution({.temperature = 1, .top_k = 2, .top_p = 0.55}, logits),
                      {{1, 1.0}});
}

TEST(SamplerTest, TopPReachesFarIntoALongTail) {
  const int n = 1000;  // more than one round of partial sorting
  std::vector<double> p(n);
  for (int i = 0; i < n; ++i) p[static_cast<std::size_t>(i)] = 1.0 + 1e-3 * ((i * 7919) % n);
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) x /= total;
  const auto kept = distribution({.temperature = 1, .top_p = 0.9}, logits_of(p));
  std::vector<double> sorted = p;
  std::sort(sorted.rbegin(), sorted.rend());
  double sum = 0;
  std::size_t want = 0;
  while (sum < 0.9) sum += sorted[want++];
  EXPECT_NEAR(static_cast<double>(kept.size()), static_cast<double>(want), 1);
  for (const auto& [token, unused] : kept) {
    EXPECT_GE(p[static_cast<std::size_t>(token)], sorted[want] * (1 - 1e-6));
  }
}

TEST(SamplerTest, MinPIsRelativeToTheLargest) {
  const std::vector<float> logits = logits_of({0.05, 0.5, 0.3, 0.15});
  expect_distribution(distribution({.temperature = 1, .min_p = 0.31}, logits),
                      {{1, 0.5 / 0.8}, {2, 0.3 / 0.8}});
  EXPECT_EQ(distribution({.temperature = 1, .min_p = 0.29}, logits).size(), 3u);
  EXPECT_EQ(distribution({.temperature = 1, .min_p = 1}, logits).size(), 1u);
}

TEST(SamplerTest, RepetitionPenaltyCountsPromptAndOutput) {
  const std::vector<float> logits{2, -2, 1, 1};
  const auto got = distribution({.temperature = 1, .repetition_penalty = 2}, logits, {0}, {1});
  const double z = std::exp(1) + std::exp(-4) + 2 * std::exp(1);
  expect_distribution(
      got,
      {{0, std::exp(1) / z}, {1, std::exp(-4) / z}, {2, std::exp(1) / z}, {3, std::exp(1) / z}});
}

TEST(SamplerTest, PresenceAndFrequencyCountTheOutputOnly) {
  const std::vector<float> logits{0, 0, 0};
  const auto got =
      distribution({.temperature = 1, .presence_penalty = 0.5, .frequency_penalty = 0.25}, logits,
                   /*prompt=*/{0, 0}, /*output=*/{1, 1, 1, 2});
  const double one = std::exp(-0.5 - 0.75), two = std::exp(-0.5 - 0.25), z = 1 + one + two;
  expect_distribution(got, {{0, 1 / z}, {1, one / z}, {2, two / z}});
}

TEST(SamplerTest, PenaltiesActOnGreedyToo) {
  Sampler sampler({.frequency_penalty = 1});
  const std::vector<float> logits{0, 1.5, 1};
  EXPECT_EQ(sampler.sample(logits, 0), 1);
  sampler.accept(1);
  EXPECT_EQ(sampler.sample(logits, 1), 2);
}

TEST(SamplerTest, DrawsFollowTheDistribution) {
  const std::vector<double> p{0.05, 0.4, 0.25, 0.3};
  const std::vector<float> logits = logits_of(p);
  const int draws = 40000;
  Sampler sampler({.temperature = 1, .seed = 11});
  std::vector<int> count(p.size());
  for (int i = 0; i < draws; ++i) {
    ++count[static_cast<std::size_t>(sampler.sample(logits, static_cast<std::uint64_t>(i)))];
  }
  double chi2 = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    const double want = p[i] * draws;
    chi2 += (count[i] - want) * (count[i] - want) / want;
  }
  EXPECT_LT(chi2, 16.27);  // 3 degrees of freedom, 0.1%
}

TEST(SamplerTest, ADrawIsAFunctionOfSeedStreamAndPosition) {
  const std::vector<float> logits(100, 0.0f);
  const auto run = [&](std::uint64_t seed, std::uint64_t stream) {
    Sampler sampler({.temperature = 1, .seed = seed}, stream);
    std::vector<int> out;
    for (std::uint64_t i = 0; i < 20; ++i) out.push_back(sampler.sample(logits, i));
    return out;
  };
  EXPECT_EQ(run(1, 0), run(1, 0));
  EXPECT_NE(run(1, 0), run(2, 0));
  EXPECT_NE(run(1, 0), run(1, 1));
  // Position 7 gives the same token when nothing was drawn before it.
  Sampler fresh({.temperature = 1, .seed = 1});
  EXPECT_EQ(fresh.sample(logits, 7), run(1, 0)[7]);
}

TEST(SamplerTest, NeverDrawsAnImpossibleToken) {
  const float low = -std::numeric_limits<float>::infinity();
  const std::vector<float> logits{low, 0, low, 0, low};
  Sampler sampler({.temperature = 2, .seed = 3});
  for (std::uint64_t i = 0; i < 200; ++i) {
    const int token = sampler.sample(logits, i);
    EXPECT_TRUE(token == 1 || token == 3);
  }
}

TEST(SamplerTest, AllowedTokensShareTheProbabilityOfTheOthers) {
  const auto logits = logits_of({0.4, 0.3, 0.2, 0.1});
  grammar::TokenMask mask(4);
  mask.set(1);
  mask.set(3);
  const std::vector<std::int32_t> ends{0};
  const auto of = [&](const SamplerConfig& config, const AllowedTokens& allowed) {
    Sampler sampler(config);
    double total = 0;
    std::map<int, double> result;
    for (const Candidate& c : sampler.candidates(logits, allowed)) total += c.weight;
    for (const Candidate& c : sampler.candidates(logits, allowed)) {
      result[c.token] = c.weight / total;
    }
    return result;
  };
  const SamplerConfig one{.temperature = 1};
  expect_distribution(of(one, {.tokens = &mask}), {{1, 0.75}, {3, 0.25}});
  expect_distribution(of(one, {.tokens = &mask, .ends = ends, .may_end = false}),
                      {{1, 0.75}, {3, 0.25}});
  expect_distribution(of(one, {.tokens = &mask, .ends = ends}), {{0, 0.5}, {1, 0.375}, {3, 0.125}});
  expect_distribution(of(one, {.tokens = nullptr, .ends = ends, .may_end = false}),
                      {{1, 0.5}, {2, 1 / 3.}, {3, 1 / 6.}});
  // Filters see what is allowed, and nothing else.
  expect_distribution(of({.temperature = 1, .top_k = 1}, {.tokens = &mask}), {{1, 1.0}});
  expect_distribution(of({.temperature = 1, .top_p = 0.7}, {.tokens = &mask}), {{1, 1.0}});
  expect_distribution(of({}, {.tokens = &mask}), {{1, 1.0}});

  const grammar::TokenMask none(4);
  Sampler sampler(one);
  EXPECT_THROW(sampler.candidates(logits, {.tokens = &none}), Error);
  EXPECT_NO_THROW(sampler.candidates(logits, {.tokens = &none, .ends = ends}));
}

TEST(SamplerTest, RefusesBrokenLogits) {
  Sampler sampler({});
  const float low = -std::numeric_limits<float>::infinity();
  for (const std::vector<float>& logits :
       {std::vector<float>{0, std::nanf("")}, std::vector<float>{low, low}, std::vector<float>{}}) {
    try {
      sampler.sample(logits, 0);
      FAIL();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kNumeric);
    }
  }
}

TEST(SamplerTest, RefusesSettingsOutOfRange) {
  const double nan = std::nan("");
  for (const SamplerConfig& config :
       {SamplerConfig{.temperature = -1}, SamplerConfig{.temperature = nan},
        SamplerConfig{.top_k = -1}, SamplerConfig{.top_p = 0}, SamplerConfig{.top_p = 1.5},
        SamplerConfig{.min_p = -0.1}, SamplerConfig{.min_p = nan},
        SamplerConfig{.repetition_penalty = 0}, SamplerConfig{.presence_penalty = 3},
        SamplerConfig{.frequency_penalty = nan}}) {
    try {
      Sampler sampler(config);
      FAIL();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kUsage);
      EXPECT_THAT(e.what(), HasSubstr("it must be"));
    }
  }
}

}  // namespace
}  // namespace cachalot::infer
