// The ranks that a launcher (mpirun, srun) started this command as.
//
// Owns:    MPI's state, begun where there is more than one.
// Errors:  kUnsupported in a build without MPI; kUsage for a launcher of another MPI.
#pragma once

#include <spdlog/spdlog.h>

#include <memory>
#include <optional>

#include "base/error.h"
#include "comm/collectives.h"

namespace cachalot::cli {

class StartedRanks {
 public:
  StartedRanks() {
    const int launched = comm::launched_ranks();
    if (launched < 2) return;
    world_.emplace();
    if (world_->size() == launched) return;
    throw Error(Code::kUsage,
                cat("a launcher started ", launched, " ranks, but ", comm::mpi_version(),
                    " knows of ", world_->size(), ": start them with the mpirun of this MPI"));
  }
  bool first() const noexcept { return !world_ || world_->rank() == 0; }
  // Among the ranks of this machine: the number of the GPU that is this rank's.
  int number_here() const noexcept { return world_ ? world_->rank_here() : 0; }
  // Null: this process is alone. Outlived by this and by the device.
  std::unique_ptr<comm::Collectives> collectives(Device* device) {
    return world_ ? comm::collectives(*world_, device) : nullptr;
  }
  // What a rank cannot go on from ends all of them, for the others would wait for it.
  template <class F>
  void run(F&& fn) {
    if (!world_) return fn();
    try {
      fn();
    } catch (const Error& e) {
      give_up(e.what(), exit_status(e.code()));
    } catch (const std::exception& e) {
      give_up(e.what(), 1);
    }
  }

 private:
  void give_up(const char* why, int status) const {
    spdlog::error("rank {}: {}", world_->rank(), why);
    comm::World::abort(status);
  }
  std::optional<comm::World> world_;
};

}  // namespace cachalot::cli
