// What ranks do together with matrices: sums, pieces gathered or spread, rows sent to one another.
//
// Operands lie where the ranks compute: on each rank's own GPU, between which NCCL moves them, or
// in the host's memory, between whose processes MPI does. On a device an operation is queued behind
// what was queued before, as kernels are; every rank calls the same operations in the same order
// with the same sizes, or all of them wait for ever.
//
// Sums are in float (of bf16: added as NCCL does, in bf16 between ranks on devices; in float and
// rounded once on hosts), in an order that depends on the number of ranks and on the library. All
// ranks get the same bits.
//
// Owns:    the library's communicator, and on a device some memory for numbers.
// Threads: the thread that made it; one call at a time.
// Errors:  kUnsupported where the library is missing or too old; kShape where sizes do not fit the
//          ranks; kInternal where the library, or another rank's part of it, failed.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <numeric>
#include <span>
#include <string>

#include "base/error.h"
#include "comm/world.h"
#include "tensor/device.h"
#include "tensor/mat.h"

namespace cachalot::comm {

// Rows for every rank and from every rank, in the order of ranks.
template <class T>
struct RowExchange {
  MatView<const T> from;         // [sum of send, C]  the first send[0] rows go to rank 0, ...
  std::span<const int> send;     // [ranks]
  MatView<T> to;                 // [sum of receive, C]
  std::span<const int> receive;  // [ranks]  what the others send here
};

class Collectives {
 public:
  Collectives() = default;
  Collectives(const Collectives&) = delete;
  Collectives& operator=(const Collectives&) = delete;
  virtual ~Collectives() = default;

  virtual int rank() const noexcept = 0;
  virtual int size() const noexcept = 0;
  virtual std::string library() const = 0;  // "NCCL 2.27.7"

  // T: float, Bf16 or std::int32_t; std::uint8_t too where nothing is added.

  // x becomes the sum over all ranks.
  template <class T>
  void all_reduce(std::span<T> x) {
    reduce(x.data(), x.size(), DTypeOf<T>::value);
  }
  // all [ranks, n]: mine [n] of every rank. `mine` may be its own place in `all`.
  template <class T>
  void all_gather(std::span<const T> mine, std::span<T> all) {
    check_parts("all_gather", mine.size(), all.size());
    gather(mine.data(), all.data(), mine.size(), DTypeOf<T>::value);
  }
  // mine [n]: this rank's piece of the sum over all ranks of all [ranks, n].
  template <class T>
  void reduce_scatter(std::span<const T> all, std::span<T> mine) {
    check_parts("reduce_scatter", mine.size(), all.size());
    scatter(all.data(), mine.data(), mine.size(), DTypeOf<T>::value);
  }
  // x becomes what rank `root` has.
  template <class T>
  void broadcast(std::span<T> x, int root) {
    check_rank("broadcast", root);
    spread(x.data(), x.size_bytes(), root);
  }
  template <class T>
  void all_to_all(const RowExchange<T>& a) {
    check_rows("from", a.from.rows, a.from.cols, a.from.stride, a.send);
    check_rows("to", a.to.rows, a.to.cols, a.to.stride, a.receive);
    if (a.from.cols != a.to.cols) throw_columns(a.from.cols, a.to.cols);
    exchange(reinterpret_cast<const std::byte*>(a.from.data), a.send,
             reinterpret_cast<std::byte*>(a.to.data), a.receive,
             static_cast<std::size_t>(a.to.cols) * sizeof(T));
  }
  // Operations that `all` calls go out as one: all at once where the library can.
  template <class F>
  void together(F&& all) {
    begin_group();
    try {
      all();
    } catch (...) {
      drop_group();
      throw;
    }
    end_group();
  }

  // Numbers that the host has: x becomes the sum over all ranks. Waits for it, and for what was
  // queued before.
  virtual void sum_numbers(std::span<double> x) = 0;
  // What rank 0 has; some hundred bytes.
  std::string from_first(const std::string& text);
  // Returns when every rank has called it.
  void meet();

 protected:
  virtual void reduce(void* x, std::size_t n, DType type) = 0;
  virtual void gather(const void* mine, void* all, std::size_t n, DType type) = 0;
  virtual void scatter(const void* all, void* mine, std::size_t n, DType type) = 0;
  virtual void spread(void* x, std::size_t bytes, int root) = 0;
  virtual void exchange(const std::byte* from, std::span<const int> send, std::byte* to,
                        std::span<const int> receive, std::size_t row_bytes) = 0;
  virtual void begin_group() {}
  virtual void end_group() {}
  virtual void drop_group() noexcept {}

 private:
  void check_parts(const char* what, std::size_t mine, std::size_t all) const;
  void check_rank(const char* what, int rank) const;
  void check_rows(const char* side, int rows, int cols, std::ptrdiff_t stride,
                  std::span<const int> counts) const;
  [[noreturn]] static void throw_columns(int from, int to);
};

// Between all ranks of a world: on `device`, which is this rank's own, or, where it is null, in the
// host's memory. Every rank calls it; the world has to outlive it.
std::unique_ptr<Collectives> collectives(World& world, Device* device);

// NCCL without a world: rank 0 makes the id, and whoever started the ranks brings it to the others.
struct NcclId {
  std::array<char, 128> bytes{};
};
NcclId new_nccl_id();
std::unique_ptr<Collectives> nccl(const NcclId& id, int rank, int ranks, Device& device);
// "NCCL 2.27.7", or why there is none.
std::string nccl_version();

// In the host's memory, by MPI; for `collectives`.
std::unique_ptr<Collectives> between_hosts(World& world);

}  // namespace cachalot::comm
