// Plans of a pass's latents: the bits of the plain ops, in any layer, and when launches recorded
// for one plan are replayed with another of its shape.
#include "kernels/planned_latents.h"

#include <memory>
#include <string>

#include "kernels/cuda/cuda_case_test.h"
#include "kernels/cuda/ops.h"

namespace cachalot::cuda::testing {
namespace {

constexpr int kLayers = 3;

// Sequences in one pool of blocks, each with rows of all layers.
class PlannedLatentsTest : public CudaTest {
 protected:
  struct Sequence {
    int queries, rows;
  };
  void open(const LatentLayout& layout, int heads, int most_rows) {
    layout_ = layout;
    heads_ = heads;
    q_ = up(random_mat(most_rows, heads * layout.width(), 1));
    c_kv_ = up(random_mat(most_rows, layout.latent, 2));
    k_rope_ = up(random_mat(most_rows, layout.rope, 3));
    planned_out_ = room<float>(most_rows, heads * layout.latent);
    plain_out_ = room<float>(most_rows, heads * layout.latent);
    const int tokens = kBlocks * kLatentBlock * kLayers;
    const auto bytes = static_cast<std::size_t>(layout.block_bytes()) * kLayers * kBlocks;
    planned_pool_ = room<std::byte>(1, static_cast<int>(bytes));
    plain_pool_ = room<std::byte>(1, static_cast<int>(bytes));
    // Numbers in every row, through the plain op.
    const Mat<float> latent = up(random_mat(kLatentBlock, layout.latent, 4));
    const Mat<float> rope = up(random_mat(kLatentBlock, layout.rope, 5));
    std::vector<StoreLatent> jobs;
    for (int t = 0; t < tokens; t += kLatentBlock) {
      jobs.push_back(
          {layout, latent.cview(), rope.cview(), plain_pool_.data() + t * layout.row_bytes()});
    }
    cuda::store_latent(ctx, jobs);
    device_->copy(planned_pool_.data(), plain_pool_.data(), bytes);
  }

  // Blocks of the sequences, from the pool's `first` on, every third.
  PlannedLatents problems(const std::vector<Sequence>& list, Mat<std::byte>& pool,
                          MatView<float> out, int first,
                          std::vector<std::vector<const std::byte*>>& blocks) const {
    PlannedLatents p;
    int row = 0, block = first;
    blocks.clear();
    blocks.reserve(list.size());
    for (const Sequence& s : list) {
      auto& own = blocks.emplace_back();
      for (int b = 0; b * kLatentBlock < s.rows; ++b) {
        own.push_back(pool.data() + block * kLayers * layout_.block_bytes());
        block = (block + 3) % kBlocks;
      }
      for (int i = 0; i < s.queries; ++i) {
        const int at = s.rows - s.queries + i;
        auto* to = const_cast<std::byte*>(own[static_cast<std::size_t>(at / kLatentBlock)]);
        p.stores.push_back({layout_, c_kv_.cview().sub_rows(row + i, 1),
                            k_rope_.cview().sub_rows(row + i, 1),
                            to + at % kLatentBlock * layout_.row_bytes()});
      }
      p.problems.push_back({q_.cview().sub_rows(row, s.queries),
                            {layout_, own, 0, s.rows},
                            heads_,
                            0.05f,
                            out.sub_rows(row, s.queries),
                            Precision::kBF16});
      row += s.queries;
    }
    return p;
  }

  void plain(const std::vector<Sequence>& list, int first, int layer) {
    std::vector<std::vector<const std::byte*>> blocks;
    PlannedLatents p = problems(list, plain_pool_, plain_out_.view(), first, blocks);
    for (StoreLatent& a : p.stores) a.row += layer * layout_.block_bytes();
    for (LatentAttention& a : p.problems) a.cache.offset += layer * layout_.block_bytes();
    cuda::store_latent(ctx, p.stores);
    cuda::latent_attention(ctx, p.problems);
  }
  void expect_same(const std::string& what) {
    const Mat<float> got = down(planned_out_), want = down(plain_out_);
    EXPECT_EQ(0, std::memcmp(got.data(), want.data(), got.size() * sizeof(float))) << what;
    const Mat<std::byte> a = down(planned_pool_), b = down(plain_pool_);
    EXPECT_EQ(0, std::memcmp(a.data(), b.data(), a.size())) << what << ", caches";
  }
  void replan(PlannedLatents& plan, const std::vector<Sequence>& list, int first) {
    PlannedLatents p = problems(list, planned_pool_, planned_out_.view(), first, blocks_);
    plan.stores = std::move(p.stores);
    plan.problems = std::move(p.problems);
    cuda::plan_latents(ctx, plan);
  }

  void check(const std::vector<Sequence>& one, const std::vector<Sequence>& other,
             const std::string& what) {
    PlannedLatents plan;
    replan(plan, one, 0);
    for (const int layer : {0, 2}) {
      cuda::store_planned(ctx, plan, layer * layout_.block_bytes());
      cuda::attend_planned(ctx, plan, layer * layout_.block_bytes());
      plain(one, 0, layer);
      expect_same(cat(what, ", layer ", layer));
    }
    const auto shape = plan.shape;
    device_->wait();
    device_->begin_recording();
    cuda::store_planned(ctx, plan, layout_.block_bytes());
    cuda::attend_planned(ctx, plan, layout_.block_bytes());
    const auto recording = device_->end_recording();
    ASSERT_NE(recording, nullptr);
    ASSERT_TRUE(recording->replay());
    plain(one, 0, 1);
    expect_same(what + ", replayed");
    replan(plan, other, 5);
    EXPECT_EQ(plan.shape, shape) << what;
    ASSERT_TRUE(recording->replay());
    plain(other, 5, 1);
    expect_same(what + ", replayed with another plan");
  }

  static constexpr int kBlocks = 97;
  LatentLayout layout_;
  int heads_ = 0;
  Mat<float> q_, c_kv_, k_rope_, planned_out_, plain_out_;
  Mat<std::byte> planned_pool_, plain_pool_;
  std::vector<std::vector<const std::byte*>> blocks_;
};

TEST_F(PlannedLatentsTest, GiveTheBitsOfThePlainOps) {
  struct Kind {
    LatentFormat format;
    int latent, rope, heads;
  };
  for (const Kind& k :
       {Kind{LatentFormat::kBF16, 512, 64, 16}, Kind{LatentFormat::kFp8, 512, 64, 16},
        Kind{LatentFormat::kBF16, 512, 64, 128}, Kind{LatentFormat::kF32, 48, 16, 4},
        Kind{LatentFormat::kBF16, 96, 32, 3}}) {
    open({k.format, k.latent, k.rope}, k.heads, 16);
    const std::string what = cat(name(k.format), " ", k.latent, ", ", k.heads, " heads");
    check({{1, 1}}, {{1, 63}}, what + ", a first token");
    check({{1, 600}, {1, 900}, {1, 70}}, {{1, 530}, {1, 1001}, {1, 128}}, what + ", three texts");
    check({{2, 65}, {1, 300}, {4, 2000}}, {{2, 66}, {1, 310}, {4, 2010}}, what + ", drafts");
  }
}

// Rows of a pass, from its products into the caches, beside the definition on the host.
TEST_F(PlannedLatentsTest, NormsRotatesAndStores) {
  struct Kind {
    LatentFormat format;
    int latent, rope, q_lora;
  };
  for (const Kind& k :
       {Kind{LatentFormat::kBF16, 512, 64, 512}, Kind{LatentFormat::kFp8, 512, 64, 0},
        Kind{LatentFormat::kF32, 48, 16, 40}, Kind{LatentFormat::kFp8, 100, 6, 1000}}) {
    for (const int rows : {1, 5}) {
      const LatentLayout layout{k.format, k.latent, k.rope};
      const std::string what = cat(name(k.format), " ", k.latent, ", ", rows, " rows");
      const Mat<float> q_a = random_mat(rows, std::max(k.q_lora, 1), 1);
      Mat<float> kv_a = random_mat(rows, k.latent + k.rope, 2);
      const Mat<float> q_weight = random_mat(1, std::max(k.q_lora, 1), 3),
                       kv_weight = random_mat(1, k.latent, 4);
      const Mat<float> cos = random_mat(rows, k.rope / 2, 5), sin = random_mat(rows, k.rope / 2, 6);
      Mat<float> q_an(rows, std::max(k.q_lora, 1)), c_kv(rows, k.latent);
      const auto block = static_cast<int>(2 * layout.block_bytes());
      Mat<std::byte> cache(1, block);
      const Mat<float> q_up = up(q_a), q_weight_up = up(q_weight), kv_weight_up = up(kv_weight),
                       cos_up = up(cos), sin_up = up(sin);
      Mat<float> kv_up = up(kv_a), q_an_up = up(q_an), c_kv_up = room<float>(rows, k.latent);
      Mat<std::byte> cache_up = up(cache);
      PlannedLatents here, there;
      for (int i = 0; i < rows; ++i) {
        const std::ptrdiff_t at = (7 * i + 3) * layout.row_bytes();
        const auto rope = [&](Mat<float>& m) {
          return MatView<const float>(m.view().sub_cols(k.latent, k.rope).sub_rows(i, 1));
        };
        here.stores.push_back({layout, c_kv.cview().sub_rows(i, 1), rope(kv_a), cache.data() + at});
        there.stores.push_back(
            {layout, c_kv_up.cview().sub_rows(i, 1), rope(kv_up), cache_up.data() + at});
      }
      cuda::plan_latents(ctx, there);
      LatentNorms a, b;
      if (k.q_lora > 0) {
        a.q_a = q_a.cview(), b.q_a = q_up.cview();
        a.q_weight = q_weight.span(), b.q_weight = q_weight_up.span();
        a.q_an = q_an.view(), b.q_an = q_an_up.view();
      }
      a.kv_a = kv_a.view(), b.kv_a = kv_up.view();
      a.kv_weight = kv_weight.span(), b.kv_weight = kv_weight_up.span();
      a.c_kv = c_kv.view(), b.c_kv = c_kv_up.view();
      a.eps = b.eps = 1e-6f;
      a.cos = cos.cview(), b.cos = cos_up.cview();
      a.sin = sin.cview(), b.sin = sin_up.cview();
      cachalot::norm_planned(host, here, layout.block_bytes(), a);
      cuda::norm_planned(ctx, there, layout.block_bytes(), b);
      EXPECT_LT(relative_error(down(q_an_up), q_an), 1e-6) << what;
      EXPECT_LT(relative_error(down(c_kv_up), c_kv), 1e-6) << what;
      EXPECT_LT(relative_error(down(kv_up), kv_a), 1e-6) << what;
      // What is stored is what the plain op stores of the device's own rows.
      const Mat<std::byte> got = down(cache_up);
      cuda::store_planned(ctx, there, 0);
      const Mat<std::byte> both = down(cache_up);
      const auto half = static_cast<std::size_t>(layout.block_bytes());
      EXPECT_EQ(0, std::memcmp(got.data() + half, both.data(), half)) << what;
      EXPECT_NE(0, std::memcmp(got.data() + half, got.data(), half)) << what;
    }
  }
}

TEST_F(PlannedLatentsTest, RotatesHeads) {
  for (const int rows : {1, 3}) {
    const Mat<float> x = random_mat(rows, 5 * 24, 1), x_up = up(x);
    const Mat<float> cos = random_mat(rows, 4, 2), sin = random_mat(rows, 4, 3);
    const Mat<float> cos_up = up(cos), sin_up = up(sin);
    Mat<float> want = random_mat(rows, 5 * 30, 4), got = up(want);
    cachalot::rotate_heads(
        host, {{x.cview(), 5, 24, 16, 8, want.view(), 30, 20}, cos.cview(), sin.cview()});
    cuda::rotate_heads(
        ctx, {{x_up.cview(), 5, 24, 16, 8, got.view(), 30, 20}, cos_up.cview(), sin_up.cview()});
    EXPECT_LT(relative_error(down(got), want), 1e-6) << rows;
  }
}

TEST_F(PlannedLatentsTest, ShapesTellPlansApart) {
  open({LatentFormat::kBF16, 512, 64}, 16, 16);
  PlannedLatents plan;
  replan(plan, {{1, 100}, {1, 100}}, 0);
  const auto two = plan.shape;
  replan(plan, {{1, 101}, {1, 99}}, 7);
  EXPECT_EQ(plan.shape, two);
  replan(plan, {{1, 100}}, 0);
  EXPECT_NE(plan.shape, two);
  replan(plan, {{2, 100}}, 0);
  EXPECT_NE(plan.shape, two);
  replan(plan, {{1, 3000}, {1, 100}}, 0);
  EXPECT_NE(plan.shape, two);
}

}  // namespace
}  // namespace cachalot::cuda::testing
