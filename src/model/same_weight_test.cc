#include "model/same_weight.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/table.h"
#include "testing/fixtures.h"

namespace cachalot::model {
namespace {

// 3 MiB: more than the pieces that are compared at a time.
constexpr std::int64_t kRows = 768, kCols = 1024;

TEST(SameWeightTest, EveryByteAndPartCounts) {
  const testing::TempDir dir;
  std::vector<float> one(kRows * kCols, 0.5f);
  std::vector<float> last = one, middle = one, first = one;
  first.front() = last.back() = middle[one.size() - 4000] = 0.25f;
  const std::vector<float> scales(6, 1.0f), others(6, 2.0f);
  const Shape shape{kRows, kCols};
  const io::TensorToWrite tensors[] = {
      {"a.weight", DType::kF32, shape, one.data()},
      {"again.weight", DType::kF32, shape, one.data()},
      {"first.weight", DType::kF32, shape, first.data()},
      {"middle.weight", DType::kF32, shape, middle.data()},
      {"last.weight", DType::kF32, shape, last.data()},
      {"turned.weight", DType::kF32, {kCols, kRows}, one.data()},
      {"scaled.weight", DType::kF32, shape, one.data()},
      {"scaled.weight_scale_inv", DType::kF32, {6}, scales.data()},
      {"other.weight", DType::kF32, shape, one.data()},
      {"other.weight_scale_inv", DType::kF32, {6}, others.data()},
      {"p.weight_packed", DType::kF32, shape, one.data()},
      {"p.weight_scale", DType::kF32, {6}, scales.data()},
      {"q.weight_packed", DType::kF32, shape, one.data()},
      {"q.weight_scale", DType::kF32, {6}, scales.data()},
      {"r.weight_packed", DType::kF32, shape, one.data()},
      {"r.weight_scale", DType::kF32, {6}, others.data()},
  };
  io::write_model_safetensors(dir.path(), tensors);
  const auto file = io::Safetensors::open(dir.path());
  const Context ctx{&kReferenceTable};
  const auto same = [&](const char* a, const char* b) { return same_weight(ctx, file, a, b); };
  EXPECT_TRUE(same("a.weight", "again.weight"));
  for (const char* other : {"first.weight", "middle.weight", "last.weight", "turned.weight",
                            "scaled.weight", "p.weight", "nowhere.weight"}) {
    EXPECT_FALSE(same("a.weight", other)) << other;
    EXPECT_FALSE(same(other, "a.weight")) << other;
  }
  EXPECT_TRUE(same("scaled.weight", "scaled.weight"));
  EXPECT_FALSE(same("scaled.weight", "other.weight"));
  EXPECT_TRUE(same("p.weight", "q.weight"));
  EXPECT_FALSE(same("p.weight", "r.weight"));
  EXPECT_FALSE(same("nowhere.weight", "nowhere.weight"));
}

}  // namespace
}  // namespace cachalot::model
