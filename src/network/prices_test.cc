#include "network/prices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "network/published.h"

namespace cachalot::network {
namespace {

void expect_the_published_digits(const Prices& prices) {
  for (const ComparedNetwork& row : compare_table3(prices)) {
    EXPECT_TRUE(row.counts_agree) << row.published->label;
    EXPECT_EQ(row.cost_millions, row.published->cost_millions) << row.published->label;
    EXPECT_EQ(row.cost_per_endpoint, row.published->cost_per_endpoint) << row.published->label;
  }
}

TEST(Prices, BuiltInOnesReproduceTheTable) { expect_the_published_digits(Prices{}); }

TEST(Prices, TheTableDoesNotSayHowItsSumsDivide) {
  Prices cheap_switches;  // two thirds of the built-in switch price, and links to match
  cheap_switches.switch_usd = 40'000;
  cheap_switches.trunk_link_usd = 1'848;
  cheap_switches.endpoint_link_usd = 669;
  cheap_switches.local_link_usd = 1'780;
  expect_the_published_digits(cheap_switches);
}

TEST(Prices, SlimFlyOfTheTableIsMarkedAsNotRealisable) {
  for (const ComparedNetwork& row : compare_table3(Prices{})) {
    if (row.published->label == "SF") {
      EXPECT_THAT(row.note, ::testing::HasSubstr("no prime power"));
      EXPECT_THAT(row.note, ::testing::HasSubstr("q = 27"));
    }
  }
}

TEST(Prices, TheFileIsTheBuiltInOnes) {
  EXPECT_EQ(load_prices(std::filesystem::path(CACHALOT_SOURCE_DIR) / "hardware" / "prices" /
                        "network.toml"),
            Prices{});
}

TEST(Prices, EveryPortOfANicHasALinkToPay) {
  TopologySpec spec;
  spec.ports = 16;
  spec.endpoints = 128;
  spec.planes = 4;
  const Bill one = bill_of(build(spec));
  spec.nic_ports = 4;
  const Bill four = bill_of(build(spec));
  EXPECT_EQ(one.endpoint_links, 128);
  EXPECT_EQ(four.endpoint_links, 512);
  Prices links;
  links.switch_usd = links.trunk_link_usd = 0;
  EXPECT_DOUBLE_EQ(cost_usd(four, links), 4 * cost_usd(one, links));
}

TEST(Prices, UnknownKeysAndBadValuesAreErrors) {
  const auto error = [](const char* text) -> std::string {
    try {
      parse_prices(text, "p.toml");
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  EXPECT_THAT(error("switch_usdd = 5.0"), ::testing::HasSubstr("switch_usd"));
  EXPECT_THAT(error("switch_usd = -1.0"), ::testing::HasSubstr("p.toml:1"));
  EXPECT_THAT(error("switch_usd = \"much\""), ::testing::HasSubstr("p.toml:1"));
  // Prices of one's own beside built-in ones would be a sum of nothing.
  EXPECT_THAT(error("switch_usd = 5.0\ntrunk_link_usd = 1.0"),
              ::testing::HasSubstr("source, local_link_usd, endpoint_link_usd are missing"));
}

}  // namespace
}  // namespace cachalot::network
