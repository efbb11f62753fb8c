#include "kernels/cuda/latent_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "base/rng.h"

namespace cachalot::cuda {
namespace {

// Every chunk in one piece, in order; pieces of several chunks begin eights and stay in them;
// nobody has much more than an even share.
void expect_shared(const std::vector<int>& contexts, int queries, int heads, int rows_per_group,
                   ChunkLengths lengths, int workers) {
  std::vector<std::vector<const std::byte*>> blocks;
  LatentPlan plan;
  for (const int s : contexts) {
    blocks.emplace_back(static_cast<std::size_t>(s + 63) / 64, nullptr);
    LatentAttention a{};
    a.q.rows = std::min(queries, s);
    a.heads = heads;
    a.cache.rows = s;
    a.cache.blocks = blocks.back();
    plan.add(a, rows_per_group, lengths);
  }
  plan.share(workers, /*partial_always=*/false);
  ASSERT_GE(plan.begins.size(), 2U);
  ASSERT_LE(static_cast<int>(plan.begins.size()) - 1, workers);
  EXPECT_EQ(plan.begins.front(), 0);
  EXPECT_EQ(plan.begins.back(), static_cast<int>(plan.pieces.size()));
  EXPECT_TRUE(std::is_sorted(plan.begins.begin(), plan.begins.end()));
  std::vector<std::vector<Piece>> pieces(plan.groups.size());
  for (const Piece& p : plan.pieces) pieces[static_cast<std::size_t>(p.group)].push_back(p);
  int partials = 0;
  for (std::size_t i = 0; i < plan.groups.size(); ++i) {
    const RowGroup& g = plan.groups[i];
    int next = 0, count = 0, eight = g.first_eight;
    for (const Piece& p : pieces[i]) {
      EXPECT_EQ(p.first_chunk, next);
      EXPECT_EQ(p.partial, g.partial + count);
      if (p.first_chunk % kChunksTogether == 0) {
        EXPECT_EQ(plan.eights[static_cast<std::size_t>(eight++)], count);
      }
      EXPECT_TRUE(p.chunks == 1 ||
                  (p.first_chunk % kChunksTogether == 0 && p.chunks <= kChunksTogether));
      next += p.chunks;
      ++count;
    }
    EXPECT_EQ(next, g.chunks);
    EXPECT_EQ(count, g.pieces);
    EXPECT_EQ(plan.eights[static_cast<std::size_t>(eight)], count);
    if (g.chunks > 1) {
      EXPECT_EQ(g.partial, partials);
      partials += count;
    }
  }
  EXPECT_EQ(plan.partials, partials);
  std::vector<double> loads;
  double total = 0;
  int largest = 0;  // of all chunks
  for (const RowGroup& g : plan.groups) {
    for (int c = 0; c < g.chunks; ++c) largest = std::max(largest, g.end(c) - g.lengths.begin(c));
  }
  for (std::size_t w = 0; w + 1 < plan.begins.size(); ++w) {
    double load = 0;
    for (int i = plan.begins[w]; i < plan.begins[w + 1]; ++i) {
      const Piece& p = plan.pieces[static_cast<std::size_t>(i)];
      const RowGroup& g = plan.groups[static_cast<std::size_t>(p.group)];
      load += g.end(p.first_chunk + p.chunks - 1) - g.lengths.begin(p.first_chunk) + 64 * p.chunks;
    }
    EXPECT_GT(load, 0);
    loads.push_back(load);
    total += load;
  }
  const double even = total / workers;
  EXPECT_LE(*std::max_element(loads.begin(), loads.end()), 1.25 * even + 1.5 * (largest + 64))
      << contexts.size() << " sequences, " << heads << " heads, " << workers << " workers";
}

TEST(CudaLatentPlanTest, EverythingIsSharedOutOnce) {
  const ChunkLengths even{512, 1 << 20}, longer{512, 64}, shorter{256, 128};
  for (const int workers : {1, 7, 132, 1 << 30}) {
    expect_shared({1}, 1, 16, 16, even, workers);
    expect_shared({4096}, 1, 128, 64, even, workers);
    expect_shared({131072}, 5, 128, 64, longer, workers);
    expect_shared(std::vector<int>(128, 4096), 1, 128, 64, longer, workers);
    expect_shared(std::vector<int>(100, 4096), 1, 16, 16, shorter, workers);
    expect_shared({70, 4000, 1, 513, 512, 9000, 100000}, 70, 20, 32, shorter, workers);
    const Rng rng(3, 0);
    for (std::uint64_t k = 0; k < 20; ++k) {
      std::vector<int> contexts;
      for (std::uint64_t i = 0; i < 1 + k * 3; ++i) {
        contexts.push_back(1 + static_cast<int>(rng.bits(k * 1000 + i) % 20000));
      }
      expect_shared(contexts, 1 + static_cast<int>(k % 3), 16, 32, even, workers);
    }
  }
}

TEST(CudaLatentPlanTest, ChunksFollowEachOther) {
  for (const ChunkLengths lengths : {ChunkLengths{512, 64}, ChunkLengths{256, 128}}) {
    EXPECT_EQ(lengths.begin(0), 0);
    for (int c = 0; c < 300; ++c) {
      const int begin = lengths.begin(c), end = lengths.begin(c + 1);
      const int expected = lengths.first
                           << (begin >= lengths.first * lengths.alike
                                   ? 1 + std::countr_zero(
                                             std::bit_floor(static_cast<unsigned>(begin)) /
                                             (lengths.first * lengths.alike))
                                   : 0);
      EXPECT_EQ(end - begin, expected) << c;
      EXPECT_EQ(lengths.chunks(end), c + 1);
      EXPECT_EQ(lengths.chunks(begin + 1), c + 1);
    }
  }
}

// Blocks of threads of both halves of 128 heads have the same tokens.
TEST(CudaLatentPlanTest, HalvesOfTheHeadsAreSideBySide) {
  std::vector<const std::byte*> blocks(1000, nullptr);
  LatentPlan plan;
  for (const int rows : {5000, 64000, 300}) {
    LatentAttention a{};
    a.q.rows = 1;
    a.heads = 128;
    a.cache.rows = rows;
    a.cache.blocks = blocks;
    plan.add(a, 64, {512, 64});
  }
  plan.share(132, false);
  ASSERT_EQ(plan.begins.size() % 2, 1U);
  for (std::size_t w = 0; w + 2 < plan.begins.size(); w += 2) {
    const int first = plan.begins[w], other = plan.begins[w + 1];
    ASSERT_EQ(other - first, plan.begins[w + 2] - other);
    for (int i = 0; first + i < other; ++i) {
      const Piece &a = plan.pieces[static_cast<std::size_t>(first + i)],
                  &b = plan.pieces[static_cast<std::size_t>(other + i)];
      EXPECT_EQ(a.group + 1, b.group);
      EXPECT_EQ(a.first_chunk, b.first_chunk);
      EXPECT_EQ(a.chunks, b.chunks);
    }
  }
}

}  // namespace
}  // namespace cachalot::cuda
