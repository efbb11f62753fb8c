#include "network/published.h"

#include <fmt/format.h>
#include <cmath>

#include <algorithm>

#include "base/error.h"
#include "base/grouped.h"
#include "network/topology_parts.h"

namespace cachalot::network {

namespace {

TopologySpec spec_of(Kind kind) {
  TopologySpec spec;
  spec.kind = kind;
  return spec;
}

TopologySpec dragonfly_of(int groups) {
  TopologySpec spec = spec_of(Kind::kDragonfly);
  spec.groups = groups;
  return spec;
}

TopologySpec slim_fly_of(int q) {
  TopologySpec spec = spec_of(Kind::kSlimFly);
  spec.q = q;
  return spec;
}

// `value` with as many decimals as the printed text has.
std::string with_digits_of(double value, std::string_view printed) {
  const std::size_t point = printed.find('.');
  const int decimals =
      point == std::string_view::npos ? 0 : static_cast<int>(printed.size() - point - 1);
  if (decimals == 0) return grouped(std::llround(value));
  return fmt::format("{:.{}f}", value, decimals);
}

Bill bill_of_spec(const TopologySpec& spec, std::string& note) {
  SlimFlyCounts counts;
  if (spec.kind == Kind::kSlimFly && slim_fly_counts(spec.q, counts) && !counts.exists) {
    int below = spec.q, above = spec.q;
    SlimFlyCounts low, high;
    while (!slim_fly_counts(--below, low) || !low.exists) {
    }
    while (!slim_fly_counts(++above, high) || !high.exists) {
    }
    note =
        cat("q = ", spec.q,
            " is no prime power, so no such graph is known; counted by formula. Realisable: q = ",
            below, " (", low.ports, " ports, ", grouped(low.endpoints), " endpoints), q = ", above,
            " (", high.ports, " ports, ", grouped(high.endpoints), " endpoints)");
    return {counts.endpoints, counts.switches, counts.links, 0, counts.endpoints};
  }
  const Topology topology = build(spec);
  if (!topology.notes.empty()) note = topology.notes[0];
  return bill_of(topology);
}

}  // namespace

std::span<const PublishedNetwork> table3() {
  static const PublishedNetwork kTable[] = {
      {"FT2", spec_of(Kind::kFt2), 2'048, 96, 2'048, "9", "4.39"},
      {"MPFT", spec_of(Kind::kMpft), 16'384, 768, 16'384, "72", "4.39"},
      {"FT3", spec_of(Kind::kFt3), 65'536, 5'120, 131'072, "491", "7.5"},
      {"SF", slim_fly_of(28), 32'928, 1'568, 32'928, "146", "4.4"},
      {"DF", dragonfly_of(511), 261'632, 16'352, 384'272, "1,522", "5.8"},
  };
  return kTable;
}

std::vector<ComparedNetwork> compare_table3(const Prices& prices) {
  std::vector<ComparedNetwork> rows;
  for (const PublishedNetwork& published : table3()) {
    ComparedNetwork row;
    row.published = &published;
    row.bill = bill_of_spec(published.spec, row.note);
    const double cost = cost_usd(row.bill, prices);
    row.cost_millions = with_digits_of(cost / 1e6, published.cost_millions);
    row.cost_per_endpoint = with_digits_of(cost / 1e3 / static_cast<double>(row.bill.endpoints),
                                           published.cost_per_endpoint);
    row.counts_agree = row.bill.endpoints == published.endpoints &&
                       row.bill.switches == published.switches &&
                       row.bill.links() == published.links;
    row.costs_agree = row.cost_millions == published.cost_millions &&
                      row.cost_per_endpoint == published.cost_per_endpoint;
    rows.push_back(std::move(row));
  }
  return rows;
}

std::span<const PublishedExchange> deepep_normal() {
  static constexpr PublishedExchange kFigures[] = {
      {16, 43.05, 42.47}, {32, 58.02, 56.96}, {64, 50.58, 48.54}, {128, 45.34, 41.6}};
  return kFigures;
}

std::span<const PublishedLowLatency> deepep_low_latency() {
  static constexpr PublishedLowLatency kFigures[] = {{8, 77, 114},    {16, 118, 195},
                                                     {32, 155, 273},  {64, 173, 314},
                                                     {128, 192, 369}, {256, 194, 360}};
  return kFigures;
}

}  // namespace cachalot::network
