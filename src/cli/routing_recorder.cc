#include "cli/routing_recorder.h"

#include <spdlog/spdlog.h>

#include <charconv>

#include "base/error.h"
#include "cli/output_file.h"

namespace cachalot::cli {

namespace {

constexpr const char* kGroup = "Routing trace";
constexpr int kAllLayers = -1;  // as infer::EngineConfig has it

int layer_of(const std::string& text, const model::Config& config, bool mtp) {
  if (text == "all") {
    config.moe_layer_or_first(-1);  // there is one
    return kAllLayers;
  }
  int layer = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), layer);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw Error(Code::kUsage, cat("--routing-layer is `", text,
                                  "`; it must be a layer's number, -1 for the first layer with "
                                  "experts, or all"));
  }
  return config.moe_layer_or_first(layer, mtp);
}

}  // namespace

void add_record_flags(CLI::App& command, RecordOptions& options) {
  add_output_file(command, "--routing-trace", options.file,
                  "Write which experts each row of each pass chose, for `cachalot network simulate "
                  "--trace`: rows of prompts, of generated tokens, and of all drafts")
      ->group(kGroup);
  command
      .add_option("--routing-layer", options.layer,
                  "Layer whose choices --routing-trace writes, from 0; -1: the first with experts; "
                  "the number of layers: the MTP layer; all: every layer with experts")
      ->type_name("N|all")
      ->group(kGroup);
  command
      .add_option("--routing-ranks", options.ranks,
                  "GPUs that the rows of each pass are laid on in --routing-trace, in equal runs")
      ->check(CLI::Range(1, network::kMostRanks))
      ->type_name("N")
      ->group(kGroup);
}

RoutingRecorder::RoutingRecorder(const RecordOptions& options, const model::Config& config,
                                 bool mtp)
    : options_(options),
      layer_(layer_of(options.layer, config, mtp)),
      writer_(options.file, options.ranks, config.route.experts, config.route.topk) {}

void RoutingRecorder::attach(infer::EngineConfig& config) {
  config.routing_layer = layer_;
  config.on_routing = [this](std::int64_t pass, int layer, MatView<const std::int32_t> chosen) {
    record(pass, layer, chosen);
  };
}

void RoutingRecorder::record(std::int64_t pass, int layer,
                             MatView<const std::int32_t> chosen) noexcept {
  if (error_) return;
  // After the first exchange that does not fit none is written, or the end would have holes.
  if (left_out_ > 0) {
    ++left_out_;
    return;
  }
  try {
    if (!writer_.append(pass, layer, chosen)) ++left_out_;
  } catch (...) {
    error_ = std::current_exception();
  }
}

void RoutingRecorder::write() {
  if (error_) std::rethrow_exception(error_);
  if (writer_.exchanges() == 0) {
    throw Error(Code::kUsage, cat("--routing-trace: no row was read by layer ", options_.layer,
                                  ", so ", options_.file,
                                  " was not written. The MTP layer runs where drafts pay (--mtp "
                                  "on: always); other layers read every row."));
  }
  writer_.commit();
  spdlog::info("{}: {} rows in {} exchanges", options_.file, writer_.tokens(), writer_.exchanges());
  if (left_out_ > 0) {
    spdlog::warn(
        "{} holds the beginning: {} further exchanges did not fit into the {} bytes that a trace "
        "may have",
        options_.file, left_out_, network::kMostTraceBytes);
  }
}

}  // namespace cachalot::cli
