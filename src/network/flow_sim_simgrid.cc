#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <simgrid/s4u.hpp>
#include <string>

#include "network/flow_sim_parts.h"

namespace cachalot::network {

namespace sg = simgrid::s4u;

namespace {

// A flow is a message between actors of SimGrid, and each actor has so many of them. SimGrid lists
// what an actor has under way, and goes through the whole list for each message that ends; what
// belongs to no actor (Comm::sendto) is in one list for all. With that the time went with the
// square of the flows.
constexpr std::size_t kFlowsOfAnActor = 64;
constexpr double kForever = 1e9;  // seconds

struct Start {
  double time;
  double* finish;
  sg::Host* from;
  std::uint64_t bytes;
};

// One part's links, one host per distinct path, and its comms, not started yet.
void declare(sg::NetZone* zone, const FlowPart& part, const std::string& prefix, double*& finish,
             std::vector<Start>& starts) {
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
    starts.push_back({flow.latency, finish++, host, static_cast<std::uint64_t>(flow.bytes)});
  }
}

// Takes in as many messages as its partner sends. Ends with the simulation: whatever it waited for
// would wake it each time, and to a suspended actor nothing flows.
void receive(sg::Mailbox* box, std::size_t count) {
  std::vector<void*> messages(count);
  std::vector<sg::CommPtr> comms;
  for (void*& message : messages) comms.push_back(box->get_async(&message));
  sg::this_actor::sleep_for(kForever);
}

// From host to host: a message leaves where its sender is when it begins.
void send(sg::Mailbox* box, std::span<const Start> flows) {
  std::vector<sg::CommPtr> comms;
  int message = 0;
  for (const Start& flow : flows) {
    if (flow.time > sg::Engine::get_clock()) sg::this_actor::sleep_until(flow.time);
    sg::this_actor::set_host(flow.from);
    comms.push_back(box->put_async(&message, flow.bytes));
  }
  for (std::size_t f = 0; f < flows.size(); ++f) {
    comms[f]->wait();  // may have ended long ago: the time of the wait says nothing
    *flows[f].finish = comms[f]->get_finish_time();
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
                             "--cfg=contexts/stack-size:64",
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
    declare(zone, *parts[p], "p" + std::to_string(p), finish, starts);
  }
  zone->seal();
  std::stable_sort(starts.begin(), starts.end(),
                   [](const Start& a, const Start& b) { return a.time < b.time; });
  for (std::size_t begin = 0; begin < starts.size(); begin += kFlowsOfAnActor) {
    const std::size_t count = std::min(kFlowsOfAnActor, starts.size() - begin);
    sg::Mailbox* const box = sg::Mailbox::by_name(std::to_string(begin));
    sg::Actor::create("receiver", sink, receive, box, count)->daemonize();
    sg::Actor::create("sender", sink, send, box,
                      std::span<const Start>(starts).subspan(begin, count));
  }
  engine.run();
}

}  // namespace cachalot::network
