// Any text as a routing trace: a clear Error, or a trace whose text gives the same trace again and
// can be counted.
// Links: network
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "network/moe_traffic.h"
#include "network/routing_trace.h"

static void require(bool truth) {
  if (!truth) std::abort();
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cachalot;  // NOLINT: a fuzzer of one room
  network::RoutingTrace trace;
  try {
    trace = network::parse_routing_trace({reinterpret_cast<const char*>(data), size}, "fuzz");
  } catch (const Error& e) {
    require(e.code() == Code::kFormat);
    const std::string_view what(e.what());
    require(what.starts_with("fuzz:"));
    for (const char c : what) require(static_cast<unsigned char>(c) >= 0x20);
    return 0;
  }
  require(network::parse_routing_trace(network::to_text(trace), "again") == trace);
  if (!trace.exchanges.empty()) {
    const network::RoutingTrace layer = network::of_layer(trace, -1);
    const network::RoutingExchange most = network::largest_exchange(layer, -1);
    std::int64_t tokens = 0;
    for (const network::RoutingExchange& e : layer.exchanges) tokens += e.tokens();
    require(tokens == layer.tokens() && tokens <= trace.tokens());
    require(network::only(layer, most).tokens() == most.tokens() && most.tokens() > 0);
  }
  if (trace.ranks > 512) return 0;  // counts are ranks x ranks
  try {
    const network::MoeCounts counts = network::count_tokens(trace, 8);
    std::int64_t pairs = 0;
    for (const std::int64_t n : counts.pairs) pairs += n;
    require(pairs == trace.tokens() * trace.topk);
  } catch (const Error& e) {
    require(e.code() == Code::kUsage && trace.experts % trace.ranks != 0);
  }
  return 0;
}
