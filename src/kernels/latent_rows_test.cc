#include "kernels/latent_rows.h"

#include <gmock/gmock.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/level_test.h"
#include "kernels/latent_blocks.h"
#include "numeric/small_float.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

using testing::random_mat;

class LatentRowsTest : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(LatentRowsTest);

TEST(LatentLayoutTest, RowBytes) {
  const auto bytes = [](LatentFormat f, int latent, int rope) {
    return LatentLayout{f, latent, rope}.row_bytes();
  };
  EXPECT_EQ(bytes(LatentFormat::kF32, 512, 64), 2304);
  EXPECT_EQ(bytes(LatentFormat::kBF16, 512, 64), 1152);
  EXPECT_EQ(bytes(LatentFormat::kFp8, 512, 64), 656);
  EXPECT_EQ(bytes(LatentFormat::kFp8, 40, 8), 40 + 4 + 16);
  EXPECT_EQ(bytes(LatentFormat::kFp8, 129, 2), 132 + 8 + 4);
  EXPECT_EQ((LatentLayout{LatentFormat::kBF16, 512, 64}.block_bytes()), 64 * 1152);
}

TEST_P(LatentRowsTest, FloatsComeBackAndBf16IsRounded) {
  const auto rows = random_mat<float>(130, 48, 1);
  for (const LatentFormat format : {LatentFormat::kF32, LatentFormat::kBF16}) {
    const LatentBlocks blocks(context(), {format, 40, 8}, rows.cview());
    Mat<float> back(130, 48), rope(70, 8);
    load_latent(context(), blocks.rows(), 0, back.view());
    load_latent(context(), blocks.rows(), 40, rope.view());
    for (int i = 0; i < 130; ++i) {
      for (int c = 0; c < 48; ++c) {
        const float x = rows.at(i, c);
        EXPECT_EQ(back.at(i, c), format == LatentFormat::kF32 ? x : to_float(to_bf16(x)));
      }
    }
    for (int i = 0; i < 70; ++i) EXPECT_EQ(rope.at(i, 3), back.at(i, 43));
  }
}

// Each tile by its own power of two; the nearest E4M3 number without the subnormals; rope in bf16.
TEST_P(LatentRowsTest, Fp8IsTheNearestNumberUnderItsTilesScale) {
  for (const int latent : {1, 40, 127, 128, 129, 300, 512}) {
    const int rope = 6, width = latent + rope;
    Mat<float> rows = random_mat<float>(67, width, 2);
    for (int i = 0; i < 67; ++i) {  // sizes over many powers of two, within a tile as well
      for (int c = 0; c < width; ++c) {
        rows.at(i, c) = std::ldexp(rows.at(i, c), i - 30 - c % 19);
      }
    }
    const LatentBlocks blocks(context(), {LatentFormat::kFp8, latent, rope}, rows.cview());
    Mat<float> back(67, width);
    load_latent(context(), blocks.rows(), 0, back.view());
    for (int i = 0; i < 67; ++i) {
      for (int c = 0; c < latent; ++c) {
        float amax = 0;
        const int tile = c / kLatentTile * kLatentTile;
        for (int k = tile; k < std::min(latent, tile + kLatentTile); ++k) {
          amax = std::max(amax, std::abs(rows.at(i, k)));
        }
        const float scale = std::exp2(std::ceil(std::log2(amax / 448)));
        const float x = rows.at(i, c), got = back.at(i, c);
        // Half a unit of four significant bits; below 2^-6 half of that, twice rounded.
        const float bound = std::max(std::abs(x) / 16, scale * (0x1p-7F + 0x1p-10F));
        EXPECT_LE(std::abs(got - x), bound) << latent << " row " << i << " column " << c;
        EXPECT_EQ(got, to_float(to_bf16(got)));  // exact in bf16
        EXPECT_TRUE(got == 0 || std::abs(got) >= scale * 0x1p-6F);
      }
      for (int c = latent; c < width; ++c) {
        EXPECT_EQ(back.at(i, c), to_float(to_bf16(rows.at(i, c))));
      }
    }
    // What was stored is stored again as the same bits.
    const LatentBlocks again(context(), {LatentFormat::kFp8, latent, rope}, back.cview());
    for (int i = 0; i < 67; ++i) {
      Mat<float> twice(1, width);
      read_latent_row({LatentFormat::kFp8, latent, rope}, again.rows().row(i), twice.span());
      for (int c = 0; c < width; ++c) EXPECT_EQ(twice.at(0, c), back.at(i, c));
    }
  }
}

TEST_P(LatentRowsTest, Fp8AtTheEndsOfFloat) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kMax = std::numeric_limits<float>::max();
  Mat<float> rows(6, 258);
  std::fill_n(rows.row(0), 258, 0.0F);
  std::fill_n(rows.row(1), 258, 0x1p-120F);  // below what a scale may be
  rows.at(2, 3) = std::numeric_limits<float>::quiet_NaN();
  rows.at(3, 130) = -kInf;
  std::fill_n(rows.row(4), 256, 0x1p126F);
  rows.at(5, 0) = kMax;
  const LatentBlocks blocks(context(), {LatentFormat::kFp8, 256, 2}, rows.cview());
  Mat<float> back(6, 258);
  load_latent(context(), blocks.rows(), 0, back.view());
  for (int c = 0; c < 256; ++c) {
    EXPECT_EQ(back.at(0, c), 0.0F);
    EXPECT_EQ(back.at(1, c), 0.0F);
    EXPECT_EQ(std::isnan(back.at(2, c)), c < 128) << c;  // a tile as a whole
    EXPECT_EQ(std::isnan(back.at(3, c)), c >= 128) << c;
    EXPECT_EQ(back.at(4, c), 0x1p126F);
    EXPECT_EQ(std::isnan(back.at(5, c)), c < 128) << c;
  }
}

TEST_P(LatentRowsTest, WrongShapesAreNamed) {
  Mat<float> c_kv(65, 8), rope(65, 4);
  std::vector<std::byte> memory(4096);
  const auto error = [&](const StoreLatent& job) -> std::string {
    try {
      store_latent(context(), {&job, 1});
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kShape);
      return e.what();
    }
    return "";
  };
  using ::testing::HasSubstr;
  const LatentLayout layout{LatentFormat::kBF16, 8, 4};
  EXPECT_THAT(error({layout, c_kv.cview(), rope.cview(), memory.data()}), HasSubstr("65 rows"));
  EXPECT_THAT(error({layout, c_kv.cview().sub_rows(0, 2), rope.cview(), memory.data()}),
              HasSubstr("k_rope is [65, 4]"));
}

}  // namespace
}  // namespace cachalot
