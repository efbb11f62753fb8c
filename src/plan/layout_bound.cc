#include "plan/layout_bound.h"

#include <algorithm>
#include <vector>

namespace cachalot::plan {

namespace {

bool pairs_pieces(cost::ScheduleKind kind) noexcept {
  return kind == cost::ScheduleKind::kDualPipe || kind == cost::ScheduleKind::kDualPipeV;
}

// One micro-batch in one stage.
struct Piece {
  double forward = 0;
  double backward = 0;
  double sum() const noexcept { return forward + backward; }
};

// A pair of pieces takes no less than both compute, one alone computes and communicates.
Piece least_piece(const cost::StageTimes& t, bool paired) noexcept {
  if (!paired) return {t.forward, t.backward()};
  return {std::min(t.forward, t.forward_paired), std::min(t.backward(), t.backward_paired)};
}

// A rank begins when the first micro-batch has come through the stages before it, and has all its
// pieces to do. Of 1F1B the last backward then still has to go back through those stages; of ZB1P
// it may go while the rank has one weight gradient left for each stage before it, and its own.
double pipeline_seconds(const cost::Layout& l, const std::vector<cost::StageTimes>& times,
                        double send) {
  const bool paired = pairs_pieces(l.schedule);
  const bool zero_bubble = l.schedule == cost::ScheduleKind::kZb1p;
  const std::size_t stages = times.size(), ranks = paired ? stages / 2 : stages;
  const double pieces =
      static_cast<double>(l.micro_batches()) / cost::copies_of_weights(l.schedule);
  double longest = 0, arrival = 0, way_back = 0;
  for (std::size_t r = 0; r < ranks; ++r) {
    const Piece own = least_piece(times[r], paired);
    const double other = paired ? least_piece(times[stages - 1 - r], true).sum() : 0;
    const double left = zero_bubble ? static_cast<double>(r + 1) * times[r].weight_grad : 0;
    const double after = paired ? 0 : std::max(0.0, way_back - left);
    longest = std::max(longest, arrival + pieces * (own.sum() + other) + after);
    arrival += own.forward + send;
    way_back += (zero_bubble ? times[r].input_grad : own.backward) + send;
  }
  return longest;
}

// The layers of a model by kind, each kind as if it were a stage.
std::vector<cost::Stage> kinds_of_layers(const model::Config& c) {
  cost::Stage dense, moe, mtp, head;
  for (int i = 0; i < c.num_hidden_layers; ++i) {
    ++(c.is_moe_layer(i) ? moe.moe_layers : dense.dense_layers);
  }
  mtp.mtp_layers = c.num_nextn_predict_layers;
  head.head = true;
  return {dense, moe, mtp, head};
}

}  // namespace

LeastNeeds least_needs(const model::Config& c, const cost::Layout& l, const TrainClock& clock) {
  const std::vector<cost::Stage> stages = cost::split_stages(c, l, clock.units());
  const cost::Schedule outline{l.schedule, l.stages(), l.micro_batches(), {}};
  LeastNeeds least;
  double optimizer = 0;
  for (int r = 0; r < l.pipeline; ++r) {
    const int pieces = cost::least_peak_pieces(l.schedule, l.stages(), l.micro_batches(), r);
    least.memory =
        std::max(least.memory, cost::train_memory(c, l, stages, outline, r, pieces).sum());
    optimizer = std::max(
        optimizer, clock.optimizer_seconds(cost::device_parameters(c, l, stages, outline, r)));
  }
  std::vector<cost::StageTimes> times;
  for (const cost::Stage& stage : stages) times.push_back(clock.stage_times(stage));
  least.seconds = pipeline_seconds(l, times, clock.send_seconds()) + optimizer;
  return least;
}

double least_sequence_seconds(const model::Config& c, const cost::Layout& l,
                              const TrainClock& clock) {
  double seconds = 0;
  for (const cost::Stage& kind : kinds_of_layers(c)) {
    seconds += least_piece(clock.stage_times(kind), /*paired=*/true).sum();
  }
  return seconds / l.micro_batch;
}

}  // namespace cachalot::plan
