// What there is to say of the time that a launcher leaves a run to save once it is told to end.
//
// Threads: one caller.
// Errors:  none.
#pragma once

#include <optional>
#include <string>

#include "comm/world.h"

namespace cachalot::cli {

class StopTime {
 public:
  explicit StopTime(std::optional<comm::KillDelay> delay) : delay_(delay) {}

  // Before the first step; empty where nobody is going to be killed, or who started the run has
  // said when.
  std::string advice() const;
  // A run that is told to end takes its step to the end and saves.
  void step(double seconds) noexcept { step_ = seconds; }
  // After a save; empty where it was quick enough, or this was said before.
  std::string saved(double seconds);

 private:
  std::optional<comm::KillDelay> delay_;
  double step_ = 0;
  bool told_ = false;
};

}  // namespace cachalot::cli
