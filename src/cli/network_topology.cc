// cachalot network topology: counts, price and picture of a network. cachalot network compare: the
// published table beside what is computed here.
#include <fmt/format.h>

#include "base/atomic_file.h"
#include "cli/html_page.h"
#include "cli/network_options.h"
#include "cli/network_page.h"
#include "cli/output_file.h"
#include "network/drawing.h"
#include "network/graph_metrics.h"
#include "network/published.h"
#include "report/text.h"

namespace cachalot::cli {

namespace {

struct TopologyOptions {
  NetworkOptions network;
  std::string prices, svg, html;
};

Json prices_json(const network::Prices& prices) {
  return {{"source", prices.source},
          {"switch_usd", prices.switch_usd},
          {"trunk_link_usd", prices.trunk_link_usd},
          {"local_link_usd", prices.local_link_usd},
          {"endpoint_link_usd", prices.endpoint_link_usd}};
}

Json to_json(const network::Topology& topology, const network::Prices& prices) {
  const network::Bill bill = network::bill_of(topology);
  const double cost = network::cost_usd(bill, prices);
  return {{"kind", network::name(topology.spec.kind)},
          {"ports", topology.spec.ports},
          {"ports_used", topology.ports_used},
          {"planes", topology.planes},
          {"nic_ports", topology.spec.nic_ports},
          {"gpus_per_node", topology.spec.gpus_per_node},
          {"groups", topology.spec.groups},
          {"q", topology.spec.q},
          {"endpoints", bill.endpoints},
          {"capacity", topology.capacity},
          {"nodes", topology.nodes()},
          {"switches", bill.switches},
          {"leaves", topology.count(network::Tier::kLeaf)},
          {"spines", topology.count(network::Tier::kSpine)},
          {"cores", topology.count(network::Tier::kCore)},
          {"links", bill.links()},
          {"trunk_links", bill.trunk_links},
          {"local_links", bill.local_links},
          {"endpoint_links", bill.endpoint_links},
          {"diameter", network::diameter(topology)},
          {"bisection_links", network::bisection(topology)},
          {"cost", money_json(cost)},
          {"cost_per_endpoint", money_json(cost / static_cast<double>(bill.endpoints))},
          {"prices", prices_json(prices)},
          {"notes", topology.notes}};
}

report::Facts facts_of(const Json& r) {
  report::Facts facts;
  const auto line = [&](const char* what, const std::string& value) {
    facts.items.emplace_back(what, value);
  };
  const auto number = [&](const char* key) {
    return fmt::format("{}", r[key].get<std::int64_t>());
  };
  line("kind", r["kind"].get<std::string>());
  line("endpoints", fmt::format("{} ({} fit)", number("endpoints"), number("capacity")));
  line("nodes", fmt::format("{} of {} GPUs", number("nodes"), number("gpus_per_node")));
  line("planes", r["nic_ports"] == 1 ? number("planes")
                                     : fmt::format("{}, each NIC in {} of them", number("planes"),
                                                   number("nic_ports")));
  line("switches", fmt::format("{} ({} leaf, {} spine, {} core), {} of {} ports used",
                               number("switches"), number("leaves"), number("spines"),
                               number("cores"), number("ports_used"), number("ports")));
  line("links",
       fmt::format("{} between switches ({} trunk, {} local), {} to endpoints", number("links"),
                   number("trunk_links"), number("local_links"), number("endpoint_links")));
  line("diameter", fmt::format("{} links between switches", number("diameter")));
  line("bisection",
       fmt::format("{} links, {:.3f} per endpoint of one half", number("bisection_links"),
                   network::per_endpoint_of_half(r["bisection_links"].get<std::int64_t>(),
                                                 r["endpoints"].get<std::int64_t>())));
  line("cost", r["cost"].is_null()
                   ? std::string("no price")
                   : fmt::format("{:.3f} M$, {:.3f} k$ per endpoint", r["cost"].get<double>() / 1e6,
                                 r["cost_per_endpoint"].get<double>() / 1e3));
  line("prices", r["prices"]["source"].get<std::string>());
  for (const auto& note : r["notes"]) line("note", note.get<std::string>());
  return facts;
}

report::Page page_of(const network::Topology& topology, const Json& result,
                     const network::Prices& prices) {
  report::Page page;
  page.title =
      fmt::format("Network {} of {} GPUs", network::name(topology.spec.kind), topology.endpoints());
  page.summary = "Counts, bisection, diameter and price of a network, and its picture.";
  page.sections = {{"Network",
                    {facts_of(result), report::Drawing{"The network's switches and links",
                                                       network::draw_topology(topology)}}},
                   {"What if", {planes_what_if(topology.spec, prices)}},
                   topology_assumptions(prices)};
  page.result = result;
  return page;
}

void run_topology(const TopologyOptions& options, const Globals& globals) {
  check_output_file("--svg", options.svg);
  check_output_file("--html", options.html);
  const network::Topology topology = network::build(options.network.spec());
  const network::Prices prices = prices_of(options.prices);
  const Json result = to_json(topology, prices);
  if (!options.svg.empty()) {
    write_file_atomically(options.svg, network::draw_topology(topology));
  }
  if (!options.html.empty()) {
    write_html(options.html, page_of(topology, result, prices), globals);
  }
  if (globals.json) {
    print_json(result);
  } else {
    print(report::text(facts_of(result)));
  }
}

struct CompareOptions {
  std::string prices, html;
};

report::Table compared_table(const Json& rows) {
  report::Table table{"",
                      {{"network", false},
                       {"endpoints"},
                       {"switches"},
                       {"links"},
                       {"M$"},
                       {"k$/endp."},
                       {"against the published table", false}},
                      {}};
  for (const Json& r : rows) {
    const Json& printed = r["published"];
    const bool costs = r["costs_agree"].get<bool>();
    table.rows.push_back(
        {r["network"].get<std::string>(), r["endpoints"].dump(), r["switches"].dump(),
         r["links"].dump(), r["cost_millions"].get<std::string>(),
         r["cost_per_endpoint_thousands"].get<std::string>(),
         fmt::format(
             "counts {}, costs {}", r["counts_agree"].get<bool>() ? "agree" : "differ",
             costs ? "agree"
                   : fmt::format("differ (printed {} and {})",
                                 printed["cost_millions"].get<std::string>(),
                                 printed["cost_per_endpoint_thousands"].get<std::string>()))});
  }
  return table;
}

std::vector<std::string> compared_notes(const Json& rows, const network::Prices& prices) {
  std::vector<std::string> lines;
  for (const Json& r : rows) {
    const auto note = r["note"].get<std::string>();
    if (!note.empty())
      lines.push_back(fmt::format("{}: {}.", r["network"].get<std::string>(), note));
  }
  lines.push_back(fmt::format("prices: {} (switch {} $, trunk {} $, local {} $, endpoint {} $)",
                              prices.source, prices.switch_usd, prices.trunk_link_usd,
                              prices.local_link_usd, prices.endpoint_link_usd));
  return lines;
}

report::Page compared_page(const Json& rows, const network::Prices& prices) {
  report::Chart chart{report::Chart::Kind::kBars,
                      "Price of an endpoint",
                      "network",
                      "k$",
                      {},
                      {},
                      false,
                      true,
                      {{"computed", {}, {}}, {"published", {}, {}}}};
  for (const Json& r : rows) {
    chart.categories.push_back(r["network"].get<std::string>());
    chart.series[0].values.push_back(
        std::stod(r["cost_per_endpoint_thousands"].get<std::string>()));
    chart.series[1].values.push_back(
        std::stod(r["published"]["cost_per_endpoint_thousands"].get<std::string>()));
  }
  report::Page page;
  page.title = "Networks beside the published table";
  page.summary = "Counts and costs beside table 3 of \"Insights into DeepSeek-V3\" (ISCA'25).";
  report::Section table{"Networks", {compared_table(rows), chart}};
  for (const std::string& line : compared_notes(rows, prices)) {
    table.items.emplace_back(report::Paragraph{line});
  }
  page.sections = {std::move(table),
                   {"What if", {planes_what_if(network::TopologySpec{}, prices)}},
                   topology_assumptions(prices)};
  return page;
}

void run_compare(const CompareOptions& options, const Globals& globals) {
  check_output_file("--html", options.html);
  const network::Prices prices = prices_of(options.prices);
  Json rows = Json::array();
  for (const network::ComparedNetwork& row : network::compare_table3(prices)) {
    rows.push_back({{"network", row.published->label},
                    {"endpoints", row.bill.endpoints},
                    {"switches", row.bill.switches},
                    {"links", row.bill.links()},
                    {"cost_millions", row.cost_millions},
                    {"cost_per_endpoint_thousands", row.cost_per_endpoint},
                    {"published",
                     {{"endpoints", row.published->endpoints},
                      {"switches", row.published->switches},
                      {"links", row.published->links},
                      {"cost_millions", row.published->cost_millions},
                      {"cost_per_endpoint_thousands", row.published->cost_per_endpoint}}},
                    {"counts_agree", row.counts_agree},
                    {"costs_agree", row.costs_agree},
                    {"note", row.note}});
  }
  const Json result = {{"networks", rows}, {"prices", prices_json(prices)}};
  if (!options.html.empty()) {
    report::Page page = compared_page(rows, prices);
    page.result = result;
    write_html(options.html, std::move(page), globals);
  }
  if (globals.json) {
    print_json(result);
    return;
  }
  print(report::text(compared_table(rows)));
  for (const std::string& line : compared_notes(rows, prices)) print_line(line);
}

}  // namespace

void add_network_topology(CLI::App& group, Globals& globals) {
  CLI::App* command =
      add_command(group, globals, "topology",
                  "Endpoints, switches, links, bisection, diameter and cost of a network");
  auto options = std::make_shared<TopologyOptions>();
  add_network_flags(*command, options->network);
  command
      ->add_option("--prices", options->prices, "Unit prices (TOML) instead of the built-in ones")
      ->type_name("FILE");
  add_output_file(*command, "--svg", options->svg, "Draw the network into this file");
  add_html_flag(*command, options->html);
  on_run(command, globals, options, run_topology);
}

void add_network_compare(CLI::App& group, Globals& globals) {
  CLI::App* command =
      add_command(group, globals, "compare",
                  "Counts and costs beside ISCA'25 Table 3, with what does not agree");
  auto options = std::make_shared<CompareOptions>();
  command
      ->add_option("--prices", options->prices, "Unit prices (TOML) instead of the built-in ones")
      ->type_name("FILE");
  add_html_flag(*command, options->html);
  on_run(command, globals, options, run_compare);
}

}  // namespace cachalot::cli
