#include <string>

#include "base/error.h"
#include "cost/schedule.h"
#include "cost/schedule_walk.h"

namespace cachalot::cost {

namespace {

[[noreturn]] void fail(std::size_t rank, std::size_t item, const std::string& text) {
  throw Error(Code::kConfig, cat("schedule: item ", item, " of rank ", rank, " ", text, "."));
}

std::string words(const WorkItem& item, const Piece& p) {
  return cat("(", symbol(item.work), " of micro-batch ", p.micro_batch, " in stage ", p.stage, ")");
}

// Each piece forward once, backward once, its weights once, and on the right rank.
class Ledger {
 public:
  explicit Ledger(const Schedule& s)
      : s_(s), pieces_(s), forward_(size()), backward_(size()), weights_(size()) {}

  void enter(std::size_t rank, std::size_t index, const WorkItem& item) {
    const Piece& back = backward_piece(item);
    if (goes_forward(item.work)) place(rank, index, item, item.piece);
    if (!goes_forward(item.work) || item.work == Work::kOverlapped) place(rank, index, item, back);
    if (goes_forward(item.work)) once(forward_, rank, index, item, item.piece);
    if (goes_backward(item.work)) once(backward_, rank, index, item, back);
    if (item.work != Work::kForward && item.work != Work::kInputGrad) {
      once(weights_, rank, index, item, back);
    }
  }

  void finish() const {
    for (int m = 0; m < s_.micro_batches; ++m) {
      for (int stage = 0; stage < s_.stages; ++stage) {
        const std::size_t at = pieces_.at({m, stage});
        const char* missing = forward_[at] == 0    ? "forward"
                              : backward_[at] == 0 ? "backward"
                              : weights_[at] == 0  ? "weight gradient"
                                                   : nullptr;
        if (missing == nullptr) continue;
        throw Error(Code::kConfig,
                    cat("schedule: no ", missing, " of micro-batch ", m, " in stage ", stage, "."));
      }
    }
  }

 private:
  std::size_t size() const { return pieces_.forward.size(); }

  void place(std::size_t rank, std::size_t index, const WorkItem& item, const Piece& p) const {
    if (p.micro_batch < 0 || p.micro_batch >= s_.micro_batches || p.stage < 0 ||
        p.stage >= s_.stages) {
      fail(rank, index,
           cat(words(item, p), " is outside ", s_.micro_batches, " micro-batches in ", s_.stages,
               " stages"));
    }
    const int want = s_.rank_of(p);
    if (static_cast<std::size_t>(want) != rank) {
      fail(rank, index, cat(words(item, p), " belongs to rank ", want));
    }
  }
  void once(std::vector<char>& seen, std::size_t rank, std::size_t index, const WorkItem& item,
            const Piece& p) {
    if (seen[pieces_.at(p)]++ != 0) fail(rank, index, cat(words(item, p), " is there twice"));
  }

  const Schedule& s_;
  Progress pieces_;
  std::vector<char> forward_, backward_, weights_;
};

}  // namespace

void check(const Schedule& s) {
  const std::string problem = why_impossible(s.kind, s.stages, s.micro_batches);
  if (!problem.empty()) throw Error(Code::kConfig, cat("schedule: ", problem, "."));
  const auto ranks = static_cast<std::size_t>(ranks_for(s.kind, s.stages));
  if (s.ranks.size() != ranks) {
    throw Error(Code::kConfig, cat("schedule: ", s.ranks.size(), " ranks; ", s.stages,
                                   " stages need ", ranks, "."));
  }
  Ledger ledger(s);
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    for (std::size_t i = 0; i < s.ranks[rank].size(); ++i) ledger.enter(rank, i, s.ranks[rank][i]);
  }
  ledger.finish();
  Progress done(s);
  walk(s, done, [&](std::size_t rank, std::size_t index) {
    const WorkItem& item = s.ranks[rank][index];
    if (goes_forward(item.work)) done.forward[done.at(item.piece)] = 0;
    if (goes_backward(item.work)) done.backward[done.at(backward_piece(item))] = 0;
  });
}

}  // namespace cachalot::cost
