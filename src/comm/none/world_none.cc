// A build without MPI: one process, which is no world.
#include <cstdlib>

#include "base/error.h"
#include "comm/collectives.h"

namespace cachalot::comm {

std::string mpi_version() { return ""; }

World::World() {
  throw Error(Code::kUnsupported,
              cat("a launcher started ", launched_ranks(),
                  " ranks, but this build has no MPI. Install it (Debian: apt-get install "
                  "libopenmpi-dev openmpi-bin) and build again, or start one process alone."));
}
World::~World() = default;

// Never called: there is no world.
void World::broadcast(std::span<std::byte>, int) {}
void World::abort(int status) { std::exit(status); }
std::unique_ptr<Collectives> between_hosts(World&) { return nullptr; }

MessageRates World::measure(int, int, const MessageOptions&) { return {}; }

}  // namespace cachalot::comm
