// The schedule of a pipeline-parallel training step, as one object: for each rank the ordered list
// of what it computes. Whatever executes a step walks these lists; whatever predicts one simulates
// the very same lists.
//
// A model is cut into `stages` pieces, a step into `micro_batches`. 1F1B and ZB1P put one stage on
// each rank. DualPipe feeds half of the micro-batches from either end, so rank r holds the stages r
// and stages-1-r, and every stage lies on two ranks. DualPipeV folds the pipeline: rank r of
// stages/2 holds both stages, each stage lies on one rank, all micro-batches enter at rank 0.
//
// Communication is not an item: a rank receives what an item needs before it begins and sends what
// it made once it is done. Sends must not wait for the receiver (buffered, or a thread of their
// own): the lists are free of deadlock under that rule, which check() proves.
//
// Owns:    its lists; plain values.
// Threads: pure functions.
// Errors:  kUsage for counts a schedule cannot have, kConfig for lists that break a rule.
// Paper:   PipeDream-flush (1F1B); "Zero Bubble Pipeline Parallelism" (ZB-H1, called ZB1P in the
//          V3 report); V3 report 3.2.1 and table 2; the published DualPipe and DualPipeV programs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cachalot::cost {

enum class ScheduleKind : std::uint8_t { k1F1B, kZb1p, kDualPipe, kDualPipeV };
inline constexpr ScheduleKind kScheduleKinds[] = {
    ScheduleKind::k1F1B, ScheduleKind::kZb1p, ScheduleKind::kDualPipe, ScheduleKind::kDualPipeV};
std::string_view name(ScheduleKind kind) noexcept;  // "1f1b", "zb1p", "dualpipe", "dualpipev"
ScheduleKind parse_schedule_kind(std::string_view text);

enum class Work : std::uint8_t {
  kForward,     // F
  kBackward,    // B: gradients of the input and of the weights
  kInputGrad,   // b: of the input only; the weights' follow as a kWeightGrad of the same piece
  kWeightGrad,  // W
  kOverlapped,  // F&B: the forward of one piece and the whole backward of another, interleaved so
                // that one computes while the other communicates
};
std::string_view symbol(Work work) noexcept;  // "F", "B", "b", "W", "F&B"

// One micro-batch in one stage.
struct Piece {
  int micro_batch = -1;
  int stage = -1;
  bool operator==(const Piece&) const = default;
};

struct WorkItem {
  Work work = Work::kForward;
  Piece piece;     // of kOverlapped: what goes forward
  Piece backward;  // of kOverlapped: what goes backward
  bool operator==(const WorkItem&) const = default;
};

struct Schedule {
  ScheduleKind kind = ScheduleKind::k1F1B;
  int stages = 1;
  int micro_batches = 1;
  std::vector<std::vector<WorkItem>> ranks;

  // 0: enters at stage 0 on rank 0; 1 (DualPipe's second half): enters on the last rank.
  int direction(int micro_batch) const noexcept;
  int rank_of(const Piece& piece) const noexcept;
  // Stages that a rank holds the weights of, lowest first.
  std::vector<int> stages_of(int rank) const;
};

// How many ranks so many stages need, and how often each weight is stored.
int ranks_for(ScheduleKind kind, int stages) noexcept;
int copies_of_weights(ScheduleKind kind) noexcept;
bool is_possible(ScheduleKind kind, int stages, int micro_batches) noexcept;
// "" where a schedule of these counts exists; else what is needed instead.
std::string why_impossible(ScheduleKind kind, int stages, int micro_batches);

Schedule make_schedule(ScheduleKind kind, int stages, int micro_batches);

// Throws unless every piece is computed forward once and backward once, on the rank that holds its
// stage, weights after inputs, everything after what it needs, and no rank waits for ever.
void check(const Schedule& schedule);

}  // namespace cachalot::cost
