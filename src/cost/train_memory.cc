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
      return 4;
    case TrainPrecision::kBf16:
      return 2;
    case TrainPrecision::kFp8:
      return fp8_linear ? 1 + 4.0 / (128 * 128) : 2;
  }
  return 0;
}

// What products read. In f32 that is the master itself, of which a device has a part where copies
// share the optimiser: what the others have it holds besides.
double weight_bytes(const DeviceParameters& p, double tables, TrainPrecision precision) {
  if (precision == TrainPrecision::kF32)
    return compute_copy(precision, true) * (p.sum() - p.owned());
  return tables * compute_copy(precision, false) +
         (p.sum() - tables) * compute_copy(precision, true);
}

// Everything of one layer while it goes backward, and its gradients.
double at_work_per_token(const model::Config& c, Layout l) {
  l.recompute = Recompute::kNone;
  return 2 * sum(kept_per_token(c, l, c.route.experts > 0));
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

// How many matrices of the vocabulary a pipeline rank holds. Where it has both ends, a tied one is
// the same matrix, and the MTP layer shares what is there; where it has the last stages alone, the
// MTP layer brings an embedding of its own.
static double tables_on(const model::Config& c, std::span<const Stage> stages,
                        const Schedule& schedule, int rank) {
  bool embedding = false, head = false, mtp = false;
  for (const int number : schedule.stages_of(rank)) {
    const Stage& stage = stages[static_cast<std::size_t>(number)];
    embedding = embedding || stage.embedding;
    head = head || stage.head;
    mtp = mtp || stage.mtp_layers > 0;
    if (stages.size() == 1) break;
  }
  if (c.tie_word_embeddings) return embedding || head || mtp ? 1 : 0;
  return (embedding || mtp ? 1 : 0) + (head ? 1 : 0);
}

DeviceParameters device_parameters(const model::Config& c, const Layout& l,
                                   std::span<const Stage> stages, const Schedule& schedule,
                                   int rank) {
  const LayerSizes s = layer_sizes(c);
  const double copies = copies_of_weights(l.schedule);
  DeviceParameters out;
  out.replicated += tables_on(c, stages, schedule, rank) * s.table;
  for (const int number : schedule.stages_of(rank)) {
    const Stage& stage = stages[static_cast<std::size_t>(number)];
    const LayerKinds layers = layer_kinds(c, stage);
    const double moe = layers.moe, dense = layers.dense;
    out.replicated += (moe + dense) * (s.attention + s.norms) + dense * s.dense_ffn +
                      moe * (s.shared + s.router) + stage.mtp_layers * s.projection;
    out.experts += moe * s.expert * c.route.experts / l.expert;
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
                         const Schedule& schedule, int rank, int pieces) {
  const DeviceParameters p = device_parameters(c, l, stages, schedule, rank);
  const LayerSizes s = layer_sizes(c);
  const double tokens = l.tokens_per_micro_batch();
  const double dense = sum(kept_per_token(c, l, false)), moe = sum(kept_per_token(c, l, true));
  const double tables = tables_on(c, stages, schedule, rank) * s.table;
  double heaviest = 0, logits = 0;
  for (const int number : schedule.stages_of(rank)) {
    const Stage& stage = stages[static_cast<std::size_t>(number)];
    const LayerKinds layers = layer_kinds(c, stage);
    heaviest = std::max(heaviest, layers.dense * dense + layers.moe * moe);
    if (stage.head) logits = tokens * c.vocab_size * (l.precision == TrainPrecision::kF32 ? 4 : 2);
  }
  const double moment = l.precision == TrainPrecision::kF32 ? 4 : 2;
  TrainMemory m;
  m.weights = weight_bytes(p, std::min(tables / l.tensor, p.replicated), l.precision);
  m.gradients = 4 * p.sum();
  m.optimizer = (4 + 2 * moment) * p.owned();
  m.activations = pieces * tokens * heaviest / l.tensor;
  m.working = (tokens * at_work_per_token(c, l) + logits) / l.tensor;
  return m;
}

double least_state_bytes(TrainPrecision precision) noexcept {
  constexpr double kGradient = 4, kMaster = 4;
  switch (precision) {
    case TrainPrecision::kF32:
      return kGradient + kMaster + 2 * 4;  // products read the master
    case TrainPrecision::kBf16:
      return kGradient + kMaster + 2 * 2 + 2;
    case TrainPrecision::kFp8:
      return kGradient + kMaster + 2 * 2 + 1;
  }
  return 0;
}

// A pipeline of P stages holds P micro-batches of L / P layers on its first rank, or as many pieces
// of half as many layers on each rank of two lanes: L layers of one micro-batch. With fewer
// micro-batches than stages it is that share of them.
double least_activations(const model::Config& c, const Layout& l) {
  double kept = sum(kept_per_token(c, l, false));
  if (c.route.experts > 0) kept = std::min(kept, sum(kept_per_token(c, l, true)));
  const double per_stage = static_cast<double>(l.batch) * l.tensor / l.devices / l.micro_batch;
  return l.tokens_per_micro_batch() / l.tensor *
         (std::min(1.0, per_stage) * c.num_hidden_layers * kept + at_work_per_token(c, l));
}

}  // namespace cachalot::cost
