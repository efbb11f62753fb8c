// A decoder as costs see it, whichever attention it has: one description that the formulas for
// FLOPs, bytes and traffic take, made from a DeepSeek config or from a dense one.
//
// Owns:    its name and parts; a plain value.
// Threads: values; pure functions.
// Errors:  load_decoder: those of the parsers, kUsage for a name that is neither file nor known.
// Paper:   "Insights into DeepSeek-V3" 2.1.1 to 2.2 and tables 1, 2.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/embedded_file.h"
#include "cost/cost.h"
#include "cost/dense.h"
#include "model/config.h"

namespace cachalot::cost {

enum class Attention : std::uint8_t { kMultiHead, kGroupedQuery, kMultiQuery, kLatent };
std::string_view name(Attention attention) noexcept;  // "MHA", "GQA", "MQA", "MLA"

// Routed experts; layers 0: none.
struct ExpertLayers {
  int layers = 0;
  int experts = 0;              // of a layer
  int topk = 0;                 // of one token
  int shared = 0;               // that every token passes
  std::int64_t parameters = 0;  // of one expert
  int groups = 1;               // of experts,
  int topk_groups = 1;          // of which a token may use so many: at most as many nodes
  TopkMethod method = TopkMethod::kNoauxTc;
  RouteConfig route() const;  // what decides where a token goes
};

struct Decoder {
  std::string name;
  Attention attention = Attention::kLatent;
  int layers = 0;  // without MTP layers
  int hidden = 0;
  int vocab = 0;
  int heads = 0;
  int kv_heads = 0;  // whose keys and values are cached; of a latent 1
  Parameters parameters;
  std::int64_t cache_row = 0;   // numbers per token and layer
  std::int64_t cache_rope = 0;  // of them, a latent's rotary key: an FP8 cache keeps it in bf16
  // Of one layer and all heads, for one query and one position: scores and sums with the keys and
  // values themselves, and with what the cache holds (absorbed, for a latent).
  double pair_flops = 0;
  double cached_pair_flops = 0;
  // Per layer, of attention's parameters: those that absorbed attention reads along both
  // directions and that therefore stay multiplied out (kv_b_proj).
  std::int64_t absorbed = 0;
  std::int64_t latent_inputs = 0;  // and those of the projections to the latents
  ExpertLayers experts;
  int mtp_layers = 0;
  bool mtp_moe = false;  // they have experts, as those of `experts`
  // Layers that hold routed experts, MTP layers among them.
  int expert_layers() const noexcept { return experts.layers + (mtp_moe ? mtp_layers : 0); }
};

// How a cached row is stored. In FP8 the numbers of a latent are codes with a float scale for each
// 128 (FlashMLA's rows; kernels/latent_rows.h); those of keys and values are codes alone.
enum class CacheFormat : std::uint8_t { kBf16, kFp8 };

Decoder decoder_of(const model::Config& config, std::string name);
Decoder decoder_of(const DenseConfig& config, std::string name);
// From the text of a config.json, by its model_type.
// `remarks`: as of model::parse_config.
Decoder parse_decoder(std::string_view json, const std::string& file_name, std::string name,
                      std::vector<std::string>* remarks = nullptr);
// A model folder, a config.json, or the name of a model that comes with the program
// ("deepseek-v3").
Decoder load_decoder(const std::string& name_or_path, std::vector<std::string>* remarks = nullptr);
// The same as a DeepSeek config, which is what can be trained here; kUnsupported for a dense model.
model::Config load_latent_config(const std::string& name_or_path,
                                 std::vector<std::string>* remarks = nullptr);
// The config.json files inside the program (configs/models), by name.
std::span<const EmbeddedFile> embedded_models();
// The text of one of them; kUsage, listing the names, where there is none.
std::string_view embedded_model(std::string_view name);

// Of all main layers.
std::int64_t cache_bytes_per_token(const Decoder& d, CacheFormat format = CacheFormat::kBf16);
// Products of one token of a sequence, mean over its positions: 2 per matrix weight, and attention
// over half of `sequence` where causal.
double forward_flops_per_token(const Decoder& d, std::int64_t sequence, bool causal = true);
// Forward and backward: three times that (each weight's product has two gradients).
double training_flops_per_token(const Decoder& d, std::int64_t sequence = 4096, bool causal = true);
// One more token with `context` positions in the cache.
double decode_flops_per_token(const Decoder& d, std::int64_t context);

}  // namespace cachalot::cost
