#include "model/pass_rows.h"

#include <gmock/gmock.h>

#include <vector>

#include "kernels/cross_entropy.h"
#include "kernels/rope.h"

namespace cachalot::model {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

const RopeConfig kRope{.dim = 6};

// The angles that rows at these positions have.
void expect_angles(const nn::RopeRows& got, const std::vector<int>& positions) {
  const int rows = static_cast<int>(positions.size());
  Mat<float> cos(rows, 3), sin(rows, 3);
  rope_table<float>(kRope, positions, cos.view(), sin.view());
  ASSERT_EQ(got.cos.rows, rows);
  ASSERT_EQ(got.sin.rows, rows);
  EXPECT_THAT(std::vector<float>(got.cos.data, got.cos.row(rows)), ElementsAreArray(cos.span()));
  EXPECT_THAT(std::vector<float>(got.sin.data, got.sin.row(rows)), ElementsAreArray(sin.span()));
}

std::vector<std::vector<int>> spans_of(const RowLayout& layout) {
  std::vector<std::vector<int>> spans;
  for (const AttentionSpan& s : layout.spans()) {
    spans.push_back({s.q_begin, s.q_rows, s.kv_begin, s.kv_rows});
  }
  return spans;
}

TEST(RowLayout, GivesEachSequenceItsRowsAndPositions) {
  PositionAngles angles;
  RowLayout main(1), mtp(2);
  const std::vector<std::int32_t> lengths = {3, 2, 5};  // tokens
  main.lay_out(kRope, angles, lengths);
  EXPECT_EQ(main.rows(), 7);
  EXPECT_THAT(spans_of(main), ElementsAre(std::vector{0, 2, 0, 2}, std::vector{2, 1, 2, 1},
                                          std::vector{3, 4, 3, 4}));
  expect_angles(main.rope(), {0, 1, 0, 0, 1, 2, 3});
  mtp.lay_out(kRope, angles, lengths);
  EXPECT_EQ(mtp.rows(), 4);
  EXPECT_THAT(spans_of(mtp), ElementsAre(std::vector{0, 1, 0, 1}, std::vector{1, 3, 1, 3}));
  expect_angles(mtp.rope(), {0, 0, 1, 2});
}

TEST(RowLayout, CountsASequenceByItsMainRowsInEachLayer) {
  PositionAngles angles;
  RowLayout mtp(2);
  mtp.lay_out(kRope, angles, std::vector<std::int32_t>{3, 2, 6});  // 2 + 1 + 5 main rows
  const auto runs = mtp.runs(/*over_batch=*/false);
  ASSERT_EQ(runs.size(), 3U);
  const int rows[] = {1, 0, 4};
  const double shares[] = {0.25, 0.125, 0.625};
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(runs[i].rows, rows[i]);
    EXPECT_EQ(runs[i].share, shares[i]);
  }
  const auto one = mtp.runs(/*over_batch=*/true);
  ASSERT_EQ(one.size(), 1U);
  EXPECT_EQ(one.front().rows, 5);
  EXPECT_EQ(one.front().share, 1);
}

// Tables are kept where sequences begin as those before; whatever came before, rows have the angles
// of their own positions.
TEST(RowLayout, FollowsChangesOfLength) {
  PositionAngles angles;
  RowLayout layout(1);
  const auto expect = [&](const std::vector<std::int32_t>& lengths) {
    layout.lay_out(kRope, angles, lengths);
    std::vector<int> positions;
    for (const std::int32_t n : lengths) {
      for (int i = 0; i + 1 < n; ++i) positions.push_back(i);
    }
    expect_angles(layout.rope(), positions);
  };
  for (const auto& lengths : std::vector<std::vector<std::int32_t>>{
           {4, 4, 4}, {4, 4}, {4, 4, 4}, {4, 3}, {4, 3, 4}, {9, 2}, {9}, {2, 9}, {4, 4, 4, 4}}) {
    expect(lengths);
  }
}

TEST(RowTokens, PredictWhatFollowsInTheSameSequence) {
  const std::vector<std::int32_t> tokens = {11, 12, 13, 21, 22, 31, 32, 33, 34};
  const std::vector<std::int32_t> lengths = {3, 2, 4};
  RowTokens main, mtp;
  main.set({tokens, lengths}, 0, 0);
  EXPECT_THAT(main.inputs.host, ElementsAre(11, 12, 21, 31, 32, 33));
  EXPECT_THAT(main.targets.host, ElementsAre(12, 13, 22, 32, 33, 34));
  EXPECT_EQ(main.scored, 6);
  mtp.set({tokens, lengths}, 1, 0);
  EXPECT_THAT(mtp.inputs.host, ElementsAre(12, 32, 33));
  EXPECT_THAT(mtp.targets.host, ElementsAre(13, 33, 34));
  EXPECT_THAT(mtp.rows.host, ElementsAre(0, 3, 4));
  EXPECT_EQ(mtp.scored, 3);
  EXPECT_THAT(mtp.rows.span(), ElementsAre(0, 3, 4));
}

TEST(RowTokens, HaveNoTargetWhereATokenIsReadOnly) {
  const std::vector<std::int32_t> tokens = {11, 12, 13, 21, 22, 31, 32, 33, 34};
  const std::vector<std::int32_t> lengths = {3, 2, 4};
  const std::vector<std::uint8_t> learnt = {1, 1, 0, 1, 0, 0, 0, 1, 1};
  RowTokens main, mtp;
  main.set({tokens, lengths, learnt}, 0, 0);
  EXPECT_THAT(main.inputs.host, ElementsAre(11, 12, 21, 31, 32, 33));
  EXPECT_THAT(main.targets.host, ElementsAre(12, kNoTarget, kNoTarget, kNoTarget, 33, 34));
  EXPECT_EQ(main.scored, 3);
  mtp.set({tokens, lengths, learnt}, 1, 0);
  EXPECT_THAT(mtp.targets.host, ElementsAre(kNoTarget, 33, 34));
  EXPECT_EQ(mtp.scored, 2);
}

// Context of 2 rows: row 1 of the MTP layer predicts what row 2 of the main model predicts.
TEST(RowTokens, HaveNoTargetInContext) {
  const std::vector<std::int32_t> tokens = {11, 12, 13, 14, 21, 22, 23, 24, 25};
  const std::vector<std::int32_t> lengths = {4, 5};
  RowTokens main, mtp;
  main.set({tokens, lengths}, 0, 2);
  EXPECT_THAT(main.targets.host,
              ElementsAre(kNoTarget, kNoTarget, 14, kNoTarget, kNoTarget, 24, 25));
  mtp.set({tokens, lengths}, 1, 2);
  EXPECT_THAT(mtp.targets.host, ElementsAre(kNoTarget, 14, kNoTarget, 24, 25));
}

}  // namespace
}  // namespace cachalot::model
