#include "network/fabric.h"

#include "base/error.h"

namespace cachalot::network {

Rates infiniband_rates() { return {}; }

Rates roce_rates() {
  Rates rates;
  rates.endpoint_us = 2.6;
  rates.switch_us = 1.0;
  return rates;
}

Fabric::Fabric(const Topology& topology, const Rates& rates, const Damage& damage)
    : topology_(&topology),
      rates_(rates),
      gpus_(static_cast<int>(topology.endpoints())),
      ports_(topology.spec.nic_ports),
      first_port_(4 * gpus_ + 2 * static_cast<int>(topology.links.size())) {
  for (const double gbs : {rates.nic_gbs, rates.trunk_gbs, rates.nvlink_gbs}) {
    if (!(gbs > 0 && gbs < 1e6)) {
      throw Error(Code::kUsage,
                  cat("a link of ", gbs, " GB/s: rates must be above 0 and below 1,000,000 GB/s."));
    }
  }
  capacity_.resize(static_cast<std::size_t>(first_port_) +
                   (ports_ > 1 ? 2 * topology.attach.size() : 0));
  for (int gpu = 0; gpu < gpus_; ++gpu) {
    const bool down = damage.nic_down[static_cast<std::size_t>(gpu)] != 0;
    const double nic = down ? 0 : rates.nic_gbs * 1e9;
    capacity_[static_cast<std::size_t>(nvlink_out(gpu))] = rates.nvlink_gbs * 1e9;
    capacity_[static_cast<std::size_t>(nvlink_in(gpu))] = rates.nvlink_gbs * 1e9;
    capacity_[static_cast<std::size_t>(nic_out(gpu))] = nic;
    capacity_[static_cast<std::size_t>(nic_in(gpu))] = nic;
    for (int port = 0; ports_ > 1 && port < ports_; ++port) {
      const bool port_down = down || damage.port_down[topology.port(gpu, port)] != 0;
      for (const int r : {port_out(gpu, port), port_in(gpu, port)}) {
        capacity_[static_cast<std::size_t>(r)] = port_down ? 0 : rates.nic_gbs * 1e9 / ports_;
      }
    }
  }
  for (std::size_t link = 0; link < topology.links.size(); ++link) {
    const double rate = damage.link_down[link] != 0 ? 0 : rates.trunk_gbs * 1e9;
    for (const int direction : {0, 1}) {
      capacity_[static_cast<std::size_t>(trunk(static_cast<int>(link), direction))] = rate;
    }
  }
}

std::string Fabric::name(int resource) const {
  const auto of_gpu = [&](const std::string& part, int gpu) {
    return cat(part, " of GPU ", gpu % topology_->spec.gpus_per_node, ", node ",
               gpu / topology_->spec.gpus_per_node);
  };
  if (resource < 4 * gpus_) {
    const char* const parts[] = {"NVLink out", "NVLink in", "NIC out", "NIC in"};
    return of_gpu(parts[resource % 4], resource / 4);
  }
  if (resource >= first_port_) {
    const int port = (resource - first_port_) / 2;
    return of_gpu(cat("NIC port ", port % ports_, resource % 2 == 0 ? " out" : " in"),
                  port / ports_);
  }
  const int at = (resource - 4 * gpus_) / 2;
  const Link& link = topology_->links[static_cast<std::size_t>(at)];
  const bool back = (resource - 4 * gpus_) % 2 != 0;
  const auto end = [&](int s) {
    return cat(network::name(topology_->switches[static_cast<std::size_t>(s)].tier), " ", s);
  };
  return cat("link ", end(back ? link.b : link.a), " to ", end(back ? link.a : link.b));
}

}  // namespace cachalot::network
