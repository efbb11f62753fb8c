#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <simgrid/s4u.hpp>
#include <string>

#include "network/flow_sim_parts.h"

namespace cachalot::network {

namespace sg = simgrid::s4u;

namespace {

struct Start {
  double time;
  double* finish;
  sg::CommPtr comm;
};

// One part's links, one host per distinct path, and its comms, not started yet.
void declare(sg::NetZone* zone, sg::Host* sink, const FlowPart& part, const std::string& prefix,
             double*& finish, std::vector<Start>& starts) {
  std::vector<sg::LinkInRoute> links;
  links.reserve(part.capacity.size());
  for (std::size_t l = 0; l < part.capacity.size(); ++l) {
    links.emplace_back(
        zone->create_link(prefix + "l" + std::to_string(l), part.capacity[l])->seal());
  }
  std::map<std::vector<int>, sg::Host*> hosts;
  for (const PartFlow& flow : part.flows) {
    sg::Host*& host = hosts[flow.path];
    if (host == nullptr) {
      host = zone->create_host(prefix + "h" + std::to_string(hosts.size()), 1e9);
      std::vector<sg::LinkInRoute> route;
      for (const int link : flow.path) route.push_back(links[static_cast<std::size_t>(link)]);
      zone->add_route(host->get_netpoint(), nullptr, nullptr, nullptr, route, false);
      host->seal();
    }
    sg::CommPtr comm = sg::Comm::sendto_init(host, sink);
    comm->set_payload_size(static_cast<std::uint64_t>(flow.bytes));
    starts.push_back({flow.latency, finish++, comm});
  }
}

}  // namespace

void run_simgrid(std::span<const FlowPart* const> parts, double precision, double* finish) {
  std::string arguments[] = {"cachalot",
                             "--log=root.thres:critical",
                             "--cfg=network/model:CM02",
                             "--cfg=network/crosstraffic:0",
                             "--cfg=network/TCP-gamma:0",
                             "--cfg=network/latency-factor:1",
                             "--cfg=network/bandwidth-factor:1",
                             "--cfg=network/weight-S:0",
                             "--cfg=network/optim:Lazy",
                             "--cfg=maxmin/precision:1e-9",
                             fmt::format("--cfg=surf/precision:{:g}", precision)};
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  int argc = static_cast<int>(argv.size()) - 1;
  sg::Engine engine(&argc, argv.data());

  sg::NetZone* zone = sg::create_star_zone("network");
  sg::Host* sink = zone->create_host("sink", 1e9);
  sink->seal();
  std::vector<Start> starts;
  for (std::size_t p = 0; p < parts.size(); ++p) {
    declare(zone, sink, *parts[p], "p" + std::to_string(p), finish, starts);
  }
  zone->seal();
  std::stable_sort(starts.begin(), starts.end(),
                   [](const Start& a, const Start& b) { return a.time < b.time; });
  sg::Actor::create("starter", sink, [&starts] {
    for (Start& start : starts) {
      if (start.time > sg::Engine::get_clock()) sg::this_actor::sleep_until(start.time);
      start.comm->start();
    }
    for (Start& start : starts) {
      start.comm->wait();  // may have ended long ago: the time of the wait says nothing
      *start.finish = start.comm->get_finish_time();
    }
  });
  engine.run();
}

}  // namespace cachalot::network
