#include <algorithm>
#include <cmath>
#include <utility>

#include "cost/cost.h"
#include "plan/design.h"

namespace cachalot::plan {

namespace {

// Widths of the stream: for products on tensor cores multiples of 256, else of 64.
std::vector<int> widths(bool large) {
  if (large) {
    return {512,  768,  1024, 1280, 1536, 1792, 2048,  2560,  3072,
            3584, 4096, 5120, 6144, 7168, 8192, 10240, 12288, 16384};
  }
  return {64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 1024};
}

// Not two: so few layers lie above the trend of sizes (Kaplan et al. 2020, figure 6).
constexpr int kDepths[] = {3,  4,  5,  6,  7,  8,  10, 12, 14, 16, 18,  20, 24,
                           28, 32, 36, 40, 48, 56, 61, 72, 80, 96, 112, 128};

int rounded(double x, int multiple) {
  return std::max(1, static_cast<int>(std::lround(x / multiple))) * multiple;
}

// Attention: as many value dimensions as the stream is wide (small), twice as many from V3's sizes.
void set_attention(model::Config& c, bool large, int latent_heads) {
  const bool wide = large && c.hidden_size >= 2048, narrow = c.hidden_size < 256;
  c.v_head_dim = wide ? 128 : narrow ? 32 : 64;
  c.qk_nope_head_dim = wide ? 128 : narrow ? 32 : 48;
  c.qk_rope_head_dim = wide ? 64 : 16;
  c.num_attention_heads = std::max(1, c.hidden_size / (narrow ? 32 : 64));
  const int most = std::max(32, c.hidden_size / 2 / 32 * 32);
  c.kv_lora_rank = std::min(latent_heads * c.v_head_dim, most);
  c.q_lora_rank = c.hidden_size >= 4096 ? 3 * c.kv_lora_rank : 0;
}

// Only a bound on the cache asks for a narrower latent than four heads: the law does not see it.
// Where none meets the bound it is the narrowest.
void set_widest_attention(model::Config& c, bool large, double most_kv_bytes) {
  for (const int latent_heads : {4, 2, 1}) {
    set_attention(c, large, latent_heads);
    const auto bytes = static_cast<double>(cost::kv_bytes_per_token(c));
    if (most_kv_bytes == 0 || bytes <= most_kv_bytes) return;
  }
}

void set_experts(model::Config& c, bool large, int topk, int ratio) {
  constexpr double kFeedForward = 2.6;
  const int grain = large ? 128 : 32;
  const double width = kFeedForward * c.hidden_size;
  c.intermediate_size = rounded(width, grain);
  if (ratio == 1) {
    c.first_k_dense_replace = c.num_hidden_layers;
    c.moe_intermediate_size = grain;
    return;
  }
  c.n_shared_experts = 1;
  c.moe_intermediate_size = rounded(width / (topk + 1), grain);
  c.route.experts = topk * ratio;
  c.route.topk = topk;
  c.route.scoring = Scoring::kSigmoid;
  c.route.method = TopkMethod::kNoauxTc;
  c.route.norm_topk_prob = true;
  c.first_k_dense_replace = std::max(1, static_cast<int>(std::lround(c.num_hidden_layers / 20.0)));
  if (large && c.route.experts >= 64) {
    c.route.groups = 8;
    c.route.topk_groups = 4;
    c.route.routed_scaling = 2.5;
  }
}

}  // namespace

double initial_deviation(int width) {
  constexpr double kDeviation = 0.006, kWidth = 7168;
  // Four decimals say it: a recipe is read by people.
  return std::round(1e4 * kDeviation * std::sqrt(kWidth / width)) / 1e4;
}

std::vector<model::Config> design_shapes(const DesignRequest& r, bool large) {
  std::vector<model::Config> out;
  // Half and twice the proportions of common models, 32 to 128 columns per layer.
  constexpr double kNarrow = 16, kWide = 160;
  for (const int width : widths(large)) {
    for (const int depth : kDepths) {
      const double aspect = static_cast<double>(width) / depth;
      if (aspect < kNarrow || aspect > kWide) continue;
      for (const int topk : {1, 2, 4, 8}) {
        for (const int ratio : {1, 4, 8, 16, 32}) {
          if (ratio == 1 && topk != 1) continue;  // dense
          model::Config c;
          c.vocab_size = r.vocabulary;
          c.hidden_size = width;
          c.num_hidden_layers = depth;
          c.num_nextn_predict_layers = r.mtp_layers;
          c.max_position_embeddings = r.sequence;
          set_widest_attention(c, large, r.kv_bytes);
          set_experts(c, large, topk, ratio);
          c.rope.dim = c.qk_rope_head_dim;
          c.initializer_range = initial_deviation(width);
          out.push_back(std::move(c));
        }
      }
    }
  }
  return out;
}

}  // namespace cachalot::plan
