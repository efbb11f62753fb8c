// Dropout at every level: the bits of the reference at every tail, for any counter.
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/cpu/level_test.h"
#include "kernels/dropout.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

using testing::random_mat;
class DropoutLevels : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(DropoutLevels);

// y [T, D] lies within a wider matrix, where what stands beside it must stay.
void expect_reference(const KernelTable& ops, const Context& ctx, const DropoutMask& mask, int rows,
                      int cols, const std::string& what) {
  const Mat<float> x = random_mat<float>(rows, cols, 1);
  for (const bool add : {false, true}) {
    Mat<float> got = random_mat<float>(rows, cols + 5, 2), want = got.clone();
    ops.dropout(ctx, {mask, x.cview(), got.view().sub_cols(2, cols), add});
    dropout_ref(Context{}, Dropout<float>{mask, x.cview(), want.view().sub_cols(2, cols), add});
    ASSERT_EQ(0, std::memcmp(got.data(), want.data(), got.bytes())) << what << (add ? " add" : "");
  }
}

TEST_P(DropoutLevels, BitsOfTheReferenceAtEveryTail) {
  for (const int cols : testing::tail_sizes()) {
    expect_reference(ops(), context(), {0.2, 0x123456789ABCDEF0, 77, 3}, 5, cols,
                     std::to_string(cols));
  }
}

TEST_P(DropoutLevels, AtEveryRate) {
  for (const double rate : {0.0, 0x1p-16, 0.1, 0.5, 0.75, 0.99, 0.9999999}) {
    expect_reference(ops(), context(), {rate, 5, 6, 0}, 40, 140, std::to_string(rate));
  }
}

// Keys, streams and rows whose upper halves count: counters past 2^32 and past 2^40.
TEST_P(DropoutLevels, AtEveryWidthOfSeedStreamAndRow) {
  for (const std::uint64_t big : {0x1ULL, 0x80000000ULL, 0xFFFFFFFF00000001ULL, ~0ULL}) {
    for (const std::int64_t row : {0LL, 0x0FFFFFFELL, 0x7FFFFFFFLL, 0x123456789ALL}) {
      expect_reference(ops(), context(), {0.4, big, ~big, row}, 3, 300, std::to_string(row));
    }
  }
}

TEST_P(DropoutLevels, ThreadsDoNotMatter) {
  const Mat<float> x = random_mat<float>(301, 200, 1);
  Mat<float> first;
  with_threads([&](const Context& ctx, int threads) {
    Mat<float> y(301, 200);
    dropout(ctx, {{0.3, 1, 2, 3}, x.cview(), y.view()});
    if (threads == 1) first = y.clone();
    EXPECT_EQ(0, std::memcmp(y.data(), first.data(), y.bytes())) << threads;
  });
}

}  // namespace
}  // namespace cachalot
