#include "network/routing_trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "network/moe_traffic.h"

namespace cachalot::network {
namespace {

constexpr const char* kHead = "cachalot-routing 1\nranks 4\nexperts 8\ntopk 2\n";

std::string error_of(const std::string& text) {
  try {
    parse_routing_trace(text, "t");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kFormat);
    return e.what();
  }
  return "no error";
}

TEST(RoutingTrace, RoundTrips) {
  const RoutingTrace trace =
      parse_routing_trace(std::string(kHead) + "# tokens\n0 1 2\n\n3 7 0  # last\n", "t");
  EXPECT_EQ(trace.tokens(), 2);
  EXPECT_EQ(trace.chosen, (std::vector<std::uint16_t>{1, 2, 7, 0}));
  EXPECT_EQ(parse_routing_trace(to_text(trace), "again"), trace);
}

TEST(RoutingTrace, ErrorsNameTheLine) {
  using ::testing::HasSubstr;
  EXPECT_THAT(error_of(""), HasSubstr("begins with"));
  EXPECT_THAT(error_of("cachalot-routing 2\n"), HasSubstr("t:1: "));
  EXPECT_THAT(error_of("cachalot-routing 1\nexperts 8\n"), HasSubstr("t:2: here stands `experts`"));
  EXPECT_THAT(error_of(std::string(kHead) + "4 0 1\n"), HasSubstr("t:5: the rank is `4`"));
  EXPECT_THAT(error_of(std::string(kHead) + "0 0 8\n"), HasSubstr("an expert is `8`"));
  EXPECT_THAT(error_of(std::string(kHead) + "0 1\n"), HasSubstr("3 numbers; here are 2"));
  EXPECT_THAT(error_of(std::string(kHead) + "0 3 3\n"), HasSubstr("expert 3 stands here twice"));
  EXPECT_THAT(error_of(kHead), HasSubstr("no tokens"));
  EXPECT_THAT(error_of("cachalot-routing 1\nranks 4\nexperts 8\ntopk 9\n"), HasSubstr("more than"));
}

TEST(RoutingTrace, ExchangesAreWhatTravelsTogether) {
  const std::string text = std::string(kHead) +
                           "pass 0 layer 1\n0 1 2\n3 7 0\npass 0 layer 2\n0 5 6\n1 6 5\n"
                           "pass 4 layer 1\n2 0 1\n# a draft\npass 4 layer 1\n0 2 1\n1 1 2\n";
  const RoutingTrace trace = parse_routing_trace(text, "t");
  EXPECT_EQ(trace.exchanges,
            (std::vector<RoutingExchange>{{0, 1, 0, 2}, {0, 2, 2, 4}, {4, 1, 4, 5}, {4, 1, 5, 7}}));
  EXPECT_EQ(parse_routing_trace(to_text(trace), "again"), trace);

  const RoutingTrace one = of_layer(trace, -1);
  EXPECT_EQ(one.exchanges,
            (std::vector<RoutingExchange>{{0, 1, 0, 2}, {4, 1, 2, 3}, {4, 1, 3, 5}}));
  EXPECT_EQ(one.chosen, (std::vector<std::uint16_t>{1, 2, 7, 0, 0, 1, 2, 1, 1, 2}));
  EXPECT_EQ(one.rank_of, (std::vector<std::uint16_t>{0, 3, 2, 0, 1}));
  EXPECT_EQ(of_layer(trace, 2).chosen, (std::vector<std::uint16_t>{5, 6, 6, 5}));

  EXPECT_EQ(largest_exchange(one, -1), (RoutingExchange{0, 1, 0, 2}));  // the first of two
  EXPECT_EQ(largest_exchange(one, 4), (RoutingExchange{4, 1, 3, 5}));
  const RoutingTrace part = only(one, one.exchanges[2]);
  EXPECT_TRUE(part.exchanges.empty());
  EXPECT_EQ(part.chosen, (std::vector<std::uint16_t>{2, 1, 1, 2}));
  EXPECT_EQ(part.rank_of, (std::vector<std::uint16_t>{0, 1}));
}

TEST(RoutingTrace, WhatATraceDoesNotHaveIsSaid) {
  using ::testing::HasSubstr;
  const auto usage = [](auto&& call) -> std::string {
    try {
      call();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kUsage);
      return e.what();
    }
    return "no error";
  };
  const RoutingTrace plain = parse_routing_trace(std::string(kHead) + "0 1 2\n", "t");
  EXPECT_THAT(usage([&] { of_layer(plain, 3); }), HasSubstr("says nothing of layers"));
  EXPECT_THAT(usage([&] { largest_exchange(plain, 3); }), HasSubstr("says nothing of passes"));
  const RoutingTrace trace = parse_routing_trace(
      std::string(kHead) + "pass 3 layer 1\n0 1 2\npass 3 layer 2\n0 1 2\n", "t");
  EXPECT_THAT(usage([&] { of_layer(trace, 3); }), HasSubstr("layer 3; it has layers: 1, 2"));
  EXPECT_THAT(usage([&] { largest_exchange(trace, 4); }), HasSubstr("passes 3 to 3"));
}

TEST(RoutingTrace, ErrorsOfExchangesNameTheLine) {
  using ::testing::HasSubstr;
  const std::string head = kHead;
  EXPECT_THAT(error_of(head + "pass 1\n"), HasSubstr("t:5: an exchange begins with"));
  EXPECT_THAT(error_of(head + "pass 1 of 2\n"), HasSubstr("`pass P layer L`"));
  EXPECT_THAT(error_of(head + "pass -1 layer 2\n0 1 2\n"), HasSubstr("the pass is `-1`"));
  EXPECT_THAT(error_of(head + "pass 1 layer x\n0 1 2\n"), HasSubstr("the layer is `x`"));
  EXPECT_THAT(error_of(head + "0 1 2\npass 1 layer 2\n0 1 2\n"),
              HasSubstr("t:6: this line begins the first exchange, but 1 tokens stand before"));
  EXPECT_THAT(error_of(head + "pass 1 layer 2\npass 2 layer 2\n0 1 2\n"),
              HasSubstr("t:6: the exchange before this line has no tokens"));
  EXPECT_THAT(error_of(head + "pass 2 layer 2\n0 1 2\npass 1 layer 2\n0 1 2\n"),
              HasSubstr("t:7: pass 1 comes after pass 2"));
  EXPECT_THAT(error_of(head + "pass 2 layer 2\n0 1 2\npass 3 layer 2\n"),
              HasSubstr("the last exchange has no tokens"));
}

TEST(SyntheticRouting, KeepsTheNodeLimit) {
  SyntheticRouting options;
  options.ranks = 2;
  options.tokens_per_rank = 500;
  options.groups = 8;
  options.group_limit = 3;
  std::int64_t tokens = 0;
  for_each_token(options, [&](int, const std::uint16_t* experts) {
    std::set<int> groups, different;
    for (int i = 0; i < options.topk; ++i) {
      groups.insert(experts[i] / 32);
      different.insert(experts[i]);
    }
    EXPECT_LE(groups.size(), 3u);
    EXPECT_EQ(different.size(), 8u);
    ++tokens;
  });
  EXPECT_EQ(tokens, 1000);
}

// Without a limit and with affinities alike, 8 of 256 experts miss a node of 32 with probability
// C(224, 8) / C(256, 8).
TEST(SyntheticRouting, MeetsTheHypergeometricMean) {
  SyntheticRouting options;
  options.ranks = 8;
  options.groups = 8;
  options.group_limit = 8;
  const MoeCounts counts = count_tokens(options, /*gpus_per_node=*/1);
  double miss = 1;
  for (int i = 0; i < 8; ++i) miss *= (224.0 - i) / (256.0 - i);
  double mean = 0;
  for (const std::int64_t n : counts.to_node) mean += static_cast<double>(n);
  mean /= 8 * 4096;
  // The mean of 32768 tokens; a token's number of nodes has a deviation below 1.
  EXPECT_NEAR(mean, 8 * (1 - miss), 4.0 / std::sqrt(8 * 4096.0));
}

TEST(SyntheticRouting, SkewMakesLoadsUneven) {
  SyntheticRouting options;
  options.ranks = 8;
  options.groups = 1;
  options.group_limit = 1;
  options.tokens_per_rank = 1024;
  const auto spread = [&](double skew) {
    options.skew = skew;
    const MoeCounts counts = count_tokens(options, 8);
    std::vector<double> load(8);
    for (int from = 0; from < 8; ++from) {
      for (int to = 0; to < 8; ++to) {
        load[static_cast<std::size_t>(to)] +=
            static_cast<double>(counts.pairs[static_cast<std::size_t>(from * 8 + to)]);
      }
    }
    return *std::max_element(load.begin(), load.end()) /
           *std::min_element(load.begin(), load.end());
  };
  EXPECT_LT(spread(0), 1.1);
  EXPECT_GT(spread(1), 1.2);
}

TEST(SyntheticRouting, WhatCannotBeIsSaid) {
  SyntheticRouting options;
  options.groups = 7;
  EXPECT_THROW(check(options), Error);
  options.groups = 8;
  options.group_limit = 1;
  options.experts = 32;
  try {
    check(options);
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(),
                ::testing::HasSubstr(
                    "1 nodes hold 4 experts, and a token needs 8. Raise --node-limit by 1"));
  }
}

TEST(MoeCounts, DeduplicateByRankAndNode) {
  // 4 ranks on 2 nodes of 2, 2 experts at each.
  const RoutingTrace trace = parse_routing_trace(std::string(kHead) + "0 4 5\n0 4 6\n1 0 7\n", "t");
  const MoeCounts counts = count_tokens(trace, 2);
  EXPECT_EQ(counts.rank(0, 2), 2);  // experts 4, 5 of one token count once
  EXPECT_EQ(counts.rank(0, 3), 1);
  EXPECT_EQ(counts.node(0, 1), 2);
  EXPECT_EQ(counts.node(0, 0), 0);
  EXPECT_EQ(counts.node(1, 0), 1);
  EXPECT_EQ(counts.node(1, 1), 1);
  EXPECT_EQ(counts.pairs[2], 3);  // rank 0 to rank 2
}

TEST(MoeCounts, EveningOutKeepsTheSums) {
  SyntheticRouting options;
  options.ranks = 16;
  options.groups = 2;
  options.group_limit = 2;
  options.tokens_per_rank = 512;
  const MoeCounts drawn = count_tokens(options, 8);
  MoeCounts even = drawn;
  even_out(even);
  const auto sum = [](const std::vector<std::int64_t>& table) {
    double total = 0;
    for (const std::int64_t n : table) total += static_cast<double>(n);
    return total;
  };
  EXPECT_NEAR(sum(even.to_node) / sum(drawn.to_node), 1, 1e-3);
  EXPECT_NEAR(sum(even.to_rank) / sum(drawn.to_rank), 1, 3e-3);  // whole tokens of some 200
  EXPECT_EQ(even.node(0, 1), even.node(9, 0));
  EXPECT_EQ(even.rank(0, 9), even.rank(12, 3));
}

TEST(MoeCounts, ReplicasTakeTurns) {
  const std::string text = "cachalot-routing 1\nranks 2\nexperts 2\ntopk 1\n0 0\n0 0\n0 1\n0 0\n";
  const RoutingTrace trace = parse_routing_trace(text, "t");
  const MoeCounts plain = count_tokens(trace, 8);
  EXPECT_EQ(plain.rank(0, 0), 3);
  EXPECT_EQ(plain.rank(0, 1), 1);
  const MoeCounts spread = count_tokens(trace, 8, parse_expert_slots("0 1  # rank 0\n0,1", "s"));
  EXPECT_EQ(spread.rank(0, 0), 3);  // expert 0: ranks 0, 1, 0; expert 1: rank 0
  EXPECT_EQ(spread.rank(0, 1), 1);
  const MoeCounts replica = count_tokens(trace, 8, {0, 1, 0, 0});
  EXPECT_EQ(replica.rank(0, 0), 2);
  EXPECT_EQ(replica.rank(0, 1), 2);
}

TEST(MoeCounts, SlotsThatDoNotFitAreErrors) {
  const RoutingTrace trace = parse_routing_trace(std::string(kHead) + "0 1 2\n", "t");
  EXPECT_THROW(count_tokens(trace, 2, {0, 1, 2}), Error);     // 3 over 4 ranks
  EXPECT_THROW(count_tokens(trace, 2, {0, 1, 2, 3}), Error);  // 4 .. 7 nowhere
  EXPECT_THROW(count_tokens(trace, 2, {0, 1, 2, 3, 4, 5, 6, 8}), Error);
  for (const char* text : {"", "0 x", "-1", "0 70000", "1.5"}) {
    EXPECT_THROW(parse_expert_slots(text, "s"), Error) << text;
  }
}

}  // namespace
}  // namespace cachalot::network
