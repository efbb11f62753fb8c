// Collectives between devices, through NCCL.
#include <chrono>
#include <exception>
#include <thread>

#include "comm/collectives.h"
#include "comm/nccl_api.h"

namespace cachalot::comm {

namespace {

int type_of(DType type) {
  switch (type) {
    case DType::kF32:
      return kNcclFloat32;
    case DType::kBF16:
      return kNcclBfloat16;
    case DType::kI32:
      return kNcclInt32;
    default:
      throw Error(Code::kUnsupported, cat("NCCL: elements of type ", name(type),
                                          " are not added between ranks; F32, BF16 and I32 are"));
  }
}

std::string version_text(int v) {
  return cat("NCCL ", v / 10000, ".", v / 100 % 100, ".", v % 100);
}

class Nccl final : public Collectives {
 public:
  Nccl(const NcclApi& api, const NcclId& id, int rank, int ranks, Device& device)
      : api_(api), device_(device), rank_(rank), ranks_(ranks) {
    if (stream() == nullptr) {
      throw Error(
          Code::kUnsupported,
          cat("NCCL moves what lies on NVIDIA GPUs; this rank's device is ", device.name()));
    }
    NcclUniqueId raw;
    static_assert(sizeof(raw) == sizeof(id.bytes));
    std::copy(id.bytes.begin(), id.bytes.end(), raw.internal);
    check(api_.comm_init_rank(&comm_, ranks, raw, rank),
          cat("joining as rank ", rank, " of ", ranks));
  }
  ~Nccl() override {
    if (comm_ == nullptr) return;
    // After a fault other ranks may never come: what is queued then has to be given up.
    if (failed_ || std::uncaught_exceptions() > 0) {
      api_.comm_abort(comm_);
    } else {
      api_.comm_destroy(comm_);
    }
  }

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return ranks_; }
  std::string library() const override { return version_text(api_.version); }

  void sum_numbers(std::span<double> x) override {
    const MemoryScope scope(&device_);
    numbers_.resize(1, static_cast<int>(x.size()));
    upload<double>(x, numbers_);
    if (!x.empty()) {
      check(api_.all_reduce(numbers_.data(), numbers_.data(), x.size(), kNcclFloat64, kNcclSum,
                            comm_, stream()),
            "adding numbers");
    }
    wait();
    download<double>(numbers_, x);
  }

 protected:
  void reduce(void* x, std::size_t n, DType type) override {
    if (n == 0) return;
    check(api_.all_reduce(x, x, n, type_of(type), kNcclSum, comm_, stream()), "all_reduce");
  }
  void gather(const void* mine, void* all, std::size_t n, DType type) override {
    if (n == 0) return;
    check(api_.all_gather(mine, all, n * size_of(type), kNcclInt8, comm_, stream()), "all_gather");
  }
  void scatter(const void* all, void* mine, std::size_t n, DType type) override {
    if (n == 0) return;
    check(api_.reduce_scatter(all, mine, n, type_of(type), kNcclSum, comm_, stream()),
          "reduce_scatter");
  }
  void spread(void* x, std::size_t bytes, int root) override {
    if (bytes == 0) return;
    check(api_.broadcast(x, x, bytes, kNcclInt8, root, comm_, stream()), "broadcast");
  }
  void exchange(const std::byte* from, std::span<const int> send, std::byte* to,
                std::span<const int> receive, std::size_t row_bytes) override {
    together([&] {
      for (int peer = 0; peer < ranks_; ++peer) {
        const auto p = static_cast<std::size_t>(peer);
        const std::size_t out = static_cast<std::size_t>(send[p]) * row_bytes;
        const std::size_t in = static_cast<std::size_t>(receive[p]) * row_bytes;
        if (out > 0) {
          check(api_.send(from, out, kNcclInt8, peer, comm_, stream()),
                cat("all_to_all: sending to rank ", peer));
        }
        if (in > 0) {
          check(api_.receive(to, in, kNcclInt8, peer, comm_, stream()),
                cat("all_to_all: receiving from rank ", peer));
        }
        from += out;
        to += in;
      }
    });
  }
  void begin_group() override { check(api_.group_start(), "beginning a group"); }
  void end_group() override { check(api_.group_end(), "sending a group"); }
  void drop_group() noexcept override {
    failed_ = true;
    api_.group_end();
  }

 private:
  void* stream() { return device_.queue(); }

  void check(NcclResult result, const std::string& what) {
    if (result == kNcclSuccess) return;
    failed_ = true;
    const char* more = api_.get_last_error(comm_);
    throw Error(Code::kInternal,
                cat("NCCL: ", what, ": ", api_.get_error_string(result),
                    more != nullptr && *more != '\0' ? cat(" (", more, ")") : "",
                    ". Every rank needs a GPU of its own and a network to the others; "
                    "NCCL_DEBUG=WARN prints what it tried"));
  }

  // Until the device is done, or another rank's fault says that it never will be.
  void wait() {
    const auto begin = std::chrono::steady_clock::now();
    while (!device_.done()) {
      NcclResult state = kNcclSuccess;
      check(api_.comm_get_async_error(comm_, &state), "asking for faults");
      if (state != kNcclSuccess && state != kNcclInProgress) {
        check(state, "a fault between ranks while they worked together");
      }
      if (std::chrono::steady_clock::now() - begin > std::chrono::milliseconds(1)) {
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      }
    }
  }

  const NcclApi& api_;
  Device& device_;
  int rank_, ranks_;
  bool failed_ = false;
  NcclComm comm_ = nullptr;
  Mat<double> numbers_;
};

}  // namespace

NcclId new_nccl_id() {
  const NcclApi& api = nccl_api();
  NcclUniqueId raw;
  if (const NcclResult result = api.get_unique_id(&raw); result != kNcclSuccess) {
    throw Error(Code::kInternal,
                cat("NCCL: making an id for the ranks to meet by: ", api.get_error_string(result),
                    ". It listens on a network interface of this machine; "
                    "NCCL_SOCKET_IFNAME chooses one (lo, where there is no other)"));
  }
  NcclId id;
  std::copy(std::begin(raw.internal), std::end(raw.internal), id.bytes.begin());
  return id;
}

std::unique_ptr<Collectives> nccl(const NcclApi& api, const NcclId& id, int rank, int ranks,
                                  Device& device) {
  return std::make_unique<Nccl>(api, id, rank, ranks, device);
}
std::unique_ptr<Collectives> nccl(const NcclId& id, int rank, int ranks, Device& device) {
  return nccl(nccl_api(), id, rank, ranks, device);
}

std::string nccl_version() {
  try {
    return version_text(nccl_api().version);
  } catch (const Error& e) {
    return e.what();
  }
}

}  // namespace cachalot::comm
