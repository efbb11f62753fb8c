// What a loaded model holds, byte for byte beside what plans count from the sizes alone.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "cost/weight_bytes.h"
#include "io/safetensors.h"
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
    // A pass reads a few rows of the embedding, which is the MTP layer's too: on a host it stays in
    // the mapped file.
    const double embeddings = 1.0 * 512 * 256 * (format == WeightFormat::kF32 ? 4 : 2);
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

// The MTP layer's head is held once with the main one only where it is the same to the last byte.
TEST(HeldWeightsTest, AnMtpHeadOfItsOwnIsHeld) {
  const testing::TempDir dir;
  const runtime::Runtime runtime({.threads = 2, .cpu = {}});
  const model::Config config = even_config();
  const std::filesystem::path same = dir.path() / "same", own = dir.path() / "own";
  model::InitOptions init;
  init.format = WeightFormat::kBf16;
  model::init_model(runtime.context(), config, model::to_json(config), same, init);
  std::filesystem::create_directory(own);
  std::filesystem::copy(same / "config.json", own / "config.json");
  const auto file = io::Safetensors::open(same);
  const std::string name = "model.layers.3.shared_head.head.weight";
  std::vector<std::uint16_t> head(512 * 256);
  std::memcpy(head.data(), file.at(name).data, 2 * head.size());
  head[head.size() / 2] ^= 1;  // a lost bit of one number
  std::vector<io::TensorToWrite> tensors;
  for (const auto& [tensor, view] : file.tensors()) {
    tensors.push_back({tensor, view.dtype, view.shape, tensor == name ? head.data() : view.data});
  }
  io::write_model_safetensors(own, tensors);
  LoadOptions options;
  options.context = &runtime.context();
  const auto bytes = [&](const model::Model& m) { return m.copied_bytes(); };
  options.placement = LoadOptions::Placement::kCopied;
  const auto once = model::Model::load(same, options), twice = model::Model::load(own, options);
  EXPECT_EQ(once.weights().mtp.at(0).head.data, once.weights().head.data);
  EXPECT_NE(twice.weights().mtp.at(0).head.data, twice.weights().head.data);
  EXPECT_EQ(bytes(twice), bytes(once) + 2 * 512 * 256);
  // In the mapped file nothing is held, and nothing compared.
  options.placement = LoadOptions::Placement::kMapped;
  const auto mapped = model::Model::load(same, options);
  EXPECT_NE(mapped.weights().mtp.at(0).head.data, mapped.weights().head.data);
}

}  // namespace
}  // namespace cachalot::infer
