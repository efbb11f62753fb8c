#include "network/prices.h"

#include <set>

#include "base/atomic_file.h"
#include "base/error.h"
#include "io/toml.h"

namespace cachalot::network {

void Prices::fields(FieldVisitor& f) {
  constexpr double kMost = 1e9;
  f("source", source, "where the prices come from");
  f("switch_usd", switch_usd, 0.0, kMost, "one switch, in dollars");
  f("trunk_link_usd", trunk_link_usd, 0.0, kMost,
    "one link between switches: cable and both transceivers");
  f("local_link_usd", local_link_usd, 0.0, kMost, "one link within a dragonfly group");
  f("endpoint_link_usd", endpoint_link_usd, 0.0, kMost,
    "one link from an endpoint to its switch; the NIC is not counted");
}

Prices parse_prices(std::string_view text, const std::string& file_name) {
  Prices prices;
  const auto fields = fields_of(prices);
  std::set<std::string> given;
  for (const io::TomlEntry& entry : io::parse_toml(text, file_name)) {
    assign(fields, entry.path, entry.value, cat(file_name, ":", entry.line), Code::kConfig);
    given.insert(entry.path);
  }
  std::string missing;
  for (const Field& field : fields) {
    if (!given.contains(field.path)) missing += cat(missing.empty() ? "" : ", ", field.path);
  }
  if (!missing.empty()) {
    throw Error(Code::kConfig,
                cat(file_name, ": ", missing, missing.find(',') == missing.npos ? " is" : " are",
                    " missing; a file of prices says all of them, and where they come from, since "
                    "prices of several sources say nothing in sum (hardware/prices/network.toml is "
                    "one)."));
  }
  return prices;
}

Prices load_prices(const std::filesystem::path& file) {
  return parse_prices(read_file(file, /*max_bytes=*/1 << 20), file.string());
}

Bill bill_of(const Topology& topology) {
  return {topology.endpoints(), static_cast<std::int64_t>(topology.switches.size()),
          topology.count(LinkClass::kTrunk), topology.count(LinkClass::kLocal),
          static_cast<std::int64_t>(topology.attach.size())};
}

double cost_usd(const Bill& bill, const Prices& prices) {
  return static_cast<double>(bill.switches) * prices.switch_usd +
         static_cast<double>(bill.trunk_links) * prices.trunk_link_usd +
         static_cast<double>(bill.local_links) * prices.local_link_usd +
         static_cast<double>(bill.endpoint_links) * prices.endpoint_link_usd;
}

}  // namespace cachalot::network
