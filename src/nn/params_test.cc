#include "nn/params.h"

#include <gtest/gtest.h>

#include "nn/mla.h"

namespace cachalot::nn {
namespace {

TEST(BytesRead, OfItsOwnMemoryOfPackedWordsAndOfCodes) {
  const MatRef plain(nullptr, DType::kF32, 48, 20, 20);
  EXPECT_EQ(bytes_read(WeightRef(plain)), 48 * 20 * 4);

  // A float file packed for bf16 products: two bytes each are read, whatever the file has.
  PackedB packed;
  packed.precision = Precision::kBF16;
  packed.k = 20;
  packed.n = 48;
  packed.words.resize(10, 64);  // padded columns
  WeightRef w(plain);
  w.packed = &packed;
  EXPECT_EQ(bytes_read(w), 48 * 20 * 2);

  PackedHeads heads;
  heads.keys.resize(2);
  heads.values.resize(2);
  for (PackedB& p : heads.keys) p.precision = Precision::kBF16, p.k = 16, p.n = 20;
  for (PackedB& p : heads.values) p.precision = Precision::kBF16, p.k = 20, p.n = 8;
  WeightRef kv_b(plain);
  kv_b.heads = &heads;
  EXPECT_EQ(bytes_read(kv_b), 48 * 20 * 2);

  QuantView blocks;
  blocks.code = QuantCode::kE4m3;
  blocks.rows = 130;
  blocks.cols = 256;
  EXPECT_EQ(bytes_read(WeightRef(blocks)), 130 * 256 + 2 * 2 * 4);
}

}  // namespace
}  // namespace cachalot::nn
