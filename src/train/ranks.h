// The ranks that train one model together: each computes its own micro-batches of a step, and what
// a step of the optimiser needs of them is summed. Every rank then takes the same step, so that the
// weights stay the same on all. Rank 0 has the run folder: it alone prepares data, writes and
// evaluates. A process alone is rank 0 of one, and all of this does nothing.
//
// Results: sums over ranks are in another order than one rank's own, so weights agree with those of
//          one rank to rounding; from run to run of as many ranks they are the same where the
//          library adds in the same order.
// Threads: one caller.
// Errors:  kUsage where a step has fewer micro-batches than there are ranks, kUnsupported for a
// loss
//          over all of a step's tokens; comm/collectives.h.
#pragma once

#include <cstdint>

#include "comm/collectives.h"
#include "model/parameters.h"
#include "model/train_graph.h"
#include "train/checkpoint.h"
#include "train/recipe.h"
#include "train/run_data.h"

namespace cachalot::train {

class Ranks {
 public:
  explicit Ranks(comm::Collectives* all) : all_(all) {}  // null: alone

  int rank() const noexcept { return all_ != nullptr ? all_->rank() : 0; }
  int size() const noexcept { return all_ != nullptr ? all_->size() : 1; }
  bool first() const noexcept { return rank() == 0; }

  // Sequences of a pass: schedule.micro_batch, or an equal share of the step's.
  int micro_batch(const Recipe& recipe, std::int64_t step) const;
  // Whether the step's pass with this number is this rank's.
  bool own(int pass) const noexcept { return pass % size() == rank(); }
  void check(const Recipe& recipe) const;

  // What rank 0 found and prepared.
  FoundCheckpoint share(const FoundCheckpoint& found) const;
  RunData share(const RunData& data) const;
  void same_weights(model::Parameters& parameters) const;

  // Sums of all ranks.
  void add(model::Parameters& parameters) const;  // gradients
  void add(model::Losses& losses) const;          // and loads

  // What ends a run: of any rank. And the number of steps that rank 0 knows of.
  struct Ends {
    bool stop = false, time_up = false;
  };
  Ends agree(Ends own, std::int64_t& steps) const;

 private:
  comm::Collectives* all_;
};

}  // namespace cachalot::train
