// --routing-trace of eval and train: which experts tokens chose, as `cachalot network simulate
// --trace` reads it. (routing_recorder.h is that of the commands that run an engine.)
//
// A trace is of one layer, since each layer's exchange is one by itself. Its tokens are laid on
// ranks in equal runs, in their order: a sequence, or a piece of it, stays on one GPU.
//
// Threads: one caller.
// Errors:  kUsage where there are fewer tokens than ranks; kIo where the file cannot be written.
#pragma once

#include <cstdint>
#include <string>

#include "cli/command.h"
#include "network/routing_trace.h"
#include "tensor/mat.h"

namespace cachalot::cli {

struct RoutingOptions {
  std::string file;
  int layer = -1;
  int ranks = 64;
  bool asked() const noexcept { return !file.empty(); }
};
void add_routing_flags(CLI::App& command, RoutingOptions& options);
// Before the work: throws kUsage where so many tokens are too few for the ranks. (That the file can
// be written: check_output_file.)
void check_routing_tokens(const RoutingOptions& options, std::int64_t tokens);

class RoutingWriter {
 public:
  RoutingWriter(const RoutingOptions& options, int experts);
  // The choices of further tokens, [n, k].
  void append(MatView<const std::int32_t> chosen);
  void clear();
  bool empty() const noexcept { return trace_.chosen.empty(); }
  void write();

 private:
  RoutingOptions options_;
  network::RoutingTrace trace_;
};

}  // namespace cachalot::cli
