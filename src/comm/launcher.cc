#include <charconv>
#include <cstdlib>
#include <cstring>

#include "comm/world.h"

namespace cachalot::comm {

int launched_ranks() noexcept {
  // Open MPI's mpirun; Hydra (MPICH, Intel MPI) and srun with PMI; srun with PMIx, whose step has
  // the number. SLURM_NTASKS would be the job's, and is there without srun as well.
  for (const char* const name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    const char* const text = std::getenv(name);
    if (text == nullptr) continue;
    int ranks = 0;
    const char* const end = text + std::strlen(text);
    const auto [last, error] = std::from_chars(text, end, ranks);
    if (error == std::errc() && last == end && ranks > 0) return ranks;
  }
  return 1;
}

}  // namespace cachalot::comm
