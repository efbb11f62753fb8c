// Collectives between processes, through MPI: for ranks that compute on CPUs.
#include <mpi.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "comm/collectives.h"

namespace cachalot::comm {

namespace {

// MPI counts in ints.
constexpr std::size_t kMost = std::size_t{1} << 28;

template <class F>
void in_pieces(std::size_t n, F&& each) {
  for (std::size_t begin = 0; begin < n; begin += kMost) each(begin, std::min(kMost, n - begin));
}

template <class T>
void add(T* x, std::size_t n, MPI_Datatype type) {
  in_pieces(n, [&](std::size_t begin, std::size_t count) {
    MPI_Allreduce(MPI_IN_PLACE, x + begin, static_cast<int>(count), type, MPI_SUM, MPI_COMM_WORLD);
  });
}

// bf16 is no type of MPI's: widened, added, rounded once.
void add_bf16(Bf16* x, std::size_t n) {
  std::vector<float> wide(n);
  for (std::size_t i = 0; i < n; ++i) wide[i] = to_float(x[i]);
  add(wide.data(), n, MPI_FLOAT);
  for (std::size_t i = 0; i < n; ++i) x[i] = to_bf16(wide[i]);
}

void add_any(void* x, std::size_t n, DType type) {
  switch (type) {
    case DType::kF32:
      return add(static_cast<float*>(x), n, MPI_FLOAT);
    case DType::kI32:
      return add(static_cast<std::int32_t*>(x), n, MPI_INT32_T);
    case DType::kBF16:
      return add_bf16(static_cast<Bf16*>(x), n);
    default:
      throw Error(Code::kUnsupported, cat("MPI: elements of type ", name(type),
                                          " are not added between ranks; F32, BF16 and I32 are"));
  }
}

class Hosts final : public Collectives {
 public:
  explicit Hosts(const World& world) : rank_(world.rank()), ranks_(world.size()) {}

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return ranks_; }
  std::string library() const override { return mpi_version(); }

  void sum_numbers(std::span<double> x) override { add(x.data(), x.size(), MPI_DOUBLE); }

 protected:
  void reduce(void* x, std::size_t n, DType type) override { add_any(x, n, type); }

  void gather(const void* mine, void* all, std::size_t n, DType type) override {
    const std::size_t bytes = n * size_of(type);
    const auto r = static_cast<std::size_t>(rank_);
    auto* to = static_cast<std::byte*>(all);
    if (to + r * bytes != mine) std::memcpy(to + r * bytes, mine, bytes);
    for (int root = 0; root < ranks_; ++root) {
      spread(to + static_cast<std::size_t>(root) * bytes, bytes, root);
    }
  }

  void scatter(const void* all, void* mine, std::size_t n, DType type) override {
    const std::size_t bytes = n * size_of(type);
    std::vector<std::byte> sum(bytes * static_cast<std::size_t>(ranks_));
    std::memcpy(sum.data(), all, sum.size());
    add_any(sum.data(), n * static_cast<std::size_t>(ranks_), type);
    std::memcpy(mine, sum.data() + static_cast<std::size_t>(rank_) * bytes, bytes);
  }

  void spread(void* x, std::size_t bytes, int root) override {
    in_pieces(bytes, [&](std::size_t begin, std::size_t count) {
      MPI_Bcast(static_cast<std::byte*>(x) + begin, static_cast<int>(count), MPI_BYTE, root,
                MPI_COMM_WORLD);
    });
  }

  void exchange(const std::byte* from, std::span<const int> send, std::byte* to,
                std::span<const int> receive, std::size_t row_bytes) override {
    MPI_Datatype row = MPI_DATATYPE_NULL;
    MPI_Type_contiguous(static_cast<int>(row_bytes), MPI_BYTE, &row);
    MPI_Type_commit(&row);
    const auto begins = [](std::span<const int> counts) {
      std::vector<int> at(counts.size());
      std::exclusive_scan(counts.begin(), counts.end(), at.begin(), 0);
      return at;
    };
    MPI_Alltoallv(from, send.data(), begins(send).data(), row, to, receive.data(),
                  begins(receive).data(), row, MPI_COMM_WORLD);
    MPI_Type_free(&row);
  }

 private:
  int rank_, ranks_;
};

}  // namespace

std::unique_ptr<Collectives> between_hosts(World& world) { return std::make_unique<Hosts>(world); }

}  // namespace cachalot::comm
