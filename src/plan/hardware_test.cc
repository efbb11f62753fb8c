#include "plan/hardware.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace cachalot::plan {
namespace {

using ::testing::HasSubstr;

constexpr const char* kSmall = R"(
name = "two boxes"
[device]
name = "box"
per_node = 2
bf16_tflops = 100
fp8_tflops = 200
memory_gb = 10
memory_gbps = 1000
source = "made up for a test"
[achieved]
bf16 = 0.5
memory = 0.8
source = "made up for a test"
[link]
gbps = 200
achieved_gbps = 160
source = "made up for a test"
[network]
nics_per_node = 4
gbps = 50
planes = 2
source = "made up for a test"
[price]
node_hour = 3
source = "made up for a test"
)";

std::string error_of(const std::string& toml, Code code) {
  try {
    parse_hardware(toml, "p.toml");
  } catch (const Error& e) {
    EXPECT_EQ(code, e.code()) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

std::string changed(const std::string& from, const std::string& to) {
  std::string text = kSmall;
  const auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(HardwareTest, RatesFollowFromWhatIsGiven) {
  const HardwareProfile p = parse_hardware(kSmall, "p.toml");
  EXPECT_DOUBLE_EQ(p.peak(Arithmetic::kBf16), 100e12);
  EXPECT_DOUBLE_EQ(p.product_rate(Arithmetic::kBf16), 50e12);
  EXPECT_DOUBLE_EQ(p.product_rate(Arithmetic::kFp8), 200e12);  // no share known: the peak
  EXPECT_DOUBLE_EQ(p.product_rate(Arithmetic::kInt8), 0);      // not known
  EXPECT_DOUBLE_EQ(p.attention_rate(), 50e12);
  EXPECT_DOUBLE_EQ(p.read_rate(), 800e9);
  EXPECT_DOUBLE_EQ(p.link_rate(), 160e9);
  EXPECT_DOUBLE_EQ(p.network_rate(), 100e9);  // two of four cards each
  EXPECT_DOUBLE_EQ(p.node_hour(), 3);
  EXPECT_DOUBLE_EQ(p.device_hour(), 1.5);
}

TEST(HardwareTest, WhatIsWrittenReadsBackTheSame) {
  HardwareProfile p = parse_hardware(kSmall, "p.toml");
  p.rates.rows = {1, 8};
  p.rates.bf16_gflops = {10.5, 80};
  p.rates.source = "x";
  p.bandwidth = {.threads = {1, 2}, .read_gbps = {14.25, 28}, .source = "x"};
  EXPECT_EQ(to_toml(parse_hardware(to_toml(p), "again")), to_toml(p));
}

TEST(HardwareTest, ErrorsSayWhatAndWhere) {
  EXPECT_THAT(error_of(changed("memory_gbps", "memory_gbpss"), Code::kUsage),
              HasSubstr("did you mean 'device.memory_gbps'?"));
  EXPECT_THAT(error_of(changed("bf16 = 0.5", "bf16 = 1.5"), Code::kConfig),
              HasSubstr("achieved.bf16 = 1.5 cannot be"));
  EXPECT_THAT(error_of(changed("per_node = 2", "per_node = 0"), Code::kConfig),
              HasSubstr("device.per_node"));
  EXPECT_THAT(error_of(changed("achieved_gbps = 160", "achieved_gbps = 260"), Code::kConfig),
              HasSubstr("link.achieved_gbps is 260, more than link.gbps = 200"));
  EXPECT_THAT(error_of(changed("planes = 2", "planes = 3"), Code::kConfig),
              HasSubstr("does not divide nics_per_node = 4"));
  EXPECT_THAT(error_of(changed("node_hour = 3", "node_hour = 3\ndevice_hour = 1"), Code::kConfig),
              HasSubstr("give one of the two"));
  EXPECT_THAT(error_of(changed("name = \"two boxes\"", ""), Code::kConfig),
              HasSubstr("name is missing"));
  EXPECT_THAT(error_of(changed("[price]", "[rates]\nrows = [8, 4]\nsource = \"x\"\n[price]"),
                       Code::kConfig),
              HasSubstr("rates.rows must rise"));
  EXPECT_THAT(error_of(changed("[price]",
                               "[rates]\nrows = [4]\nf32_gflops = [1, 2]\nsource = \"x\"\n[price]"),
                       Code::kConfig),
              HasSubstr("rates.f32_gflops has 2 figures, rates.rows has 1"));
  error_of("name = ", Code::kFormat);
}

// Else the check of the memory would have nothing to compare with.
TEST(HardwareTest, AReserveLeavesSomeMemory) {
  const auto with_reserve = [](const std::string& gb) {
    return cat(kSmall, "[training]\nreserve_gb = ", gb, "\nsource = \"made up for a test\"\n");
  };
  EXPECT_THAT(error_of(with_reserve("11"), Code::kConfig),
              HasSubstr("training.reserve_gb is 11, which leaves nothing of device.memory_gb = 10 "
                        "for a model: lower it by more than 1"));
  EXPECT_THAT(error_of(with_reserve("10"), Code::kConfig), HasSubstr("lower it by more than 0"));
  EXPECT_NO_THROW(parse_hardware(with_reserve("9.5"), "p.toml"));
}

TEST(HardwareTest, DevicesAreCountedWithoutOverflow) {
  HardwareProfile p = parse_hardware(kSmall, "p.toml");
  EXPECT_EQ(devices_of(p, 3), 6);
  p.device.per_node = 1 << 16;
  EXPECT_EQ(devices_of(p, (1 << 15) - 1), 2147418112);
  for (const int nodes : {1 << 15, 1 << 16, 1 << 20}) {
    EXPECT_THROW(devices_of(p, nodes), Error) << nodes;
  }
}

TEST(HardwareTest, AFigureWithoutASourceIsRefused) {
  EXPECT_THAT(error_of(changed("node_hour = 3\nsource = \"made up for a test\"", "node_hour = 3"),
                       Code::kConfig),
              HasSubstr("price.node_hour is given, but price.source is empty"));
}

TEST(HardwareTest, EveryProfileInsideTheProgramIsRight) {
  EXPECT_GE(embedded_hardware().size(), 1U);
  for (const EmbeddedFile& file : embedded_hardware()) {
    const HardwareProfile p = load_hardware(std::string(file.name));
    EXPECT_FALSE(p.notes.empty()) << file.name;
    EXPECT_GT(p.device.memory_gb, 0) << file.name;
    EXPECT_GT(p.read_rate(), 0) << file.name;
    EXPECT_GT(p.attention_rate(), 0) << file.name;
  }
}

TEST(HardwareTest, TheH800HasTheFiguresOfThePapers) {
  const HardwareProfile p = load_hardware("h800");
  EXPECT_EQ(p.device.per_node, 8);
  EXPECT_DOUBLE_EQ(p.link_rate(), 160e9);
  EXPECT_DOUBLE_EQ(1e9 * p.network.gbps, 50e9);
  EXPECT_EQ(p.network.nics_per_node, 8);
  EXPECT_EQ(p.network.planes, 8);
  EXPECT_DOUBLE_EQ(p.device_hour(), 2.0);
  EXPECT_NEAR(p.network.compute_share, 20.0 / 132, 1e-4);
}

TEST(HardwareTest, AnUnknownNameListsTheKnownOnes) {
  try {
    load_hardware("h80");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kUsage);
    EXPECT_THAT(e.what(), HasSubstr("did you mean 'h800'?"));
    EXPECT_THAT(e.what(), HasSubstr("plan probe"));
  }
}

}  // namespace
}  // namespace cachalot::plan
