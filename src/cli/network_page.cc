#include "cli/network_page.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "network/graph_metrics.h"

namespace cachalot::cli {

namespace {

report::GridPoint counts_of(const network::TopologySpec& spec, const network::Prices& prices) {
  const network::Topology topology = network::build(spec);
  const network::Bill bill = network::bill_of(topology);
  const double cost = network::cost_usd(bill, prices);
  const auto endpoints = static_cast<double>(bill.endpoints);
  const std::int64_t cut = network::bisection(topology);
  report::GridPoint point;
  const bool priced = cost > 0;  // prices of 0 are none
  const auto price = [&](const char* unit, double amount) {
    return priced ? fmt::format("{:.3f} {}", amount, unit) : std::string("no price");
  };
  point.numbers = {priced ? cost / endpoints / 1e3 : report::kNothing,
                   static_cast<double>(bill.switches)};
  point.texts = {price("M$", cost / 1e6),
                 price("k$", cost / endpoints / 1e3),
                 fmt::format("{}", bill.switches),
                 fmt::format("{}", bill.links()),
                 fmt::format("{} links", cut),
                 fmt::format("{:.3f}", network::per_endpoint_of_half(cut, bill.endpoints)),
                 fmt::format("{} links", network::diameter(topology)),
                 fmt::format("{}", topology.capacity)};
  if (!priced) point.note = "No price: what this network is made of costs 0 by the prices below.";
  return point;
}

}  // namespace

void add_html_planes_flag(CLI::App& command, std::vector<int>& planes) {
  command
      .add_option("--html-planes", planes,
                  "Planes that the slider of --html offers for an mpft, each simulated; by default "
                  "1, 2, 4... up to the GPUs of a node")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024))
      ->type_name("N,N,...");
}

std::vector<int> plane_positions(const std::vector<int>& asked, const network::TopologySpec& spec) {
  std::vector<int> positions = asked;
  for (int p = 1; asked.empty() && p <= spec.gpus_per_node; p *= 2) positions.push_back(p);
  positions.push_back(spec.planes);
  std::sort(positions.begin(), positions.end());
  positions.erase(std::unique(positions.begin(), positions.end()), positions.end());
  return positions;
}

report::Axis planes_axis(const std::vector<int>& positions, int start) {
  report::Axis axis{"planes", {}, 0};
  for (std::size_t i = 0; i < positions.size(); ++i) {
    axis.texts.push_back(fmt::format("{}", positions[i]));
    if (positions[i] == start) axis.start = i;
  }
  return axis;
}

report::GridPoint grid_point_or_why(const report::WhatIf& shape,
                                    const std::function<report::GridPoint()>& point) {
  try {
    return point();
  } catch (const Error& e) {
    report::GridPoint none;
    none.numbers.assign(shape.measures.size(), report::kNothing);
    none.texts.assign(shape.readouts.size(), "-");
    none.note = e.what();
    return none;
  }
}

report::WhatIf planes_what_if(const network::TopologySpec& spec, const network::Prices& prices) {
  network::TopologySpec mpft = spec;
  mpft.kind = network::Kind::kMpft;
  const std::vector<int> planes = plane_positions({}, mpft);
  // A plane's ports, over those that an endpoint takes of all planes.
  const std::int64_t plane = std::int64_t{mpft.ports} * mpft.ports / 2 / mpft.nic_ports;
  const std::int64_t own = spec.endpoints > 0 ? spec.endpoints : plane * mpft.planes;
  std::vector<std::int64_t> endpoints = {own};
  for (const int p : planes) {
    // As many as fill so many planes, where that is quickly counted.
    if (plane * p <= 65'536 && plane * p != own) endpoints.push_back(plane * p);
  }
  std::sort(endpoints.begin(), endpoints.end());
  report::WhatIf w;
  w.title = spec.kind == network::Kind::kMpft
                ? "What if there were more or fewer planes"
                : "What if these GPUs hung in planes of two-layer fat trees (mpft)";
  w.text = fmt::format(
      "Networks of {}-port switches, nodes of {} GPUs, at the prices below; each built and counted "
      "when this page was written.",
      mpft.ports, mpft.gpus_per_node);
  w.axes = {planes_axis(planes, mpft.planes), {"endpoints", {}, 0}};
  for (std::size_t i = 0; i < endpoints.size(); ++i) {
    w.axes[1].texts.push_back(fmt::format("{}", endpoints[i]));
    if (endpoints[i] == own) w.axes[1].start = i;
  }
  w.readouts = {"cost",      "cost of an endpoint",
                "switches",  "links between switches",
                "bisection", "bisection per endpoint of one half",
                "diameter",  "endpoints that fit"};
  w.measures = {"cost of an endpoint, k$", "switches"};
  for (const int p : planes) {
    for (const std::int64_t e : endpoints) {
      mpft.planes = p;
      mpft.endpoints = e;
      w.points.push_back(grid_point_or_why(w, [&] { return counts_of(mpft, prices); }));
    }
  }
  return w;
}

std::vector<std::string> limit_marks() {
  return {"NIC", "NVLink", "link between switches", "latency and shared ways"};
}

report::Mark resource_mark(const std::string& resource) {
  return resource.starts_with("NIC") ? 0 : resource.starts_with("NVLink") ? 1 : 2;
}

report::Mark limit_mark(const network::SimulateResult& result) {
  if (result.busiest.empty() || 2 * result.busiest.front().seconds < result.seconds) return 3;
  return resource_mark(result.busiest.front().what);
}

Json limit_name(const network::SimulateResult& result) {
  if (!result.finishes()) return nullptr;
  return limit_marks()[static_cast<std::size_t>(limit_mark(result))];
}

report::Mark limit_mark(const Json& name) {
  if (!name.is_string()) return -1;
  const std::vector<std::string> marks = limit_marks();
  return static_cast<report::Mark>(std::ranges::find(marks, name.get<std::string>()) -
                                   marks.begin());
}

report::Section topology_assumptions(const network::Prices& prices) {
  return {"Assumptions and sources",
          {report::Facts{
              {{"counts", "the graph itself, built switch by switch and link by link"},
               {"bisection",
                "maximum flow between two halves of the endpoints: exact for fat trees, "
                "for dragonfly and Slim Fly the smallest cut found"},
               {"prices", prices.source},
               {"switch", fmt::format("{} $", prices.switch_usd)},
               {"link between switches", fmt::format("{} $, within a dragonfly group {} $",
                                                     prices.trunk_link_usd, prices.local_link_usd)},
               {"link to an endpoint", fmt::format("{} $ a port", prices.endpoint_link_usd)}}}}};
}

report::Section simulation_assumptions(const network::Rates& rates) {
  return {
      "Assumptions and sources",
      {report::Facts{
          {{"flows",
            "links are shared by max-min fairness (SimGrid); packets, queues, losses "
            "and congestion control are not modelled"},
           {"NIC", fmt::format("{:g} GB/s each way; 40 is what a 400G NIC reached in "
                               "\"Insights into DeepSeek-V3\" (ISCA'25) 4.3, 50 nominal",
                               rates.nic_gbs)},
           {"link between switches", fmt::format("{:g} GB/s", rates.trunk_gbs)},
           {"NVLink", fmt::format("{:g} GB/s each way; 160 measured (ISCA'25 4.3), 153 and 158 in "
                                  "DeepEP's dispatch and combine inside one node, 98 and 127 in "
                                  "its low-latency ones",
                                  rates.nvlink_gbs)},
           {"latency", fmt::format("{:g} us of the ends, {:g} us of a switch, {:g} us of NVLink "
                                   "(ISCA'25 table 5)",
                                   rates.endpoint_us, rates.switch_us, rates.nvlink_us)},
           {"limited by",
            "the busiest NIC, NVLink or link; where even that is idle for more "
            "than half of the time, latency and flows that wait for one another"},
           {"failures", "the state after routing has found its ways again"}}}}};
}

}  // namespace cachalot::cli
