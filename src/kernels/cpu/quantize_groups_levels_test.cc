// Integers with a scale per group at every level: the codes and scales of the definition, bit for
// bit.
#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "kernels/cpu/level_test.h"
#include "kernels/quantize_groups.h"
#include "numeric/group_quant.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

class QuantizeGroupsTest : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(QuantizeGroupsTest);

constexpr int kGroups[] = {32, 64, 128};

// Results with room between their rows, which must stay as it was.
struct Result {
  Mat<std::uint8_t> codes;
  Mat<Bf16> scales;
  QuantizeGroups job;

  Result(MatView<const float> x, int bits, int group, int pad = 0) {
    job = {x, bits, group, {}, {}};
    codes.resize(x.rows, job.row_bytes() + pad);
    scales.resize(x.rows, job.groups() + pad);
    std::fill(codes.span().begin(), codes.span().end(), std::uint8_t{0x5A});
    std::fill(scales.span().begin(), scales.span().end(), Bf16{0x1234});
    job.codes = codes.view().sub_cols(0, job.row_bytes());
    job.scales = scales.view().sub_cols(0, job.groups());
  }
};

void expect_same(const Result& got, const Result& want, const std::string& what) {
  for (std::size_t i = 0; i < want.codes.size(); ++i) {
    ASSERT_EQ(want.codes.data()[i], got.codes.data()[i]) << what << ": byte " << i;
  }
  for (std::size_t i = 0; i < want.scales.size(); ++i) {
    ASSERT_EQ(want.scales.data()[i].bits, got.scales.data()[i].bits) << what << ": scale " << i;
  }
}

void check(const Context& ctx, MatView<const float> x, int bits, int group, int pad = 0) {
  Result got(x, bits, group, pad), want(x, bits, group, pad);
  EXPECT_TRUE(quantize_groups(ctx, got.job));
  EXPECT_TRUE(quantize_groups_ref(Context{}, want.job));
  expect_same(got, want, cat(x.rows, "x", x.cols, " in ", bits, " bits, groups of ", group));
}

TEST_P(QuantizeGroupsTest, EveryTail) {
  for (const int bits : {4, 8}) {
    for (const int group : kGroups) {
      for (const int cols : {1, 3, 7, 8, 9, 31, 32, 33, 63, 65, 127, 128, 129, 300, 1408}) {
        for (const int rows : {1, 2, 5, 17}) {
          const auto x = testing::random_mat<float>(rows, cols, static_cast<std::uint64_t>(cols));
          check(context(), x.cview(), bits, group, cols % 3);
        }
      }
    }
  }
}

TEST_P(QuantizeGroupsTest, StridedRowsAndThreads) {
  const auto x = testing::random_mat<float>(130, 700, 5);
  for (const int bits : {4, 8}) {
    Result want(x.cview().sub_cols(7, 500), bits, 32);
    ASSERT_TRUE(quantize_groups_ref(Context{}, want.job));
    with_threads([&](const Context& ctx, int threads) {
      Result got(x.cview().sub_cols(7, 500), bits, 32);
      EXPECT_TRUE(quantize_groups(ctx, got.job));
      expect_same(got, want, cat(threads, " threads"));
    });
  }
}

// Groups of zeros, of one number, of multiples of a scale, and of every size a float has: beside
// each other, so that lanes that are done stay as they were while others go on.
TEST_P(QuantizeGroupsTest, GroupsOfEverySize) {
  const int cols = 32 * 40;
  for (const int bits : {4, 8}) {
    Mat<float> x(16, cols);
    const Rng rng(9);
    for (int i = 0; i < x.rows(); ++i) {
      for (int j = 0; j < cols; ++j) {
        const auto at = static_cast<std::uint64_t>(i * cols + j);
        const int group = j / 32;
        const auto v = static_cast<float>(rng.normal(at));
        const int kind = (i + group) % 5;
        x.at(i, j) = kind == 0   ? (at % 2 == 0 ? 0.0f : -0.0f)
                     : kind == 1 ? (j % 32 == i ? v : 0)
                     : kind == 2 ? static_cast<float>(static_cast<int>(at % 16) - 8) * 0.375f
                                 : std::ldexp(v, (i * 40 + group) * 276 / 640 - 149);
      }
    }
    for (const int group : kGroups) check(context(), x.cview(), bits, group);
    // The largest floats: scales that bf16 rounds to infinity among them.
    for (float& v : x.span()) v = std::copysign(std::numeric_limits<float>::max(), v);
    check(context(), x.cview(), bits, 32);
  }
}

TEST_P(QuantizeGroupsTest, RoundsTiesToTheEvenNumber) {
  Mat<float> x(1, 32);
  for (int j = 0; j < 32; ++j) x.at(0, j) = static_cast<float>(j % 16 - 8) + (j < 16 ? 0.0f : 0.5f);
  for (const int bits : {4, 8}) check(context(), x.cview(), bits, 32);
}

TEST_P(QuantizeGroupsTest, SaysWhatIsNotFinite) {
  for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    for (const int at : {0, 31, 32, 299}) {
      auto x = testing::random_mat<float>(3, 300, 1);
      x.at(2, at) = bad;
      Result got(x.cview(), 4, 32), want(x.cview(), 4, 32);
      EXPECT_FALSE(quantize_groups(context(), got.job));
      EXPECT_FALSE(quantize_groups_ref(Context{}, want.job));
    }
  }
}

TEST_P(QuantizeGroupsTest, NothingToDo) {
  const Mat<float> none(0, 64), thin(4, 0);
  for (const Mat<float>* x : {&none, &thin}) {
    Result got(x->cview(), 4, 32);
    EXPECT_TRUE(quantize_groups(context(), got.job));
  }
}

TEST(QuantizeGroupsShapes, ErrorsNameWhatWasNeeded) {
  const Context ctx{&kReferenceTable, nullptr};
  const Mat<float> x(2, 40);
  const auto message = [&](auto change) {
    Result r(x.cview(), 4, 32);
    change(r.job);
    try {
      quantize_groups(ctx, r.job);
    } catch (const Error& e) {
      EXPECT_EQ(Code::kShape, e.code());
      return std::string(e.what());
    }
    return std::string("no error");
  };
  using ::testing::HasSubstr;
  EXPECT_THAT(message([](QuantizeGroups& a) { a.bits = 5; }), HasSubstr("8 or 4"));
  EXPECT_THAT(message([](QuantizeGroups& a) { a.group = 48; }), HasSubstr("32, 64 or 128"));
  EXPECT_THAT(message([](QuantizeGroups& a) { a.codes.cols = 8; }), HasSubstr("[2, 20]"));
  EXPECT_THAT(message([](QuantizeGroups& a) { a.scales.cols = 1; }), HasSubstr("[2, 2]"));
}

// What the definition promises of one group, through the layout of a row.
TEST(QuantizeGroupsLayout, WordsAreLittleEndianAndPaddedWithZeros) {
  const auto x = testing::random_mat<float>(1, 37, 3);
  Result r(x.cview(), 4, 32);
  ASSERT_TRUE(quantize_groups_ref(Context{}, r.job));
  ASSERT_EQ(20, r.job.row_bytes());
  std::uint8_t codes[32];
  Bf16 scale;
  ASSERT_TRUE(numeric::quantize_group({x.data(), 32}, 4, codes, scale));
  for (int j = 0; j < 32; ++j) EXPECT_EQ(codes[j], r.codes.at(0, j / 2) >> j % 2 * 4 & 15);
  EXPECT_EQ(scale.bits, r.scales.at(0, 0).bits);
  ASSERT_TRUE(numeric::quantize_group({x.data() + 32, 5}, 4, codes, scale));
  for (int j = 0; j < 5; ++j) EXPECT_EQ(codes[j], r.codes.at(0, 16 + j / 2) >> j % 2 * 4 & 15);
  EXPECT_EQ(0, r.codes.at(0, 18) >> 4);
  EXPECT_EQ(0, r.codes.at(0, 19));
}

}  // namespace
}  // namespace cachalot
