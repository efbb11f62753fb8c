#include <mpi.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <functional>
#include <utility>

#include "base/error.h"
#include "comm/world.h"

namespace cachalot::comm {

namespace {

constexpr int kTag = 1;

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Two ranks and what they send each other. `first` is the one that keeps the time.
class Pair {
 public:
  Pair(int peer, bool first, const MessageOptions& options)
      : peer_(peer),
        first_(first),
        options_(options),
        out_(options.bytes),
        in_(options.bytes * static_cast<std::size_t>(options.window)) {
    for (std::size_t i = 0; i < out_.size(); ++i) out_[i] = pattern(i, first);
  }

  MessageRates measure() {
    MessageRates rates;
    const double bytes = static_cast<double>(options_.bytes) * options_.window;
    rates.latency_us = 1e6 / 2 / options_.round_trips * turns([&] { round_trips(); });
    rates.one_way_gbps = 1e-9 * bytes / turns([&] { window(first_, !first_); });
    if (!first_) check();
    rates.both_ways_gbps = 1e-9 * bytes / turns([&] { window(true, true); });
    check();
    return rates;
  }

  bool damaged() const noexcept { return damaged_; }

 private:
  static unsigned char pattern(std::size_t i, bool first) {
    return static_cast<unsigned char>(31 * i + (first ? 7 : 0));
  }

  // The median time of a turn, after one that is not counted.
  double turns(const std::function<void()>& turn) {
    std::vector<double> seconds;
    for (int t = 0; t <= options_.turns; ++t) {
      exchange_empty();
      const double begin = MPI_Wtime();
      turn();
      if (t > 0) seconds.push_back(MPI_Wtime() - begin);
    }
    return median(std::move(seconds));
  }

  void exchange_empty() {
    MPI_Sendrecv(nullptr, 0, MPI_BYTE, peer_, kTag, nullptr, 0, MPI_BYTE, peer_, kTag,
                 MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  }

  void round_trips() {
    std::array<unsigned char, 8> small{};
    const auto send = [&] {
      MPI_Send(small.data(), static_cast<int>(small.size()), MPI_BYTE, peer_, kTag, MPI_COMM_WORLD);
    };
    const auto receive = [&] {
      MPI_Recv(small.data(), static_cast<int>(small.size()), MPI_BYTE, peer_, kTag, MPI_COMM_WORLD,
               MPI_STATUS_IGNORE);
    };
    for (int i = 0; i < options_.round_trips; ++i) {
      if (first_) {
        send();
        receive();
      } else {
        receive();
        send();
      }
    }
  }

  // A window of large messages, and an empty one back, so that the time is that of their arrival.
  void window(bool sends, bool receives) {
    std::vector<MPI_Request> requests;
    const auto count = static_cast<int>(options_.bytes);
    for (int w = 0; w < options_.window; ++w) {
      if (receives) {
        MPI_Irecv(in_.data() + static_cast<std::size_t>(w) * options_.bytes, count, MPI_BYTE, peer_,
                  kTag, MPI_COMM_WORLD, &requests.emplace_back());
      }
      if (sends) {
        MPI_Isend(out_.data(), count, MPI_BYTE, peer_, kTag, MPI_COMM_WORLD,
                  &requests.emplace_back());
      }
    }
    MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
    exchange_empty();
  }

  // Whether every message arrived as it was sent; clears the buffer for the next.
  void check() {
    for (std::size_t i = 0; i < in_.size(); ++i) {
      if (in_[i] != pattern(i % options_.bytes, !first_)) damaged_ = true;
      in_[i] = 0;
    }
  }

  int peer_;
  bool first_, damaged_ = false;
  MessageOptions options_;
  std::vector<unsigned char> out_, in_;
};

}  // namespace

std::string mpi_version() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  const std::string all(text.data(), static_cast<std::size_t>(length));
  return all.substr(0, all.find(','));
}

World::World() {
  int provided = 0;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  // The first rank of a machine stands for it.
  MPI_Comm machine = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine);
  int lowest = rank_;
  MPI_Allreduce(&rank_, &lowest, 1, MPI_INT, MPI_MIN, machine);
  MPI_Comm_free(&machine);
  machines_.resize(static_cast<std::size_t>(size));
  MPI_Allgather(&lowest, 1, MPI_INT, machines_.data(), 1, MPI_INT, MPI_COMM_WORLD);
  std::vector<int> firsts = machines_;
  std::sort(firsts.begin(), firsts.end());
  firsts.erase(std::unique(firsts.begin(), firsts.end()), firsts.end());
  for (int& m : machines_) {
    m = static_cast<int>(std::lower_bound(firsts.begin(), firsts.end(), m) - firsts.begin());
  }
}

World::~World() { MPI_Finalize(); }

void World::broadcast(std::span<std::byte> bytes, int root) {
  MPI_Bcast(bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, root, MPI_COMM_WORLD);
}

void World::abort(int status) {
  MPI_Abort(MPI_COMM_WORLD, status);
  std::abort();  // it does not return
}

MessageRates World::measure(int a, int b, const MessageOptions& options) {
  MessageRates rates;
  int damaged = 0;
  if (rank_ == a || rank_ == b) {
    Pair pair(rank_ == a ? b : a, rank_ == a, options);
    rates = pair.measure();
    damaged = pair.damaged() ? 1 : 0;
  }
  // All ranks learn of it, so that none waits for one that has given up.
  MPI_Allreduce(MPI_IN_PLACE, &damaged, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  if (damaged != 0) {
    throw Error(Code::kInternal, cat("a message between the ranks ", a, " and ", b,
                                     " did not arrive as it was sent."));
  }
  std::array<double, 3> all{rates.latency_us, rates.one_way_gbps, rates.both_ways_gbps};
  MPI_Bcast(all.data(), static_cast<int>(all.size()), MPI_DOUBLE, a, MPI_COMM_WORLD);
  return {all[0], all[1], all[2]};
}

}  // namespace cachalot::comm
