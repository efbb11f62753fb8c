#include "cost/schedule.h"

#include <algorithm>
#include <deque>
#include <string>

#include "base/error.h"

namespace cachalot::cost {

namespace {

// One rank of 1F1B (`delay` < 0) or ZB1P. A rank far from the end goes ahead by as many forwards as
// there are ranks behind it. ZB1P holds back `delay` weight gradients: a late rank has that many
// fewer activations than the first one, so none holds more than the first, and the held-back
// gradients fill the wait at the end.
std::vector<WorkItem> one_direction(int rank, int ranks, int micro_batches, bool zero_bubble) {
  std::vector<WorkItem> items;
  int forward = 0, backward = 0, weights = 0;
  const auto add = [&](Work work, int& next) { items.push_back({work, {next++, rank}, {}}); };
  const auto add_backward = [&](int delay) {
    add(zero_bubble ? Work::kInputGrad : Work::kBackward, backward);
    if (zero_bubble && backward - weights > delay) add(Work::kWeightGrad, weights);
  };
  const int ahead = std::min(ranks - 1 - rank, micro_batches);
  while (forward < ahead) add(Work::kForward, forward);
  while (forward < micro_batches) {
    add(Work::kForward, forward);
    add_backward(rank);
  }
  while (backward < micro_batches) add_backward(0);
  while (zero_bubble && weights < micro_batches) add(Work::kWeightGrad, weights);
  return items;
}

// One rank of DualPipe or DualPipeV, which differ only in what the two lanes are: of DualPipe the
// two directions, of DualPipeV the two stages that each micro-batch passes here.
class TwoLanes {
 public:
  // `depth` is the number of ranks from the end where lane 0 enters to the middle (or the fold), of
  // which this is number `from_end`; `per_lane` micro-batches pass in each lane.
  struct Lane {
    int stage = 0;
    int first_micro_batch = 0;
  };
  TwoLanes(int from_end, int depth, int per_lane, Lane lane0, Lane lane1)
      : from_end_(from_end), depth_(depth), per_lane_(per_lane), lanes_{lane0, lane1} {}

  std::vector<WorkItem> items() {
    const int outer = depth_ - 1 - from_end_;  // 0 in the middle
    for (int i = 0; i < 2 * outer; ++i) forward(0);
    for (int i = 0; i <= from_end_; ++i) {
      forward(0);
      forward(1);
    }
    for (int i = 0; i < outer; ++i) {
      backward(1, true);
      weights();
      forward(1);
    }
    const int steady = per_lane_ - 2 * depth_ + from_end_ + 1;
    for (int i = 0; i < steady; ++i) {
      if (i == 0 && outer == 0) {
        // Nothing flows yet that the first pair in the middle could overlap with.
        forward(0);
        backward(1, false);
      } else {
        overlapped(0, 1);
      }
      overlapped(1, 0);
    }
    for (int i = 0; i < outer; ++i) {
      backward(1, false);
      overlapped(1, 0);
    }
    cool_down(outer);
    return std::move(items_);
  }

 private:
  // The second half of the last backwards leave their weights for the wait that follows.
  void cool_down(int outer) {
    const int pairs = from_end_ + 1;
    for (int i = 0; i < 2 * pairs; ++i) backward(i % 2 == 0 ? 1 : 0, i >= pairs);
    for (int i = 0; i < outer; ++i) {
      weights();
      backward(0, true);
    }
    for (int i = 0; i < pairs; ++i) weights();
  }

  Piece take(int lane, int (&next)[2]) {
    return {lanes_[lane].first_micro_batch + next[lane]++, lanes_[lane].stage};
  }
  void forward(int lane) { items_.push_back({Work::kForward, take(lane, forwards_), {}}); }
  void backward(int lane, bool weights_later) {
    const Piece piece = take(lane, backwards_);
    items_.push_back({weights_later ? Work::kInputGrad : Work::kBackward, piece, {}});
    if (weights_later) waiting_.push_back(piece);
  }
  void overlapped(int forward_lane, int backward_lane) {
    const Piece piece = take(forward_lane, forwards_);
    items_.push_back({Work::kOverlapped, piece, take(backward_lane, backwards_)});
  }
  void weights() {
    items_.push_back({Work::kWeightGrad, waiting_.front(), {}});
    waiting_.pop_front();
  }

  int from_end_, depth_, per_lane_;
  Lane lanes_[2];
  int forwards_[2] = {}, backwards_[2] = {};
  std::deque<Piece> waiting_;
  std::vector<WorkItem> items_;
};

std::vector<WorkItem> dual_pipe(int rank, int stages, int micro_batches) {
  const int mirrored = stages - 1 - rank, half = micro_batches / 2;
  const TwoLanes::Lane down{rank, 0}, up{mirrored, half};
  // Lane 0 is the direction that enters at the nearer end.
  const bool near_start = rank < stages / 2;
  return TwoLanes(std::min(rank, mirrored), stages / 2, half, near_start ? down : up,
                  near_start ? up : down)
      .items();
}

std::vector<WorkItem> dual_pipe_v(int rank, int stages, int micro_batches) {
  return TwoLanes(rank, stages / 2, micro_batches, {rank, 0}, {stages - 1 - rank, 0}).items();
}

// A schedule is a list in memory.
constexpr int kMostCount = 1 << 16;
constexpr std::int64_t kMostPieces = std::int64_t{1} << 22;

bool in_range(int stages, int micro_batches) noexcept {
  return stages >= 1 && micro_batches >= 1 && stages <= kMostCount && micro_batches <= kMostCount;
}

std::int64_t pieces(int stages, int micro_batches) noexcept {
  return std::int64_t{stages} * micro_batches;
}

bool has_two_lanes(ScheduleKind kind) noexcept {
  return kind == ScheduleKind::kDualPipe || kind == ScheduleKind::kDualPipeV;
}

// Of a schedule with two lanes.
int fewest_micro_batches(ScheduleKind kind, int stages) noexcept {
  return kind == ScheduleKind::kDualPipe ? 2 * stages : stages;
}

}  // namespace

std::string_view name(ScheduleKind kind) noexcept {
  switch (kind) {
    case ScheduleKind::k1F1B:
      return "1f1b";
    case ScheduleKind::kZb1p:
      return "zb1p";
    case ScheduleKind::kDualPipe:
      return "dualpipe";
    case ScheduleKind::kDualPipeV:
      return "dualpipev";
  }
  return "";
}

ScheduleKind parse_schedule_kind(std::string_view text) {
  std::string_view names[std::size(kScheduleKinds)];
  for (std::size_t i = 0; i < std::size(kScheduleKinds); ++i) {
    names[i] = name(kScheduleKinds[i]);
    if (text == names[i]) return kScheduleKinds[i];
  }
  const std::string near = nearest(text, std::begin(names), std::end(names));
  throw Error(Code::kUsage, cat("'", text, "' is no pipeline schedule; 1f1b, zb1p, dualpipe or ",
                                "dualpipev is needed", near.empty() ? "." : "; did you mean ", near,
                                near.empty() ? "" : "?"));
}

std::string_view symbol(Work work) noexcept {
  switch (work) {
    case Work::kForward:
      return "F";
    case Work::kBackward:
      return "B";
    case Work::kInputGrad:
      return "b";
    case Work::kWeightGrad:
      return "W";
    case Work::kOverlapped:
      return "F&B";
  }
  return "";
}

int Schedule::direction(int micro_batch) const noexcept {
  return kind == ScheduleKind::kDualPipe && micro_batch >= micro_batches / 2 ? 1 : 0;
}

int Schedule::rank_of(const Piece& piece) const noexcept {
  switch (kind) {
    case ScheduleKind::k1F1B:
    case ScheduleKind::kZb1p:
      return piece.stage;
    case ScheduleKind::kDualPipe:
      return direction(piece.micro_batch) == 0 ? piece.stage : stages - 1 - piece.stage;
    case ScheduleKind::kDualPipeV:
      return std::min(piece.stage, stages - 1 - piece.stage);
  }
  return 0;
}

std::vector<int> Schedule::stages_of(int rank) const {
  if (kind == ScheduleKind::k1F1B || kind == ScheduleKind::kZb1p) return {rank};
  const int other = stages - 1 - rank;
  return {std::min(rank, other), std::max(rank, other)};
}

int ranks_for(ScheduleKind kind, int stages) noexcept {
  return kind == ScheduleKind::kDualPipeV ? stages / 2 : stages;
}

int copies_of_weights(ScheduleKind kind) noexcept {
  return kind == ScheduleKind::kDualPipe ? 2 : 1;
}

bool is_possible(ScheduleKind kind, int stages, int micro_batches) noexcept {
  if (!in_range(stages, micro_batches) || pieces(stages, micro_batches) > kMostPieces) return false;
  if (!has_two_lanes(kind)) return true;
  const bool halved = kind != ScheduleKind::kDualPipe || micro_batches % 2 == 0;
  return stages % 2 == 0 && halved && micro_batches >= fewest_micro_batches(kind, stages);
}

std::string why_impossible(ScheduleKind kind, int stages, int micro_batches) {
  if (is_possible(kind, stages, micro_batches)) return "";
  if (!in_range(stages, micro_batches)) {
    return cat("stages and micro-batches are ", stages, " and ", micro_batches, "; 1 to ",
               kMostCount, " of each are needed");
  }
  if (pieces(stages, micro_batches) > kMostPieces) {
    return cat(stages, " stages times ", micro_batches, " micro-batches are ",
               pieces(stages, micro_batches), " pieces; at most ", kMostPieces,
               " are planned: take larger micro-batches");
  }
  if (stages % 2 != 0) return cat(stages, " stages; ", name(kind), " needs an even number");
  const int fewest = fewest_micro_batches(kind, stages);
  if (micro_batches >= fewest) {
    return cat(micro_batches, " micro-batches; dualpipe needs an even number, half from each end");
  }
  return cat(micro_batches, " micro-batches; ", name(kind), " needs at least ",
             kind == ScheduleKind::kDualPipe ? "two" : "one", " per stage, ", fewest, ": ",
             fewest - micro_batches,
             " more, or fewer stages, or zb1p, which works with any number");
}

Schedule make_schedule(ScheduleKind kind, int stages, int micro_batches) {
  const std::string problem = why_impossible(kind, stages, micro_batches);
  if (!problem.empty()) throw Error(Code::kUsage, cat("no such schedule: ", problem, "."));
  Schedule schedule{kind, stages, micro_batches, {}};
  const int ranks = ranks_for(kind, stages);
  for (int rank = 0; rank < ranks; ++rank) {
    switch (kind) {
      case ScheduleKind::k1F1B:
      case ScheduleKind::kZb1p:
        schedule.ranks.push_back(
            one_direction(rank, ranks, micro_batches, kind == ScheduleKind::kZb1p));
        break;
      case ScheduleKind::kDualPipe:
        schedule.ranks.push_back(dual_pipe(rank, stages, micro_batches));
        break;
      case ScheduleKind::kDualPipeV:
        schedule.ranks.push_back(dual_pipe_v(rank, stages, micro_batches));
        break;
    }
  }
  return schedule;
}

}  // namespace cachalot::cost
