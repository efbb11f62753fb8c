// What a pass reads after each weight, so that threads which wait for the next product fetch it
// meanwhile (ThreadPool::fetch_while_waiting).
//
// Owns:    the lists; links point into them.
// Threads: one caller; the links are only read afterwards.
#pragma once

#include <deque>
#include <vector>

#include "base/memory_piece.h"
#include "nn/params.h"

namespace cachalot::model {

class ReadAhead {
 public:
  // Sets WeightRef::read_next of every matrix that products read. The weights lie where they will
  // be read.
  void link(nn::Weights& weights);

 private:
  using List = std::span<const MemoryPiece>;
  List keep(std::vector<MemoryPiece> pieces);
  // `after`: what is read when the block is done.
  void link_block(nn::BlockWeights& block, List after);
  void link_mlp(nn::MlpWeights& mlp, List after);

  std::deque<std::vector<MemoryPiece>> lists_;
};

}  // namespace cachalot::model
