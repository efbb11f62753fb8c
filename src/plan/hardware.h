// A hardware profile: what a plan needs to know of the machines, each group of figures with the
// source it was read from. Profiles are TOML files (hardware/*.toml); `cachalot plan probe` writes
// one of the machine it runs on.
//
// A figure that is 0, or a list that is empty, is not known: what needs it says so and names the
// key. Units are in the names: tflops 1e12 per second, gbps 1e9 bytes per second and direction, gb
// 1e9 bytes. Peaks are dense (no structured sparsity).
//
// Owns:    its strings and lists; a plain value.
// Threads: values; nothing shared.
// Errors:  kFormat (not TOML), kUsage (a key nobody knows; the nearest right one is named), kConfig
//          (a value out of range, figures that contradict each other or have no source), kIo.
// Paper:   "Insights into DeepSeek-V3" 4.1 to 4.3 and 5.1: which parts of a node bound what.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/embedded_file.h"
#include "base/fields.h"
#include "plan/training_profile.h"

namespace cachalot::plan {

// What products are computed in.
enum class Arithmetic : std::uint8_t { kF32, kBf16, kFp8, kInt8 };
std::string_view name(Arithmetic arithmetic) noexcept;

// One accelerator, or one server whose CPUs compute.
struct DeviceProfile {
  std::string name;
  int per_node = 1;
  int cores = 0;  // streaming multiprocessors, or physical cores
  double f32_tflops = 0;
  double bf16_tflops = 0;
  double fp8_tflops = 0;
  double int8_tflops = 0;  // integer operations
  double memory_gb = 0;
  double memory_gbps = 0;
  double l1_kib = 0;  // of one core
  double l2_mib = 0;  // of one core, or of the device where all cores share it
  double l3_mib = 0;  // of the device
  std::string source;
  void fields(FieldVisitor& f);
};

// Shares of the peaks above that programs reach.
struct AchievedProfile {
  double f32 = 0;  // of large products in that arithmetic
  double bf16 = 0;
  double fp8 = 0;
  double int8 = 0;
  double attention = 0;  // of the bf16 peak, where there is one; else of f32
  double memory = 0;     // of memory_gbps, when weights or a cache are read
  // Prompts read the latent rows themselves, as decoding does, instead of expanding keys and values
  // (this program does so unless told --fast).
  bool absorbed_prefill = false;
  std::string source;
  void fields(FieldVisitor& f);
};

// Products as they were measured, by how many rows (tokens) share one reading of the weights: the
// slow first rows are bound by memory, the last ones by arithmetic. Where a list is there it is
// taken instead of peak and share. Weights in `fp8`, `int8` and `int4` are multiplied in whatever
// arithmetic the measured program uses for them.
struct RatesProfile {
  std::vector<double> rows;
  std::vector<double> f32_gflops;
  std::vector<double> bf16_gflops;
  std::vector<double> fp8_gflops;
  std::vector<double> int8_gflops;
  std::vector<double> int4_gflops;
  std::vector<double> attention_gflops;  // rows: queries times heads that share a cached row
  std::string source;
  void fields(FieldVisitor& f);
};

// Bandwidth of reading memory with so many threads.
struct BandwidthProfile {
  std::vector<double> threads;
  std::vector<double> read_gbps;
  std::string source;
  void fields(FieldVisitor& f);
};

// What a pass costs besides bytes and operations.
struct OverheadProfile {
  double pass_us = 0;   // of a pass over the model
  double layer_us = 0;  // of each of its layers
  std::string source;
  void fields(FieldVisitor& f);
};

struct HostProfile {
  std::string name;
  int sockets = 0;
  int cores = 0;  // physical, of all sockets
  double memory_gb = 0;
  double memory_gbps = 0;
  std::string source;
  void fields(FieldVisitor& f);
};

// Between the devices of a node.
struct LinkProfile {
  std::string name;
  double gbps = 0;           // of one device and direction, by the data sheet
  double achieved_gbps = 0;  // measured; 0: take gbps
  double latency_us = 0;     // of a small message
  std::string source;
  void fields(FieldVisitor& f);
};

// Between nodes.
struct NetworkProfile {
  std::string name;
  int nics_per_node = 0;
  double gbps = 0;           // of one NIC and direction, by the data sheet
  double achieved_gbps = 0;  // of one NIC, measured; 0: take gbps
  double latency_us = 0;     // of a small message, end to end
  int planes = 0;            // separate networks, one NIC of each node in each; 0: not said
  double compute_share = 0;  // of a device's cores, busy with communication while training
  std::string source;
  void fields(FieldVisitor& f);
};

struct DiskProfile {
  double read_mbps = 0;
  double write_mbps = 0;  // until the data are safe (fsync)
  std::string source;
  void fields(FieldVisitor& f);
};

struct PriceProfile {
  double device_hour = 0;  // rent of one device for an hour
  double node_hour = 0;    // of a whole node; one of the two is enough
  std::string currency = "USD";
  std::string source;
  void fields(FieldVisitor& f);
};

struct HardwareProfile {
  std::string name;
  std::string notes;
  DeviceProfile device;
  AchievedProfile achieved;
  RatesProfile rates;
  // The same as whole passes of a model show it, everything between the products counted in:
  // of dense layers by the rows of the pass, of experts by the rows that each one gets.
  RatesProfile pass_rates;
  RatesProfile expert_rates;
  BandwidthProfile bandwidth;
  OverheadProfile overhead;
  HostProfile host;
  LinkProfile link;
  NetworkProfile network;
  DiskProfile disk;
  PriceProfile price;
  TrainingProfile training;
  void fields(FieldVisitor& f);

  // Its CPUs are the device: [host] has the device's name.
  bool is_host() const noexcept { return !host.name.empty() && host.name == device.name; }
  // Peak in FLOP/s (INT8: operations per second); 0: not known.
  double peak(Arithmetic arithmetic) const noexcept;
  // What large products reach in it, FLOP/s: peak times the achieved share (1 where that is not
  // known); 0: not known.
  double product_rate(Arithmetic arithmetic) const noexcept;
  // Attention's products, FLOP/s; 0: not known.
  double attention_rate() const noexcept;
  // Bytes per second that reading memory reaches; 0: not known.
  double read_rate() const noexcept;
  // Bytes per second and direction of one device: inside the node, and through its share of the
  // node's NICs. Measured where that is known. 0: there is no such link.
  double link_rate() const noexcept;
  double network_rate() const noexcept;
  // Money per hour; 0: not known. From one of the two the other follows.
  double device_hour() const noexcept;
  double node_hour() const noexcept;
};

// Devices of so many nodes; kUsage for more than can be counted.
int devices_of(const HardwareProfile& profile, int nodes);

// `file_name` is for messages.
HardwareProfile parse_hardware(std::string_view toml, const std::string& file_name);
// A file, or the name of a profile that comes with the program ("h800").
HardwareProfile load_hardware(const std::string& name_or_file);
// The profiles inside the program, by name.
std::span<const EmbeddedFile> embedded_hardware();

// Figures that contradict each other, or lack a source.
void validate(const HardwareProfile& profile, const std::string& file_name);

// parse_hardware gives the same profile back.
std::string to_toml(const HardwareProfile& profile);
std::string to_json(const HardwareProfile& profile);
// Keys, ranges and meanings, as a table for the docs.
std::string hardware_help_markdown();

}  // namespace cachalot::plan
