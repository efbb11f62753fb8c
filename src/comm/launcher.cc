#include <charconv>
#include <cstdlib>
#include <cstring>

#include "comm/world.h"

namespace cachalot::comm {

namespace {

// The whole number that a variable of the environment is.
std::optional<int> whole_number(const char* name) noexcept {
  const char* const text = std::getenv(name);
  if (text == nullptr) return std::nullopt;
  int value = 0;
  const char* const end = text + std::strlen(text);
  const auto [last, error] = std::from_chars(text, end, value);
  if (error != std::errc() || last != end) return std::nullopt;
  return value;
}

}  // namespace

int launched_ranks() noexcept {
  // Open MPI's mpirun; Hydra (MPICH, Intel MPI) and srun with PMI; srun with PMIx, whose step has
  // the number. SLURM_NTASKS would be the job's, and is there without srun as well.
  for (const char* const name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    const std::optional<int> ranks = whole_number(name);
    if (ranks && *ranks > 0) return *ranks;
  }
  return 1;
}

std::optional<KillDelay> kill_delay() noexcept {
  if (!whole_number("OMPI_COMM_WORLD_SIZE")) return std::nullopt;
  // The second from Open MPI 5 on, whose launcher is PRRTE.
  for (const char* const name :
       {"OMPI_MCA_odls_base_sigkill_timeout", "PRTE_MCA_odls_base_sigkill_timeout"}) {
    const std::optional<int> seconds = whole_number(name);
    if (seconds && *seconds >= 0) return KillDelay{*seconds, true};
  }
  return KillDelay{};
}

}  // namespace cachalot::comm
