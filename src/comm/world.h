// The ranks of a job that an MPI launcher (mpirun, srun) started, where they run, and what messages
// between two of them take.
//
// Owns:    MPI's state in this process: begun by the constructor, ended by the destructor; once.
// Threads: only the thread that made it.
// Errors:  kUnsupported from the constructor in a build without MPI, saying what to install;
//          kInternal where a message arrives other than it was sent. What MPI itself finds wrong
//          (a rank that died, a network that is down) ends the job with MPI's message.
// Source:  MPI 3.1 (mpi-forum.org/docs). Messages are timed as the OSU micro-benchmarks do
//          (osu_latency, osu_bw, osu_bibw; mvapich.cse.ohio-state.edu/benchmarks).
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace cachalot::comm {

// How many ranks the launcher says it started, from the environment; 1 where there was none. Asks
// no MPI, so a process that runs alone never begins it.
int launched_ranks() noexcept;

// Told to end (Ctrl-C, SIGTERM), Open MPI's mpirun passes that on as SIGTERM, and kills its ranks
// some seconds later: as many as its MCA parameter odls_base_sigkill_timeout says, which it hands
// to them in their environment where it was given; else one.
struct KillDelay {
  int seconds = 1;
  bool asked = false;  // the parameter was given
};
// Nothing where no such mpirun started this process.
std::optional<KillDelay> kill_delay() noexcept;

// The MPI library of this build ("Open MPI v4.1.4"); empty: none.
std::string mpi_version();

struct MessageRates {
  double latency_us = 0;      // half of a round trip of 8 bytes
  double one_way_gbps = 0;    // 1e9 bytes per second while one sends
  double both_ways_gbps = 0;  // of each direction while both send
};

struct MessageOptions {
  int turns = 11;                 // medians of so many
  int round_trips = 1000;         // of a turn
  std::size_t bytes = 4ul << 20;  // of a large message; below 2 GiB
  int window = 16;                // large messages under way at once
};

class World {
 public:
  World();
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  int rank() const noexcept { return rank_; }
  int size() const noexcept { return static_cast<int>(machines_.size()); }
  // [ranks] which machine each runs on: those that share memory have one number, from 0 on in the
  // order of their first ranks.
  const std::vector<int>& machines() const noexcept { return machines_; }

  // Among the ranks of its machine, this one's number.
  int rank_here() const noexcept {
    int before = 0;
    for (int r = 0; r < rank_; ++r) {
      before +=
          machines_[static_cast<std::size_t>(r)] == machines_[static_cast<std::size_t>(rank_)];
    }
    return before;
  }

  // `bytes` become those of rank `root`; every rank has as many.
  void broadcast(std::span<std::byte> bytes, int root);
  // Ends every rank's process: for a rank that cannot go on, whom the others would wait for.
  [[noreturn]] static void abort(int status);

  // Messages between two different ranks, the others waiting. Every rank calls it with the same
  // arguments, and every rank gets the result.
  MessageRates measure(int a, int b, const MessageOptions& options = {});

 private:
  int rank_ = 0;
  std::vector<int> machines_;
};

}  // namespace cachalot::comm
