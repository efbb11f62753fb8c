#include "model/read_ahead.h"

#include <gtest/gtest.h>

#include <set>

#include "model/weights.h"
#include "testing/fixtures.h"

namespace cachalot::model {
namespace {

std::set<const void*> starts(std::span<const MemoryPiece> pieces) {
  std::set<const void*> all;
  for (const MemoryPiece& p : pieces) all.insert(p.at);
  return all;
}

// Of one block, whatever it consists of: what products read is announced before.
void expect_chain(const nn::BlockWeights& b, const void* after) {
  const nn::WeightRef& q = b.mla.q_a.rows > 0 ? b.mla.q_b : b.mla.q_proj;
  EXPECT_TRUE(starts(b.mla.kv_a.read_next).contains(q.data));
  EXPECT_TRUE(starts(q.read_next).contains(b.mla.kv_b.data));
  EXPECT_TRUE(starts(b.mla.kv_b.read_next).contains(b.mla.o.data));
  const nn::MlpWeights& mlp = b.is_moe ? b.moe.shared : b.mlp;
  const auto behind_attention = starts(b.mla.o.read_next);
  EXPECT_EQ(behind_attention.contains(b.moe.router.data), b.is_moe);
  if (mlp.gate.rows > 0) {
    EXPECT_TRUE(behind_attention.contains(mlp.gate.data));
    EXPECT_TRUE(behind_attention.contains(mlp.up.data));
    EXPECT_TRUE(starts(mlp.gate.read_next).contains(mlp.down.data));
    EXPECT_TRUE(starts(mlp.down.read_next).contains(after));
  }
  for (const nn::MlpWeights& expert : b.moe.experts) {
    EXPECT_TRUE(starts(expert.gate.read_next).contains(expert.down.data));
    EXPECT_TRUE(starts(expert.up.read_next).contains(expert.down.data));
    EXPECT_TRUE(starts(expert.down.read_next).contains(after));
  }
}

const void* start_of(const nn::BlockWeights& b) { return b.mla.kv_a.data; }

TEST(ReadAhead, APassIsAChain) {
  const auto folders = testing::fixture_folders(testing::FixtureKind::kModel);
  ASSERT_FALSE(folders.empty());
  for (const auto& folder : folders) {
    SCOPED_TRACE(folder.string());
    const Model model = Model::load(folder, Precision::kF32);
    const nn::Weights& w = model.weights();
    for (std::size_t i = 0; i < w.layers.size(); ++i) {
      const bool last = i + 1 == w.layers.size();
      expect_chain(w.layers[i], last ? w.head.data : start_of(w.layers[i + 1]));
    }
    for (const nn::MtpWeights& mtp : w.mtp) {
      EXPECT_TRUE(starts(w.head.read_next).contains(mtp.eh_proj.data));
      EXPECT_TRUE(starts(mtp.eh_proj.read_next).contains(start_of(mtp.block)));
      expect_chain(mtp.block, mtp.head.data);
      EXPECT_TRUE(starts(mtp.head.read_next).contains(start_of(w.layers.front())));
    }
    const auto after_head = starts(w.head.read_next);
    EXPECT_EQ(after_head.contains(start_of(w.layers.front())), w.mtp.empty());
  }
}

}  // namespace
}  // namespace cachalot::model
