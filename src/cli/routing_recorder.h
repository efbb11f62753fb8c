// --routing-trace of the commands that run an engine: which experts every row of every pass chose,
// written while the engine runs.
//
// What a pass brings to a layer is one exchange of the trace (network/routing_trace.h), its rows
// laid on ranks in equal runs: what an expert-parallel deployment would send at once.
//
// Owns:    the file, which is in its place after write(), and not there without.
// Threads: made and written by one caller, while the engine does not run; records on the engine's
//          thread.
// Errors:  kUsage for a layer without experts, or where nothing was routed; kIo. What fails while
//          the engine runs is thrown by write(): answers do not suffer from it.
#pragma once

#include <cstdint>
#include <exception>
#include <string>

#include "cli/command.h"
#include "infer/engine.h"
#include "model/config.h"
#include "network/routing_trace_writer.h"

namespace cachalot::cli {

struct RecordOptions {
  std::string file;
  std::string layer = "-1";
  int ranks = 64;
  bool asked() const noexcept { return !file.empty(); }
};
void add_record_flags(CLI::App& command, RecordOptions& options);

class RoutingRecorder {
 public:
  // `mtp`: the engine will have an MTP layer to run.
  RoutingRecorder(const RecordOptions& options, const model::Config& config, bool mtp);
  RoutingRecorder(const RoutingRecorder&) = delete;
  RoutingRecorder& operator=(const RoutingRecorder&) = delete;

  // An engine made with this config records here; the recorder outlives it.
  void attach(infer::EngineConfig& config);
  void write();

 private:
  void record(std::int64_t pass, int layer, MatView<const std::int32_t> chosen) noexcept;

  RecordOptions options_;
  int layer_;
  network::RoutingTraceWriter writer_;
  std::int64_t left_out_ = 0;  // exchanges, after the file was full
  std::exception_ptr error_;
};

}  // namespace cachalot::cli
