// The inference forward pass over latent caches: prefill chunks and decode steps, batched.
//
// With a device (Context::device) caches and model lie on it, and so do the rows that passes give
// and take; tokens and taps are the host's.
//
// Symbols: T rows of the pass (all chunks together), D hidden, L layers, E experts, k per token.
// Threads: one caller per Forward; the model is shared.
// Errors:  kUsage for a token id past the vocabulary, a position past the context, or a full pool
// of
//          pages: whoever shares one between sequences asks LatentCache::reserve before the pass.
// Paper:   V3 report 2.1, 2.2; conventions in docs/numerics.md.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "kernels/planned_latents.h"
#include "model/latent_cache.h"
#include "model/weights.h"
#include "nn/mla.h"
#include "nn/moe.h"

namespace cachalot::model {

// A row's bits depend on its own sequence, on the kind of attention and on nothing else: with one
// kind for all chunks, they are the same however the sequence is cut into chunks.
enum class AttentionMode : std::uint8_t {
  kAbsorbed,  // always over the latent rows
  kNaive,     // always expanded: K and V rebuilt from the cache for the pass
  kAuto,      // the cheaper of the two for each chunk: absorbed_is_cheaper
};

// Whether a chunk of `rows` rows after `begin` cached ones costs less over the latent rows than
// with keys and values rebuilt: a function of this chunk and the model's shape alone.
bool absorbed_is_cheaper(const nn::BlockDims& dims, int begin, int rows);

// The next tokens of one sequence; their rows are appended to its cache.
struct Chunk {
  std::span<const std::int32_t> tokens;
  LatentCache* cache = nullptr;
};

// What a caller may want to see of a pass; filled where not null.
struct LayerTap {
  Mat<float> kv_c;             // [T, L]
  Mat<float> k_rope;           // [T, R]
  Mat<float> scores;           // [T, E]  MoE layers only, else empty
  Mat<std::int32_t> topk_idx;  // [T, k]
  Mat<float> topk_weight;      // [T, k]
};
struct Taps {
  std::vector<Mat<float>> hidden;  // [layers + 1] of [T, D]: embedding, then after each block
  std::vector<LayerTap> layers;    // main layers; for the MTP pass one element
};

// Hears which experts the rows of a pass chose, layer after layer; `chosen` is [T, k], on the host,
// valid during the call.
struct RoutingTap {
  std::function<void(int layer, MatView<const std::int32_t> chosen)> hear = nullptr;
  int layer = -1;  // of this one alone; -1: of all with experts. The MTP layer is layer `layers`
};

class Forward {
 public:
  Forward(const Context& ctx, const Model& model, AttentionMode mode = AttentionMode::kAbsorbed);
  ~Forward();

  // Runs the chunks through the main model. The result is [T, D] after model.norm, chunk after
  // chunk, valid until the next pass; caches grow by their chunk. A failed check changes nothing.
  MatView<const float> run(std::span<const Chunk> chunks, Taps* taps = nullptr);

  // The MTP layer: row i joins the embedding of chunk token i with hidden row i [T, D] (the main
  // model's normed row of the position before that token). Result: [T, D] before shared_head.norm;
  // the caches' MTP rows grow.
  MatView<const float> run_mtp(std::span<const Chunk> chunks, MatView<const float> hidden,
                               Taps* taps = nullptr);

  // Logits [rows, vocab] of normed rows; for MTP rows shared_head.norm is applied first, and the
  // normed rows become `normed` (which may be `rows`).
  void logits(MatView<const float> normed, MatView<float> out);
  void mtp_logits(MatView<const float> rows, MatView<float> out, MatView<float> normed);
  void mtp_logits(MatView<const float> rows, MatView<float> out);

  // Whether passes of few rows may be recorded where a device can; without, their launches are made
  // one by one, with the same bits.
  void allow_recording(bool allowed) noexcept { may_record_ = allowed; }

  // For all passes from now on; nothing to hear costs nothing.
  void tap_routing(RoutingTap tap) { routing_tap_ = std::move(tap); }

  const Model& model() const noexcept { return model_; }
  const Context& context() const noexcept { return ctx_; }

 private:
  class Small;  // forward_small.h

  void check(std::span<const Chunk> chunks, bool mtp) const;
  // What a pass does once its tokens are there.
  void main_pass(std::span<const Chunk> chunks, Taps* taps);
  void mtp_pass(std::span<const Chunk> chunks, MatView<const float> hidden, Taps* taps);
  // The pass of few rows on a device that records, or null where this is none.
  Small* small_pass(std::span<const Chunk> chunks, bool mtp);
  void head(MatView<const float> normed, const nn::WeightRef& w, MatView<float> out);
  void take_tokens(std::span<const Chunk> chunks, bool mtp);
  nn::RopeRows rope_rows() const noexcept;
  void block(const nn::BlockWeights& w, int layer, std::span<const Chunk> chunks, bool mtp,
             LayerTap* tap, nn::VecRef next_norm = {});
  void attention(const nn::MlaWeights& w, int layer, std::span<const Chunk> chunks, bool mtp);
  void planned_attention(const nn::MlaWeights& w, int layer, const CacheShape& shape);
  void tell_routing(int layer) const;
  bool is_absorbed(int begin, int rows) const;
  void reserve(std::span<const Chunk> chunks, bool mtp);

  const Context& ctx_;
  const Model& model_;
  AttentionMode mode_;
  nn::BlockDims dims_;
  nn::Numerics num_;
  RoutingTap routing_tap_;
  bool may_record_ = true;

  Mat<float> x_, h_, joined_;
  Mat<float> angles_, host_angles_;  // [2 T, R / 2] cosines, then sines
  Mat<std::int32_t> ids_;            // [1, T]
  std::vector<std::int32_t> host_ids_;
  std::vector<int> positions_;
  std::vector<StoreLatent> stores_;
  Mat<float> rstd_;
  nn::MlaActs mla_;
  nn::Operand h_operand_;
  nn::FfnActs mlp_;
  nn::MoeActs moe_;
  nn::MoeRoute route_;
  nn::Products products_;
  // Expanded attention over caches: the latent and rope rows of its sequences, joined.
  Mat<float> latent_rows_, k_rope_rows_;
  // Of all rows, where they are planned: then attention is absorbed.
  const PlannedLatents* planned_ = nullptr;
  bool is_normed_ = false;  // the block before made the norm that begins this one
  std::unique_ptr<Small> small_;
};

}  // namespace cachalot::model
