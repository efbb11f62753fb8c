// A routing trace written while its tokens come, in memory that does not grow with it.
//
// Owns:    the file, beside its place until commit(); without a commit nothing is left.
// Threads: one caller.
// Errors:  kUsage for sizes that a trace cannot have; kIo. An exchange that no longer fits into a
//          trace is normal: append returns false.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/atomic_file.h"
#include "network/routing_trace.h"
#include "tensor/mat.h"

namespace cachalot::network {

class RoutingTraceWriter {
 public:
  RoutingTraceWriter(const std::filesystem::path& file, int ranks, int experts, int topk,
                     std::int64_t most_bytes = kMostTraceBytes);

  // One exchange (routing_trace.h): `chosen` is [tokens, topk], and the tokens lie on the ranks in
  // equal runs, in their order; fewer tokens than ranks leave some ranks without. Passes ascend.
  // No tokens are no exchange. False, and nothing is written, where the file would become longer
  // than a trace may be.
  [[nodiscard]] bool append(std::int64_t pass, int layer, MatView<const std::int32_t> chosen);
  void commit();  // the file is whole, and in its place

  std::int64_t exchanges() const noexcept { return exchanges_; }
  std::int64_t tokens() const noexcept { return tokens_; }  // over all exchanges

 private:
  AtomicFile file_;
  int ranks_, experts_, topk_;
  std::int64_t most_bytes_, bytes_ = 0;
  std::int64_t exchanges_ = 0, tokens_ = 0;
  std::string text_;  // of one exchange
};

}  // namespace cachalot::network
