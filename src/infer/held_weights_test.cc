// What a loaded model holds, byte for byte beside what plans count from the sizes alone.
#include <gtest/gtest.h>

#include <filesystem>

#include "cost/weight_bytes.h"
#include "kernels/gemm.h"
#include "kernels/quant_linear.h"
#include "model/init.h"
#include "model/weights.h"
#include "runtime/runtime.h"
#include "testing/fixtures.h"

namespace cachalot::infer {
namespace {

using model::LoadOptions;
using model::WeightFormat;

// Every width a multiple of 128: no group, block or panel has an end that is padded.
model::Config even_config() {
  model::Config c;
  c.vocab_size = 512;
  c.hidden_size = 256;
  c.intermediate_size = 384;
  c.moe_intermediate_size = 128;
  c.num_hidden_layers = 3;
  c.first_k_dense_replace = 1;
  c.num_attention_heads = 2;
  c.q_lora_rank = 256;
  c.kv_lora_rank = 128;
  c.qk_nope_head_dim = 128;
  c.qk_rope_head_dim = 128;
  c.v_head_dim = 128;
  c.rope.dim = 128;
  c.n_shared_experts = 1;
  c.route.experts = 8;
  c.route.topk = 2;
  c.route.groups = 1;
  c.route.topk_groups = 1;
  c.num_nextn_predict_layers = 1;
  c.max_position_embeddings = 256;
  return c;
}

TEST(HeldWeightsTest, ArePlannedToTheByte) {
  const testing::TempDir dir;
  const runtime::Runtime runtime({.threads = 2, .cpu = {}});
  const model::Config config = even_config();
  const cost::Decoder decoder = cost::decoder_of(config, "even");
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kBf16, WeightFormat::kFp8,
                                    WeightFormat::kInt8, WeightFormat::kInt4}) {
    SCOPED_TRACE(model::name(format));
    const std::filesystem::path folder = dir.path() / model::name(format);
    model::InitOptions init;
    init.format = format;
    model::init_model(runtime.context(), config, model::to_json(config), folder, init);
    LoadOptions options;
    options.precision = format == WeightFormat::kF32 ? Precision::kF32 : Precision::kBF16;
    options.keep_codes = true;
    options.context = &runtime.context();
    // A pass reads a few rows of the two embeddings: on a host they stay in the mapped file.
    const double embeddings = 2.0 * 512 * 256 * (format == WeightFormat::kF32 ? 4 : 2);
    const auto held = [&](LoadOptions::Placement placement) {
      options.placement = placement;
      return embeddings + static_cast<double>(model::Model::load(folder, options).copied_bytes());
    };
    EXPECT_EQ(cost::held_bytes(decoder, format), held(LoadOptions::Placement::kCopied));
    if (!quant_panels_are_fast(runtime.context())) continue;
    const bool heads = packs_bf16_in_pairs(runtime.context());
    EXPECT_EQ(cost::held_bytes(decoder, format, heads), held(LoadOptions::Placement::kPacked));
  }
}

}  // namespace
}  // namespace cachalot::infer
