// How long a pipeline schedule takes and what it keeps in memory, by walking its lists with given
// durations; beside it the published formulas, which hold for equal stages.
//
// Threads: pure functions.
// Errors:  kConfig for a schedule in which a rank would wait for ever.
// Paper:   V3 report table 2 and the DualPipe README: bubbles and activations. "Insights into
//          DeepSeek-V3" table 4: the parts of a measured step.
#pragma once

#include <span>
#include <vector>

#include "cost/schedule.h"

namespace cachalot::cost {

// Seconds of the pieces of one stage. Alone, a piece shows its communication. In an overlapped pair
// both halves compute and communicate side by side, and the longer of the two sums counts.
struct StageTimes {
  double forward = 1;
  double input_grad = 1;
  double weight_grad = 1;
  double forward_paired = 1;  // computing
  double backward_paired = 2;
  double forward_sending = 0;  // communicating
  double backward_sending = 0;
  double backward() const noexcept { return input_grad + weight_grad; }
};

double pair_seconds(const StageTimes& forward, const StageTimes& backward) noexcept;

struct WorkSeconds {
  double forward = 0;      // F
  double backward = 0;     // B and b
  double weight_grad = 0;  // W apart from B
  double overlapped = 0;   // F&B
  double sum() const noexcept { return forward + backward + weight_grad + overlapped; }
};

struct Interval {
  double begin = 0;
  double end = 0;
};

struct SimulatedRank {
  WorkSeconds work;
  double idle = 0;             // until the last rank is done: the bubble
  int peak_pieces = 0;         // of its list
  std::vector<Interval> when;  // of each item
};

struct Simulation {
  double seconds = 0;
  std::vector<SimulatedRank> ranks;
  double mean_idle() const noexcept;
  WorkSeconds mean_work() const noexcept;
  int peak_pieces() const noexcept;
};

// `stages` has the times of each stage (or of all, if it is one); what passes from one rank to
// another arrives `send_seconds` after it was made.
Simulation simulate(const Schedule& schedule, std::span<const StageTimes> stages,
                    double send_seconds = 0);

// Most micro-batches whose activations of one stage lie on a rank at once, from the beginning of a
// forward to the end of the backward, of the weights' part where it is apart: by the order of its
// items alone, however long they take.
int peak_pieces(std::span<const WorkItem> items) noexcept;
// What that is at least, known before there is a list: one less than it where two lanes are paired.
int least_peak_pieces(ScheduleKind kind, int stages, int micro_batches, int rank) noexcept;

// The bubble of one rank, with equal stages and sends that take no time.
double published_bubble(ScheduleKind kind, int stages, const StageTimes& times);
// Activations of one stage and micro-batch that a rank must hold.
int published_pieces(ScheduleKind kind, int stages) noexcept;

}  // namespace cachalot::cost
