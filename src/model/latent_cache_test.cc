#include "model/latent_cache.h"

#include <gmock/gmock.h>

#include <cstring>
#include <thread>

#include "base/error.h"
#include "kernels/table.h"
#include "testing/random_mat.h"

namespace cachalot::model {
namespace {

using ::testing::HasSubstr;

Config small(int layers = 2, int mtp = 1) {
  Config c;
  c.kv_lora_rank = 24;
  c.qk_rope_head_dim = 8;
  c.num_hidden_layers = layers;
  c.num_nextn_predict_layers = mtp;
  c.max_position_embeddings = 1000;
  return c;
}

std::size_t bytes(const Config& c, int pages) {
  return CachePool::bytes_for(c, LatentFormat::kF32, pages * kLatentBlock);
}

const Context kContext{&kReferenceTable};

// Rows [begin, end) of every layer: values that tell sequence, position and layer.
void fill(LatentCache& cache, int begin, int end, float seed) {
  ASSERT_TRUE(cache.reserve(begin, end));
  const LatentLayout& layout = cache.pool().shape().layout;
  for (int layer = 0; layer < cache.pool().shape().layers(); ++layer) {
    Mat<float> latent(end - begin, layout.latent), rope(end - begin, layout.rope);
    for (int i = begin; i < end; ++i) {
      const float value = seed + static_cast<float>(i) + 0.25F * static_cast<float>(layer);
      std::fill_n(latent.row(i - begin), latent.cols(), value);
      std::fill_n(rope.row(i - begin), rope.cols(), -value);
    }
    cache.write(kContext, layer, begin, latent.cview(), rope.cview());
  }
  cache.set_length(end);
}

void expect_rows(const LatentCache& cache, int begin, int end, float seed, bool mtp = true) {
  const LatentLayout& layout = cache.pool().shape().layout;
  const CacheShape& shape = cache.pool().shape();
  Mat<float> all(cache.length(), layout.width());
  for (int layer = 0; layer < (mtp ? shape.layers() : shape.main_layers); ++layer) {
    load_latent(kContext, cache.rows(layer, cache.length()), 0, all.view());
    for (int i = begin; i < end; ++i) {
      const float value = seed + static_cast<float>(i) + 0.25F * static_cast<float>(layer);
      ASSERT_EQ(all.at(i, 0), value) << i;
      ASSERT_EQ(all.at(i, layout.latent - 1), value) << i;
      ASSERT_EQ(all.at(i, layout.latent), -value) << i;
      ASSERT_EQ(all.at(i, layout.width() - 1), -value) << i;
    }
  }
}

// DeepSeek-V3: 61 layers of 512 + 64, and the MTP layer.
TEST(CacheShapeTest, BytesPerTokenOfV3) {
  Config v3;
  v3.kv_lora_rank = 512;
  v3.qk_rope_head_dim = 64;
  v3.num_hidden_layers = 61;
  v3.num_nextn_predict_layers = 1;
  const CacheShape bf16(v3, LatentFormat::kBF16), fp8(v3, LatentFormat::kFp8),
      f32(v3, LatentFormat::kF32);
  EXPECT_EQ(bf16.bytes_per_token(), 70272u);
  EXPECT_EQ(fp8.bytes_per_token(), 40016u);
  EXPECT_EQ(f32.bytes_per_token(), 140544u);
  EXPECT_EQ(bf16.mtp_bytes_per_token(), 1152u);
  EXPECT_EQ(fp8.mtp_bytes_per_token(), 656u);
  EXPECT_EQ(fp8.page_bytes(), 64u * (40016 + 656));
}

TEST(CachePoolTest, TakesWhatTheBudgetHolds) {
  const Config c = small();
  EXPECT_EQ(CachePool(c, LatentFormat::kF32, bytes(c, 3)).pages(), 3);
  EXPECT_EQ(CachePool(c, LatentFormat::kF32, bytes(c, 4) - 1).pages(), 3);
  EXPECT_EQ(bytes(c, 1), 64u * 3 * 32 * 4);
  EXPECT_EQ(CachePool::bytes_for(c, LatentFormat::kF32, 65, 5), 10 * bytes(c, 1));
  try {
    CachePool none(c, LatentFormat::kF32, bytes(c, 1) - 1);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kUsage);
    EXPECT_THAT(e.what(), HasSubstr("budget of 24575 bytes"));
    EXPECT_THAT(e.what(), HasSubstr("takes 24576"));
  }
}

TEST(LatentCacheTest, GrowsByPagesAndGivesThemBack) {
  const Config c = small();
  CachePool pool(c, LatentFormat::kF32, bytes(c, 4));
  {
    LatentCache a(pool);
    EXPECT_EQ(a.pages(), 0);
    fill(a, 0, 1, 1000);
    EXPECT_EQ(a.pages(), 1);
    fill(a, 1, 64, 1000);
    EXPECT_EQ(a.pages(), 1);
    fill(a, 64, 130, 1000);
    EXPECT_EQ(a.pages(), 3);
    EXPECT_EQ(pool.free_pages(), 1);
    expect_rows(a, 0, 130, 1000);
    a.truncate(128);
    EXPECT_EQ(pool.free_pages(), 2);
    a.truncate(1);
    EXPECT_EQ(a.length(), 1);
    EXPECT_EQ(pool.free_pages(), 3);
    LatentCache b(std::move(a));
    expect_rows(b, 0, 1, 1000);
    LatentCache other(pool);
    fill(other, 0, 100, 5);
    EXPECT_EQ(pool.free_pages(), 1);
    b = std::move(other);
    EXPECT_EQ(pool.free_pages(), 2);
    expect_rows(b, 0, 100, 5);
  }
  EXPECT_EQ(pool.free_pages(), 4);
}

TEST(LatentCacheTest, AFullPoolIsAnAnswerAndChangesNothing) {
  const Config c = small();
  CachePool pool(c, LatentFormat::kF32, bytes(c, 3));
  LatentCache a(pool), b(pool);
  fill(a, 0, 100, 1);
  fill(b, 0, 10, 2);
  EXPECT_EQ(pool.free_pages(), 0);
  EXPECT_EQ(a.pages_needed(100, 200), 2);
  EXPECT_FALSE(a.reserve(100, 200));
  EXPECT_TRUE(a.reserve(100, 128));
  EXPECT_EQ(a.pages(), 2);
  expect_rows(a, 0, 100, 1);
  // Half of what is asked for is there: it is not kept.
  b.truncate(0);
  EXPECT_FALSE(a.reserve(100, 250));
  EXPECT_EQ(pool.free_pages(), 1);
  EXPECT_TRUE(a.reserve(100, 192));
  EXPECT_FALSE(b.reserve(0, 1));
  // Copies need pages, too.
  LatentCache f = a.fork(100);
  EXPECT_FALSE(f.reserve(100, 101));
  a.truncate(64);
  EXPECT_TRUE(f.reserve(100, 101));  // the page is f's own now
  expect_rows(f, 0, 100, 1);
}

TEST(LatentCacheTest, PositionsPastTheCapacityAreRefused) {
  const Config c = small();
  CachePool pool(c, LatentFormat::kF32, bytes(c, 3));
  LatentCache a(pool, 70);
  EXPECT_EQ(LatentCache(pool).capacity(), 1000);
  EXPECT_TRUE(a.reserve(0, 70));
  try {
    (void)a.reserve(0, 71);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kUsage);
    EXPECT_THAT(e.what(), HasSubstr("holds 70 tokens, 71 are needed"));
  }
}

TEST(LatentCacheTest, ForksShareUntilOneWrites) {
  const Config c = small();
  CachePool pool(c, LatentFormat::kF32, bytes(c, 8));
  LatentCache a(pool);
  fill(a, 0, 150, 1000);  // pages of 64, 64, 22
  a.set_mtp_length(149);
  LatentCache b = a.fork(140), d = a.fork(64);
  EXPECT_EQ(b.length(), 140);
  EXPECT_EQ(b.mtp_length(), 140);
  EXPECT_EQ(d.mtp_length(), 64);
  EXPECT_EQ(pool.free_pages(), 5);
  // b goes on: the third page becomes its own, the others stay shared.
  fill(b, 140, 145, 2000);
  EXPECT_EQ(pool.free_pages(), 4);
  expect_rows(a, 0, 150, 1000);
  expect_rows(b, 0, 140, 1000);
  expect_rows(b, 140, 145, 2000);
  // d begins a new page: nothing to copy. Then it writes over a row of the first one.
  fill(d, 64, 66, 3000);
  EXPECT_EQ(pool.free_pages(), 3);
  d.truncate(63);
  fill(d, 63, 64, 4000);
  expect_rows(a, 0, 150, 1000);
  expect_rows(d, 0, 63, 1000);
  expect_rows(d, 63, 64, 4000);
  // The last holder of a page writes it in place.
  const int before = pool.free_pages();
  a.truncate(0);
  const auto page = [&] { return b.rows(0, 100).row(kLatentBlock); };
  const std::byte* before_write = page();
  b.truncate(100);
  fill(b, 100, 101, 5000);
  EXPECT_EQ(page(), before_write);
  EXPECT_GE(pool.free_pages(), before);
  expect_rows(b, 0, 100, 1000);
}

TEST(LatentCacheTest, BlocksGoOutAndComeBack) {
  const Config c = small();
  CachePool pool(c, LatentFormat::kF32, bytes(c, 12));
  LatentCache a(pool);
  fill(a, 0, 130, 7);
  const int mtp = pool.shape().main_layers;  // the first MTP layer
  ASSERT_GT(pool.shape().mtp_layers, 0);
  const auto mtp_rows = [&](const LatentCache& cache, int n) {
    std::vector<std::byte> all;
    const auto width = static_cast<std::size_t>(pool.shape().layout.row_bytes());
    for (int i = 0; i < n; ++i) {
      const std::byte* row = cache.rows(mtp, n).row(i);
      all.insert(all.end(), row, row + width);
    }
    return all;
  };
  std::vector<std::byte> block(a.block_bytes());
  a.set_mtp_length(126);
  EXPECT_THROW(a.copy_block(1, true, block), Error);  // row 126 of the MTP layer is missing
  EXPECT_THROW(a.copy_block(2, false, block), Error);
  a.set_mtp_length(127);
  for (const bool with_mtp : {true, false}) {
    LatentCache b(pool);
    for (int i = 0; i < 2; ++i) {
      a.copy_block(i, with_mtp, block);
      ASSERT_TRUE(b.append_block(block, with_mtp));
    }
    EXPECT_EQ(b.length(), 128);
    EXPECT_EQ(b.mtp_length(), with_mtp ? 127 : 0);
    expect_rows(b, 0, 128, 7, false);
    if (with_mtp) {
      EXPECT_EQ(mtp_rows(b, 127), mtp_rows(a, 127));
    }
    fill(b, 128, 130, 7);
    EXPECT_THROW((void)b.append_block(block, with_mtp), Error);
  }
  // Another sequence that shares the first block only: the block is the same bytes.
  LatentCache d = a.fork(64);
  fill(d, 64, 128, 900);
  // Its MTP row of token 63 has read another token 64.
  const LatentLayout& layout = pool.shape().layout;
  const Mat<float> other_latent(1, layout.latent), other_rope(1, layout.rope);
  ASSERT_TRUE(d.reserve(63, 128));
  d.write(kContext, mtp, 63, other_latent.cview(), other_rope.cview());
  d.set_mtp_length(127);
  ASSERT_NE(mtp_rows(d, 64), mtp_rows(a, 64));
  std::vector<std::byte> of_a(block.size()), of_d(block.size());
  a.copy_block(0, true, of_a);
  d.copy_block(0, true, of_d);
  EXPECT_EQ(of_a, of_d);
  EXPECT_THROW((void)LatentCache(pool).append_block({}, true), Error);
}

TEST(LatentCacheTest, SequencesOnManyThreads) {
  const Config c = small();
  CachePool pool(c, LatentFormat::kF32, bytes(c, 16));
  LatentCache root(pool);
  fill(root, 0, 100, 1);
  std::vector<LatentCache> forks;
  for (int i = 0; i < 4; ++i) forks.push_back(root.fork(90));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      LatentCache& own = forks[static_cast<std::size_t>(t)];
      for (int n = 0; n < 50; ++n) {
        fill(own, 90, 150, 1000.0F * static_cast<float>(t + 1));
        expect_rows(own, 0, 90, 1);
        expect_rows(own, 90, 150, 1000.0F * static_cast<float>(t + 1));
        own.truncate(90);
        const LatentCache again = own.fork(90);
        expect_rows(again, 0, 90, 1);
      }
    });
  }
  for (std::thread& t : threads) t.join();
  expect_rows(root, 0, 100, 1);
  forks.clear();
  EXPECT_EQ(pool.free_pages(), 14);
}

}  // namespace
}  // namespace cachalot::model
