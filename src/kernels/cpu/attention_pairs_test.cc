// vdpbf16ps and float FMAs in its order give the same bits, so that a level may take the faster
// one.
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/level_test.h"
#include "kernels/cpu/simd.h"
#include "kernels/latent_blocks.h"
#include "testing/random_mat.h"

#ifdef CACHALOT_X86
namespace cachalot::cpu {
namespace {

using testing::random_mat;

bool same_bits(const Mat<float>& a, const Mat<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

bool runs_here() {
  const auto levels = supported_levels();
  return std::find(levels.begin(), levels.end(), Level::kAvx512Bf16) != levels.end();
}

// `size` of values: ordinary, and so small that products and sums are denormal.
struct Results {
  static constexpr AttentionDims kDims{2, 33, 14, 31};
  AttentionSpan spans[2]{{0, 131, 0, 131}, {131, 9, 131, 30}};
  Mat<float> q, kv, k_rope, dout, out{140, 62}, lse{140, 2}, dq{140, 94}, dkv{161, 128},
      dk_rope{161, 14};
  Mat<float> latent_out{3, 2 * 40};

  Results(const AttentionKernels& kernels, float size)
      : q(random_mat<float>(140, 94, 1)),
        kv(random_mat<float>(161, 128, 2, size)),
        k_rope(random_mat<float>(161, 14, 3, size)),
        dout(random_mat<float>(140, 62, 4, size)) {
    const AttentionIsa isa{kernels, kernels};
    const Context ctx;
    constexpr auto kBf16 = Precision::kBF16;
    run_attention(
        isa, ctx,
        {q.cview(), kv.cview(), k_rope.cview(), spans, kDims, 0.2f, kBf16, out.view(), lse.view()});
    run_attention_backward(
        isa, ctx,
        {q.cview(), kv.cview(), k_rope.cview(), spans, kDims, 0.2f, kBf16, out.cview(), lse.cview(),
         dout.cview(), dq.view(), dkv.view(), dk_rope.view()});
    const auto query = random_mat<float>(3, 2 * 47, 5), cache = random_mat<float>(155, 47, 6, size);
    const LatentBlocks blocks(Context{&kReferenceTable}, {LatentFormat::kF32, 40, 7},
                              cache.cview());
    const LatentAttention latent{query.cview(), blocks.rows(), 2, 0.2f, latent_out.view(), kBf16};
    run_latent_attention(isa, ctx, {&latent, 1});
  }
};

TEST(AttentionPairsTest, BothInstructionsGiveTheSameBits) {
  if (!runs_here()) GTEST_SKIP() << "this machine has no vdpbf16ps";
  for (const float size : {1.0f, 0x1p-60f, 0x1p-122f, 0x1p-126f, 0x1p-134f}) {
    SCOPED_TRACE(size);
    const Results pairs(avx512bf16::kAttentionPairs, size),
        floats(avx512bf16::kAttentionFloats, size);
    EXPECT_TRUE(same_bits(pairs.out, floats.out));
    EXPECT_TRUE(same_bits(pairs.lse, floats.lse));
    EXPECT_TRUE(same_bits(pairs.dq, floats.dq));
    EXPECT_TRUE(same_bits(pairs.dkv, floats.dkv));
    EXPECT_TRUE(same_bits(pairs.dk_rope, floats.dk_rope));
    EXPECT_TRUE(same_bits(pairs.latent_out, floats.latent_out));
  }
}

}  // namespace
}  // namespace cachalot::cpu
#endif
