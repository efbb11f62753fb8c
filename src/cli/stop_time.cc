#include "cli/stop_time.h"

#include <fmt/format.h>

namespace cachalot::cli {

std::string StopTime::advice() const {
  if (!delay_ || delay_->asked) return {};
  return fmt::format(
      "on Ctrl-C mpirun kills its ranks {} s after it has told them to end (unless it is "
      "configured otherwise), which may be too soon to save: send SIGTERM to one of the cachalot "
      "processes instead, or start with mpirun --mca odls_base_sigkill_timeout 60",
      delay_->seconds);
}

std::string StopTime::saved(double seconds) {
  if (told_ || !delay_ || !delay_->asked || step_ + seconds <= delay_->seconds) return {};
  told_ = true;
  return fmt::format(
      "the last step took {:.1f} s and saving {:.1f} s, longer than the {} s after which mpirun "
      "kills its ranks on Ctrl-C: send SIGTERM to one of the cachalot processes instead, or start "
      "with a larger odls_base_sigkill_timeout",
      step_, seconds, delay_->seconds);
}

}  // namespace cachalot::cli
