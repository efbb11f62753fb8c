// What a network costs: unit prices from a file, times what its graph has.
//
// The prices that come with Cachalot (hardware/prices/network.toml) reproduce the costs of ISCA
// Table 3. That table cannot say how its sums divide between switches and links: it has three
// independent equations for four unknowns (docs/network.md), so the prices are one choice of many.
// Replace them by one's own.
//
// Threads: plain values.
// Errors:  kConfig, kFormat and kUsage with the file and line; unknown keys name the nearest.
// Paper:   Insights into DeepSeek-V3 (ISCA'25), Table 3.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/fields.h"
#include "network/topology.h"

namespace cachalot::network {

struct Prices {
  std::string source = "one of the sets that reproduce ISCA Table 3; see docs/network.md";
  double switch_usd = 60'000;
  double trunk_link_usd = 1'230;
  double local_link_usd = 1'140;
  double endpoint_link_usd = 347.5;  // of each port of a NIC
  void fields(FieldVisitor& f);
  bool operator==(const Prices&) const = default;
};

Prices parse_prices(std::string_view text, const std::string& file_name);
Prices load_prices(const std::filesystem::path& file);

// What is counted and paid.
struct Bill {
  std::int64_t endpoints = 0, switches = 0, trunk_links = 0, local_links = 0, endpoint_links = 0;
  std::int64_t links() const noexcept { return trunk_links + local_links; }
};
Bill bill_of(const Topology& topology);
double cost_usd(const Bill& bill, const Prices& prices);

}  // namespace cachalot::network
