#include "kernels/latent_rows.h"

#include <cmath>
#include <limits>

#include "kernels/cuda/latent_case_test.h"
#include "kernels/cuda/ops.h"

namespace cachalot::cuda::testing {
namespace {

class CudaLatentRowsTest : public CudaTest {
 protected:
  // Rows of one block stored on the device and read back, against the same on the host.
  void compare(const LatentLayout& layout, const Mat<float>& rows) {
    const TwoCaches caches(host, *device_, layout, rows.cview());
    const int n = rows.rows(), width = layout.width();
    Mat<float> want(n, width);
    cachalot::load_latent(host, caches.host(), 0, want.view());
    Mat<float> got = room<float>(n, width);
    cuda::load_latent(ctx, caches.device(), 0, got.view());
    expect_same(down(got), want, layout, "load");

    const Mat<float> on_device = up(rows);
    Mat<std::uint8_t> memory =
        room<std::uint8_t>((n + 63) / 64, static_cast<int>(layout.block_bytes()));
    std::vector<StoreLatent> jobs;
    std::vector<const std::byte*> blocks;
    for (int b = 0; b * 64 < n; ++b) {
      auto* block = reinterpret_cast<std::byte*>(memory.row(b));
      blocks.push_back(block);
      const auto part = on_device.cview().sub_rows(64 * b, std::min(64, n - 64 * b));
      jobs.push_back({layout, part.sub_cols(0, layout.latent),
                      part.sub_cols(layout.latent, layout.rope), block});
    }
    cuda::store_latent(ctx, jobs);
    Mat<float> stored = room<float>(n, width);
    cuda::load_latent(ctx, {layout, blocks, 0, n}, 0, stored.view());
    expect_same(down(stored), want, layout, "store");
    if (layout.rope > 0) {
      Mat<float> rope = room<float>(n, layout.rope);
      cuda::load_latent(ctx, {layout, blocks, 0, n}, layout.latent, rope.view());
      const Mat<float> back = down(rope);
      for (int i = 0; i < n; ++i) EXPECT_EQ(back.at(i, 0), want.at(i, layout.latent));
    }
  }
  static void expect_same(const Mat<float>& got, const Mat<float>& want, const LatentLayout& layout,
                          const char* what) {
    int wrong = 0;
    for (int i = 0; i < want.rows(); ++i) {
      for (int c = 0; c < want.cols(); ++c) {
        const float a = got.at(i, c), b = want.at(i, c);
        if (a == b || (std::isnan(a) && std::isnan(b)) || ++wrong > 3) continue;
        ADD_FAILURE() << what << " " << name(layout.format) << " L=" << layout.latent << " row "
                      << i << " column " << c << " is " << a << " but has to be " << b;
      }
    }
    EXPECT_EQ(wrong, 0) << what << " " << name(layout.format) << " L=" << layout.latent;
  }
};

TEST_F(CudaLatentRowsTest, SameAsOnTheHost) {
  for (const LatentFormat format : {LatentFormat::kF32, LatentFormat::kBF16, LatentFormat::kFp8}) {
    for (const int latent : {1, 40, 127, 129, 300, 512}) {
      for (const int rope : {6, 64}) {
        Mat<float> rows = random_mat(70, latent + rope, 2);
        for (int i = 0; i < 70; ++i) {  // sizes over many powers of two, within a tile as well
          for (int c = 0; c < latent + rope; ++c) {
            rows.at(i, c) = std::ldexp(rows.at(i, c), i - 30 - c % 19);
          }
        }
        compare({format, latent, rope}, rows);
      }
    }
  }
}

TEST_F(CudaLatentRowsTest, Fp8AtTheEndsOfFloat) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kMax = std::numeric_limits<float>::max();
  Mat<float> rows(7, 258);
  std::fill_n(rows.row(1), 258, 0x1p-120F);  // below what a scale may be
  rows.at(2, 3) = std::numeric_limits<float>::quiet_NaN();
  rows.at(3, 130) = -kInf;
  std::fill_n(rows.row(4), 256, 0x1p126F);
  rows.at(5, 0) = kMax;
  std::fill_n(rows.row(6), 258, 0x1p-140F);
  compare({LatentFormat::kFp8, 256, 2}, rows);
}

}  // namespace
}  // namespace cachalot::cuda::testing
