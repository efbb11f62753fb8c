#include "model/read_ahead.h"

#include "nn/mla.h"

namespace cachalot::model {

namespace {

using Pieces = std::vector<MemoryPiece>;

// As products read it: kv_b_proj by heads where it is packed so.
void add(const nn::WeightRef& w, Pieces& to) {
  if (w.heads == nullptr) return nn::add_memory(w, to);
  nn::add_memory(w.heads->keys, to);
  nn::add_memory(w.heads->values, to);
}

Pieces memory_of(std::initializer_list<const nn::WeightRef*> weights) {
  Pieces all;
  for (const nn::WeightRef* w : weights) add(*w, all);
  return all;
}

Pieces start_of(const nn::BlockWeights& b) {
  return memory_of({&b.mla.q_a, &b.mla.kv_a, &b.mla.q_proj});
}

}  // namespace

ReadAhead::List ReadAhead::keep(Pieces pieces) { return lists_.emplace_back(std::move(pieces)); }

void ReadAhead::link_mlp(nn::MlpWeights& mlp, List after) {
  mlp.gate.read_next = mlp.up.read_next = keep(memory_of({&mlp.down}));
  mlp.down.read_next = after;
}

void ReadAhead::link_block(nn::BlockWeights& b, List after) {
  nn::MlaWeights& m = b.mla;
  m.q_a.read_next = m.kv_a.read_next = keep(memory_of({&m.q_proj, &m.q_b}));
  m.q_proj.read_next = m.q_b.read_next = keep(memory_of({&m.kv_b}));
  // Between its two halves: attention, and with it the time to fetch what comes after both.
  Pieces rest;
  if (m.kv_b.heads != nullptr) nn::add_memory(m.kv_b.heads->values, rest);
  add(m.o, rest);
  m.kv_b.read_next = keep(std::move(rest));
  // Which experts follow is not known yet; the shared one is.
  m.o.read_next = keep(b.is_moe ? memory_of({&b.moe.router, &b.moe.shared.gate, &b.moe.shared.up})
                                : memory_of({&b.mlp.gate, &b.mlp.up}));
  link_mlp(b.mlp, after);
  link_mlp(b.moe.shared, after);
  for (nn::MlpWeights& expert : b.moe.experts) link_mlp(expert, after);
}

void ReadAhead::link(nn::Weights& w) {
  if (w.layers.empty()) return;
  for (std::size_t i = 0; i < w.layers.size(); ++i) {
    const bool last = i + 1 == w.layers.size();
    link_block(w.layers[i], keep(last ? memory_of({&w.head}) : start_of(w.layers[i + 1])));
  }
  const List first = keep(start_of(w.layers.front()));
  w.head.read_next = first;
  for (nn::MtpWeights& mtp : w.mtp) {
    w.head.read_next = keep(memory_of({&mtp.eh_proj}));
    mtp.eh_proj.read_next = keep(start_of(mtp.block));
    link_block(mtp.block, keep(memory_of({&mtp.head})));
    mtp.head.read_next = first;
  }
}

}  // namespace cachalot::model
