// Any text as a price file, and as a list of faults: a clear Error, or values that give the same
// text again. The list of faults is what follows a NUL byte.
// Links: network
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "network/faults.h"
#include "network/prices.h"

static void require(bool truth) {
  if (!truth) std::abort();
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cachalot;  // NOLINT: a fuzzer of one room
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::size_t nul = std::min(text.find('\0'), size);
  try {
    network::Prices prices = network::parse_prices(text.substr(0, nul), "fuzz");
    const std::string dump = to_toml(fields_of(prices));
    require(network::parse_prices(dump, "again") == prices);
    require(std::isfinite(network::cost_usd({1'000'000, 1'000'000, 1'000'000, 1'000'000}, prices)));
  } catch (const Error& e) {
    require(e.code() == Code::kFormat || e.code() == Code::kConfig || e.code() == Code::kUsage);
    require(std::string_view(e.what()).starts_with("fuzz"));
  }
  if (nul == size) return 0;
  try {
    for (const network::Fault& fault : network::parse_faults(text.substr(nul + 1))) {
      require(fault.amount >= 0 && std::isfinite(fault.amount));
    }
  } catch (const Error& e) {
    require(e.code() == Code::kUsage);
  }
  return 0;
}
