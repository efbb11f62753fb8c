// The capacities of a network as a flow sees them: four per GPU (NVLink out and in, NIC out and
// in), two per link between switches, one for each direction, and where NICs have several ports two
// for each of those, which share the NIC's rate alike.
//
// Rates are those achieved, not nominal ones, and latencies those measured end to end on the
// CPU side for 64 bytes: InfiniBand 2.8 us below one leaf and 3.7 us across leaves, RoCE 3.6 and
// 5.6. Two more switches cost the difference, so one switch is half of it (0.45 and 1.0 us), and
// what remains below one leaf is the endpoints' (2.35 and 2.6 us). NVLink takes 3.33 us.
//
// Owns:    its capacities.
// Threads: immutable after construction.
// Errors:  kUsage from the constructor for rates that are not positive.
// Paper:   Insights into DeepSeek-V3 (ISCA'25), Table 5 and sections 4.3 and 5.1.2.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "network/faults.h"
#include "network/topology.h"

namespace cachalot::network {

struct Rates {
  double nic_gbs = 40;      // a 400G NIC, all its ports: 50 nominal, 40 effective
  double trunk_gbs = 50;    // a 400G link between switches, nominal
  double nvlink_gbs = 160;  // one way, of 200 nominal
  double endpoint_us = 2.35;
  double switch_us = 0.45;
  double nvlink_us = 3.33;
};
Rates infiniband_rates();
Rates roce_rates();

class Fabric {
 public:
  Fabric(const Topology& topology, const Rates& rates, const Damage& damage);

  int nvlink_out(int gpu) const noexcept { return 4 * gpu; }
  int nvlink_in(int gpu) const noexcept { return 4 * gpu + 1; }
  int nic_out(int gpu) const noexcept { return 4 * gpu + 2; }
  int nic_in(int gpu) const noexcept { return 4 * gpu + 3; }
  // Direction 0: from link.a to link.b.
  int trunk(int link, int direction) const noexcept { return 4 * gpus_ + 2 * link + direction; }
  // Of NICs with several ports; the only port of a NIC is the NIC.
  int port_out(int gpu, int port) const noexcept {
    return ports_ == 1 ? nic_out(gpu) : first_port_ + 2 * (gpu * ports_ + port);
  }
  int port_in(int gpu, int port) const noexcept { return port_out(gpu, port) + 1; }
  int nic_ports() const noexcept { return ports_; }

  const std::vector<double>& capacity() const noexcept { return capacity_; }  // bytes/s; 0: down
  std::string name(int resource) const;
  const Rates& rates() const noexcept { return rates_; }
  const Topology& topology() const noexcept { return *topology_; }
  bool nic_up(int gpu) const noexcept {
    return capacity_[static_cast<std::size_t>(nic_out(gpu))] > 0;
  }
  bool port_up(int gpu, int port) const noexcept {
    return capacity_[static_cast<std::size_t>(port_out(gpu, port))] > 0;
  }

  // Seconds before the first byte arrives.
  double wire_latency(int switches) const noexcept {
    return 1e-6 * (rates_.endpoint_us + rates_.switch_us * switches);
  }
  double nvlink_latency() const noexcept { return 1e-6 * rates_.nvlink_us; }

 private:
  const Topology* topology_;
  Rates rates_;
  int gpus_, ports_, first_port_;
  std::vector<double> capacity_;
};

}  // namespace cachalot::network
