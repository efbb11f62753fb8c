#include "cost/schedule_simulate.h"

#include <algorithm>

#include "cost/schedule_walk.h"

namespace cachalot::cost {

namespace {

class Simulator {
 public:
  Simulator(const Schedule& s, std::span<const StageTimes> stages, double send)
      : s_(s), stages_(stages), send_(send), done_(s), free_at_(s.ranks.size(), 0.0) {
    for (const auto& items : s.ranks) out_.ranks.emplace_back().peak_pieces = peak_pieces(items);
  }

  Simulation run() {
    walk(s_, done_, [this](std::size_t rank, std::size_t index) { visit(rank, index); });
    for (const double end : free_at_) out_.seconds = std::max(out_.seconds, end);
    for (SimulatedRank& rank : out_.ranks) rank.idle = out_.seconds - rank.work.sum();
    return std::move(out_);
  }

 private:
  const StageTimes& times(const Piece& p) const {
    return stages_[stages_.size() == 1 ? 0 : static_cast<std::size_t>(p.stage)];
  }

  // When the result of `from` can be used where `to` is computed.
  double arrival(double made, const Piece& from, const Piece& to) const {
    return s_.rank_of(from) == s_.rank_of(to) ? made : made + send_;
  }

  double ready(const WorkItem& item) const {
    double at = 0;
    if (goes_forward(item.work) && item.piece.stage > 0) {
      const Piece from = before(item.piece);
      at = arrival(done_.forward[done_.at(from)], from, item.piece);
    }
    if (goes_backward(item.work)) {
      const Piece& p = backward_piece(item);
      if (p.stage + 1 < s_.stages) {
        at = std::max(at, arrival(done_.backward[done_.at(behind(p))], behind(p), p));
      }
    }
    return at;
  }

  double add_duration(const WorkItem& item, WorkSeconds& sum) const {
    const StageTimes& t = times(item.piece);
    switch (item.work) {
      case Work::kForward:
        sum.forward += t.forward;
        return t.forward;
      case Work::kBackward:
        sum.backward += t.backward();
        return t.backward();
      case Work::kInputGrad:
        sum.backward += t.input_grad;
        return t.input_grad;
      case Work::kWeightGrad:
        sum.weight_grad += t.weight_grad;
        return t.weight_grad;
      case Work::kOverlapped:
        break;
    }
    const double pair = pair_seconds(t, times(item.backward));
    sum.overlapped += pair;
    return pair;
  }

  void visit(std::size_t rank, std::size_t index) {
    const WorkItem& item = s_.ranks[rank][index];
    SimulatedRank& r = out_.ranks[rank];
    const double begin = std::max(free_at_[rank], ready(item));
    const double end = begin + add_duration(item, r.work);
    free_at_[rank] = end;
    r.when.push_back({begin, end});
    if (goes_forward(item.work)) done_.forward[done_.at(item.piece)] = end;
    if (goes_backward(item.work)) done_.backward[done_.at(backward_piece(item))] = end;
  }

  const Schedule& s_;
  std::span<const StageTimes> stages_;
  double send_;
  Progress done_;
  std::vector<double> free_at_;
  Simulation out_;
};

}  // namespace

double pair_seconds(const StageTimes& forward, const StageTimes& backward) noexcept {
  return std::max(forward.forward_paired + backward.backward_paired,
                  forward.forward_sending + backward.backward_sending);
}

double Simulation::mean_idle() const noexcept {
  double sum = 0;
  for (const SimulatedRank& rank : ranks) sum += rank.idle;
  return ranks.empty() ? 0 : sum / static_cast<double>(ranks.size());
}

WorkSeconds Simulation::mean_work() const noexcept {
  WorkSeconds sum;
  const double n = std::max<double>(1, static_cast<double>(ranks.size()));
  for (const SimulatedRank& rank : ranks) {
    sum.forward += rank.work.forward / n;
    sum.backward += rank.work.backward / n;
    sum.weight_grad += rank.work.weight_grad / n;
    sum.overlapped += rank.work.overlapped / n;
  }
  return sum;
}

int Simulation::peak_pieces() const noexcept {
  int most = 0;
  for (const SimulatedRank& rank : ranks) most = std::max(most, rank.peak_pieces);
  return most;
}

int peak_pieces(std::span<const WorkItem> items) noexcept {
  int alive = 0, most = 0;
  for (const WorkItem& item : items) {
    if (goes_forward(item.work)) most = std::max(most, ++alive);
    if (item.work != Work::kForward && item.work != Work::kInputGrad) --alive;
  }
  return most;
}

int least_peak_pieces(ScheduleKind kind, int stages, int micro_batches, int rank) noexcept {
  const int most = kind == ScheduleKind::k1F1B ? stages - rank : stages;
  return std::min(most, micro_batches);
}

Simulation simulate(const Schedule& schedule, std::span<const StageTimes> stages,
                    double send_seconds) {
  if (stages.size() != 1 && stages.size() != static_cast<std::size_t>(schedule.stages)) {
    throw Error(Code::kUsage,
                cat("simulate: times of ", stages.size(), " stages for a schedule of ",
                    schedule.stages, "; one, or one for each, are needed."));
  }
  return Simulator(schedule, stages, send_seconds).run();
}

double published_bubble(ScheduleKind kind, int stages, const StageTimes& t) {
  const double full = t.backward(), w = t.weight_grad;
  switch (kind) {
    case ScheduleKind::k1F1B:
      return (stages - 1) * (t.forward + full);
    case ScheduleKind::kZb1p:
      return (stages - 1) * (t.forward + full - 2 * w);
    case ScheduleKind::kDualPipe:
    case ScheduleKind::kDualPipeV: {
      const int pairs = stages / 2;
      return (pairs - 1) * (pair_seconds(t, t) + full - 3 * w);
    }
  }
  return 0;
}

int published_pieces(ScheduleKind kind, int stages) noexcept {
  const bool dual = kind == ScheduleKind::kDualPipe || kind == ScheduleKind::kDualPipeV;
  return dual ? stages + 1 : stages;
}

}  // namespace cachalot::cost
