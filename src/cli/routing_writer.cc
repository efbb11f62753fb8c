#include "cli/routing_writer.h"

#include "base/atomic_file.h"
#include "base/error.h"
#include "cli/output_file.h"

namespace cachalot::cli {

void add_routing_flags(CLI::App& command, RoutingOptions& options) {
  add_output_file(command, "--routing-trace", options.file,
                  "Write which experts each token chose, for `cachalot network simulate --trace`; "
                  "of a training run its last step's tokens");
  command
      .add_option("--routing-layer", options.layer,
                  "Layer whose choices --routing-trace writes, from 0; -1: the first with experts")
      ->check(CLI::Range(-1, 1 << 20))
      ->type_name("N");
  command
      .add_option("--routing-ranks", options.ranks,
                  "GPUs that the tokens of --routing-trace are laid on, in equal runs")
      ->check(CLI::Range(1, network::kMostRanks))
      ->type_name("N");
}

void check_routing_tokens(const RoutingOptions& options, std::int64_t tokens) {
  if (tokens >= options.ranks) return;
  throw Error(Code::kUsage, cat("--routing-trace: ", tokens, " tokens were routed, ",
                                options.ranks - tokens, " fewer than --routing-ranks ",
                                options.ranks, ". Use fewer ranks or more text."));
}

RoutingWriter::RoutingWriter(const RoutingOptions& options, int experts) : options_(options) {
  trace_.ranks = options.ranks;
  trace_.experts = experts;
  if (experts > network::kMostExperts) {
    throw Error(Code::kUsage, cat("--routing-trace: the model has ", experts,
                                  " experts, and a trace holds at most ", network::kMostExperts));
  }
}

void RoutingWriter::append(MatView<const std::int32_t> chosen) {
  trace_.topk = chosen.cols;
  for (int t = 0; t < chosen.rows; ++t) {
    for (int i = 0; i < chosen.cols; ++i) {
      trace_.chosen.push_back(static_cast<std::uint16_t>(chosen.row(t)[i]));
    }
  }
}

void RoutingWriter::clear() { trace_.chosen.clear(); }

void RoutingWriter::write() {
  const std::size_t tokens =
      trace_.topk > 0 ? trace_.chosen.size() / static_cast<std::size_t>(trace_.topk) : 0;
  const auto ranks = static_cast<std::size_t>(trace_.ranks);
  check_routing_tokens(options_, static_cast<std::int64_t>(tokens));
  trace_.rank_of.resize(tokens);
  for (std::size_t t = 0; t < tokens; ++t) {
    trace_.rank_of[t] = static_cast<std::uint16_t>(t * ranks / tokens);
  }
  write_file_atomically(options_.file, network::to_text(trace_));
}

}  // namespace cachalot::cli
