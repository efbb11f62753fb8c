#include "cost/train_memory.h"

#include <algorithm>

namespace cachalot::cost {

namespace {

struct Widths {
  explicit Widths(const model::Config& c)
      : hidden(c.hidden_size),
        heads(c.num_attention_heads),
        q_rank(c.q_lora_rank),
        latent(c.kv_lora_rank),
        rope(c.qk_rope_head_dim),
        qk(c.qk_head_dim()),
        v(c.v_head_dim),
        expert(c.moe_intermediate_size) {}
  double hidden, heads, q_rank, latent, rope, qk, v, expert;
};

// Values that a precision keeps for a weight's gradient, and those that more than a product needs.
struct Bytes {
  double operand, other, attention_output;
};
Bytes bytes_of(TrainPrecision precision) {
  constexpr double kFp8Tile = 1 + 4.0 / 128;  // a code, and a float per 128 of them
  switch (precision) {
    case TrainPrecision::kF32:
      return {4, 4, 4};
    case TrainPrecision::kBf16:
      return {2, 2, 2};
    case TrainPrecision::kFp8:
      return {kFp8Tile, 2, 1.5 + 1.0 / 128};
  }
  return {};
}

// Bytes of a weight that products read, beside the float master copy.
double compute_copy(TrainPrecision precision, bool fp8_linear) {
  switch (precision) {
    case TrainPrecision::kF32:
      return 0;  // the master itself
    case TrainPrecision::kBf16:
      return 2;
    case TrainPrecision::kFp8:
      return fp8_linear ? 1 + 4.0 / (128 * 128) : 2;
  }
  return 0;
}

}  // namespace

LayerSizes layer_sizes(const model::Config& c) {
  const Widths w(c);
  LayerSizes s;
  s.attention =
      (w.q_rank > 0 ? w.hidden * w.q_rank + w.q_rank * w.heads * w.qk : w.hidden * w.heads * w.qk) +
      w.hidden * (w.latent + w.rope) + w.latent * w.heads * (c.qk_nope_head_dim + w.v) +
      w.heads * w.v * w.hidden;
  s.norms = 2 * w.hidden + w.latent + w.q_rank;
  s.dense_ffn = 3 * w.hidden * c.intermediate_size;
  s.expert = 3 * w.hidden * w.expert;
  s.shared = c.n_shared_experts * s.expert;
  s.router =
      c.route.experts * w.hidden + (c.route.method == TopkMethod::kNoauxTc ? c.route.experts : 0);
  s.projection = 2 * w.hidden * w.hidden + 3 * w.hidden;
  s.table = static_cast<double>(c.vocab_size) * w.hidden;
  return s;
}

std::vector<KeptBytes> kept_per_token(const model::Config& c, const Layout& l, bool moe) {
  const Widths w(c);
  const Bytes b = bytes_of(l.precision);
  std::vector<KeptBytes> kept{{"layer input", w.hidden * b.other}};
  if (l.recompute == Recompute::kFull) return kept;
  kept.push_back({"latents", (w.q_rank + w.latent + w.rope) * b.other});
  // The softmax's logarithm of sums, a float per head, replaces the scores.
  kept.push_back({"attention output", w.heads * (w.v * b.attention_output + 4)});
  kept.push_back({"feed-forward input", w.hidden * b.other});
  const double copies = moe ? c.route.topk : 0;
  const double widths =
      moe ? (copies + c.n_shared_experts) * w.expert : static_cast<double>(c.intermediate_size);
  if (moe) kept.push_back({"dispatched tokens", copies * w.hidden * b.operand});
  kept.push_back({"SwiGLU inputs", 2 * widths * b.operand});
  if (l.recompute == Recompute::kNone) {
    kept.push_back({"norms' outputs", (2 * w.hidden + w.q_rank + w.latent) * b.operand});
    kept.push_back({"queries, keys, values", w.heads * (2 * w.qk + w.v) * b.other});
    kept.push_back({"SwiGLU outputs", widths * b.operand});
  }
  return kept;
}

double sum(const std::vector<KeptBytes>& kept) {
  double total = 0;
  for (const KeptBytes& k : kept) total += k.bytes;
  return total;
}

DeviceParameters device_parameters(const model::Config& c, const Layout& l,
                                   std::span<const Stage> stages, const Schedule& schedule,
                                   int rank) {
  const LayerSizes s = layer_sizes(c);
  const double copies = copies_of_weights(l.schedule);
  DeviceParameters out;
  bool table = false;
  for (const int number : schedule.stages_of(rank)) {
    const Stage& stage = stages[static_cast<std::size_t>(number)];
    const bool moe_mtp = c.is_moe_layer(c.num_hidden_layers);
    const double mtp = stage.mtp_layers;
    const double moe = stage.moe_layers + (moe_mtp ? mtp : 0);
    const double dense = stage.dense_layers + (moe_mtp ? 0 : mtp);
    out.replicated += (moe + dense) * (s.attention + s.norms) + dense * s.dense_ffn +
                      moe * (s.shared + s.router) + mtp * s.projection;
    out.experts += moe * s.expert * c.route.experts / l.expert;
    // Tied, or the pair of a rank that holds both ends: the MTP layer shares them either way.
    const bool own = !(c.tie_word_embeddings && table);
    if (stage.embedding) out.replicated += s.table;
    if (stage.head && own) out.replicated += s.table;
    table = table || stage.embedding;
    if (stages.size() == 1) break;  // one stage: both entries of a pair are it
  }
  out.replicated /= l.tensor;
  if (l.shard_optimizer) {
    out.replicated_shards = l.data() * copies;
    out.expert_shards = static_cast<double>(l.data()) * l.tensor / l.expert * copies;
  }
  return out;
}

TrainMemory train_memory(const model::Config& c, const Layout& l, std::span<const Stage> stages,
                         const Schedule& schedule, const Simulation& simulation, int rank) {
  const DeviceParameters p = device_parameters(c, l, stages, schedule, rank);
  const LayerSizes s = layer_sizes(c);
  const double moment = l.precision == TrainPrecision::kF32 ? 4 : 2;
  TrainMemory m;
  double tables = 0;
  for (const int number : schedule.stages_of(rank)) {
    const Stage& stage = stages[static_cast<std::size_t>(number)];
    tables += (stage.embedding ? s.table : 0) + (stage.head ? s.table : 0);
  }
  tables = std::min(tables / l.tensor, p.replicated);
  m.weights = tables * compute_copy(l.precision, false) +
              (p.sum() - tables) * compute_copy(l.precision, true);
  m.gradients = 4 * p.sum();
  m.optimizer =
      (4 + 2 * moment) * (p.replicated / p.replicated_shards + p.experts / p.expert_shards);

  const double tokens = l.tokens_per_micro_batch();
  const double dense = sum(kept_per_token(c, l, false)), moe = sum(kept_per_token(c, l, true));
  double heaviest = 0, logits = 0;
  for (const int number : schedule.stages_of(rank)) {
    const Stage& stage = stages[static_cast<std::size_t>(number)];
    heaviest = std::max(heaviest,
                        stage.dense_layers * dense + (stage.moe_layers + stage.mtp_layers) * moe);
    if (stage.head) logits = tokens * c.vocab_size * (l.precision == TrainPrecision::kF32 ? 4 : 2);
  }
  const auto at = static_cast<std::size_t>(rank);
  m.activations = simulation.ranks[at].peak_pieces * tokens * heaviest / l.tensor;
  // While a layer goes backward its whole activations are there, and their gradients.
  Layout whole = l;
  whole.recompute = Recompute::kNone;
  const bool experts = c.route.experts > 0;
  m.working = (2 * tokens * sum(kept_per_token(c, whole, experts)) + logits) / l.tensor;
  return m;
}

}  // namespace cachalot::cost
