#include "network/routing_trace_writer.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "testing/fixtures.h"

namespace cachalot::network {
namespace {

// Token t of pass p chooses experts that say so, `topk` of `experts`.
Mat<std::int32_t> choices(int tokens, int topk, int experts, int pass) {
  Mat<std::int32_t> chosen(tokens, topk);
  for (int t = 0; t < tokens; ++t) {
    for (int i = 0; i < topk; ++i) chosen.row(t)[i] = (pass + t + 5 * i) % experts;
  }
  return chosen;
}

TEST(RoutingTraceWriter, WritesWhatIsReadBack) {
  const ::cachalot::testing::TempDir dir;
  const auto file = dir.path() / "t";
  RoutingTraceWriter writer(file, /*ranks=*/4, /*experts=*/16, /*topk=*/3);
  RoutingTrace want;
  want.ranks = 4;
  want.experts = 16;
  want.topk = 3;
  for (int pass = 0; pass < 3; ++pass) {
    for (const int layer : {1, 2}) {
      const int tokens = pass == 1 ? 1 : 10;
      const Mat<std::int32_t> chosen = choices(tokens, 3, 16, pass + layer);
      EXPECT_TRUE(writer.append(pass, layer, chosen.cview()));
      const std::int64_t begin = want.tokens();
      for (int t = 0; t < tokens; ++t) {
        want.rank_of.push_back(static_cast<std::uint16_t>(t * 4 / tokens));
        for (int i = 0; i < 3; ++i) {
          want.chosen.push_back(static_cast<std::uint16_t>(chosen.row(t)[i]));
        }
      }
      want.exchanges.push_back({pass, layer, begin, want.tokens()});
    }
    EXPECT_TRUE(writer.append(pass, 3, choices(0, 3, 16, 0).cview()));  // no rows: no exchange
  }
  EXPECT_FALSE(std::filesystem::exists(file));  // not before it is whole
  writer.commit();
  EXPECT_EQ(load_routing_trace(file), want);
  EXPECT_EQ(read_file(file, 1 << 20), to_text(want));
  EXPECT_EQ(writer.tokens(), want.tokens());
  EXPECT_EQ(writer.exchanges(), 6);
}

TEST(RoutingTraceWriter, AFullFileEndsWithItsLastWholeExchange) {
  const ::cachalot::testing::TempDir dir;
  const auto file = dir.path() / "t";
  RoutingTraceWriter writer(file, 2, 16, 3, /*most_bytes=*/200);
  std::int64_t fitted = 0;
  while (writer.append(fitted, 1, choices(4, 3, 16, 0).cview())) ++fitted;
  EXPECT_GT(fitted, 1);
  writer.commit();
  EXPECT_LE(std::filesystem::file_size(file), 200u);
  const RoutingTrace trace = load_routing_trace(file);
  EXPECT_EQ(static_cast<std::int64_t>(trace.exchanges.size()), fitted);
  EXPECT_EQ(trace.tokens(), 4 * fitted);
}

TEST(RoutingTraceWriter, WithoutACommitNothingIsLeft) {
  const ::cachalot::testing::TempDir dir;
  {
    RoutingTraceWriter writer(dir.path() / "t", 2, 16, 3);
    EXPECT_TRUE(writer.append(0, 1, choices(4, 3, 16, 0).cview()));
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(RoutingTraceWriter, RefusesWhatATraceCannotHold) {
  const ::cachalot::testing::TempDir dir;
  EXPECT_THROW(RoutingTraceWriter(dir.path() / "t", 0, 16, 3), Error);
  EXPECT_THROW(RoutingTraceWriter(dir.path() / "t", 2, kMostExperts + 1, 3), Error);
  EXPECT_THROW(RoutingTraceWriter(dir.path() / "t", 2, 16, 17), Error);
  EXPECT_THROW(RoutingTraceWriter(dir.path() / "none" / "t", 2, 16, 3), Error);
  RoutingTraceWriter writer(dir.path() / "t", 2, 16, 3);
  EXPECT_THROW(static_cast<void>(writer.append(0, 1, choices(4, 2, 16, 0).cview())), Error);
}

}  // namespace
}  // namespace cachalot::network
