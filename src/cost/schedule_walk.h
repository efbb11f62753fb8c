// Shared by check() and simulate(): visits the items of all ranks in an order in which everything
// an item needs comes before it.
//
// Threads: plain functions.
// Errors:  kConfig where that is impossible: the ranks wait for each other.
#pragma once

#include <vector>

#include "base/error.h"
#include "cost/schedule.h"

namespace cachalot::cost {

// When each piece was done, by `stage + stages * micro_batch`; below 0: not yet.
struct Progress {
  explicit Progress(const Schedule& s)
      : stages(s.stages),
        forward(static_cast<std::size_t>(s.stages) * static_cast<std::size_t>(s.micro_batches), -1),
        backward(forward) {}
  std::size_t at(const Piece& p) const noexcept {
    return static_cast<std::size_t>(p.stage) +
           static_cast<std::size_t>(stages) * static_cast<std::size_t>(p.micro_batch);
  }
  int stages;
  std::vector<double> forward;
  std::vector<double> backward;
};

inline bool goes_forward(Work work) noexcept {
  return work == Work::kForward || work == Work::kOverlapped;
}
inline bool goes_backward(Work work) noexcept {
  return work == Work::kBackward || work == Work::kInputGrad || work == Work::kOverlapped;
}
// What an item takes backward.
inline const Piece& backward_piece(const WorkItem& item) noexcept {
  return item.work == Work::kOverlapped ? item.backward : item.piece;
}

// The piece before `p` in the forward pass, and the one whose gradient its backward needs.
inline Piece before(const Piece& p) noexcept { return {p.micro_batch, p.stage - 1}; }
inline Piece behind(const Piece& p) noexcept { return {p.micro_batch, p.stage + 1}; }

// What an item still waits for; `what` is null where it can be computed.
struct Missing {
  const char* what = nullptr;
  Piece piece;
};

inline Missing missing(const Schedule& s, const Progress& done, const WorkItem& item) {
  if (goes_forward(item.work) && item.piece.stage > 0 &&
      done.forward[done.at(before(item.piece))] < 0) {
    return {"the forward", before(item.piece)};
  }
  if (goes_backward(item.work)) {
    const Piece& p = backward_piece(item);
    if (done.forward[done.at(p)] < 0) return {"the forward", p};
    if (p.stage + 1 < s.stages && done.backward[done.at(behind(p))] < 0) {
      return {"the backward", behind(p)};
    }
  } else if (item.work == Work::kWeightGrad && done.backward[done.at(item.piece)] < 0) {
    return {"the input gradient", item.piece};
  }
  return {};
}

// Calls visit(rank, index) for each item; visit records in `done` when it is finished (>= 0).
template <class Visit>
void walk(const Schedule& s, Progress& done, const Visit& visit) {
  std::vector<std::size_t> next(s.ranks.size(), 0);
  for (bool moved = true; moved;) {
    moved = false;
    for (std::size_t rank = 0; rank < s.ranks.size(); ++rank) {
      for (; next[rank] < s.ranks[rank].size(); ++next[rank]) {
        if (missing(s, done, s.ranks[rank][next[rank]]).what != nullptr) break;
        visit(rank, next[rank]);
        moved = true;
      }
    }
  }
  for (std::size_t rank = 0; rank < s.ranks.size(); ++rank) {
    if (next[rank] == s.ranks[rank].size()) continue;
    const Missing m = missing(s, done, s.ranks[rank][next[rank]]);
    throw Error(Code::kConfig, cat("the schedule stands still: item ", next[rank], " of rank ",
                                   rank, " waits for ", m.what, " of micro-batch ",
                                   m.piece.micro_batch, " in stage ", m.piece.stage, "."));
  }
}

}  // namespace cachalot::cost
