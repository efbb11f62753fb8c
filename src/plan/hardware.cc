#include "plan/hardware.h"

#include <algorithm>
#include <limits>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/fields_text.h"
#include "io/toml.h"

namespace cachalot::plan {

namespace {

constexpr double kMost = 1e12;  // of any figure: far above what is built, far below overflow
constexpr std::uint64_t kMostBytes = 1 << 20;

double or_one(double share) noexcept { return share > 0 ? share : 1; }

}  // namespace

std::string_view name(Arithmetic arithmetic) noexcept {
  switch (arithmetic) {
    case Arithmetic::kF32:
      return "f32";
    case Arithmetic::kBf16:
      return "bf16";
    case Arithmetic::kFp8:
      return "fp8";
    case Arithmetic::kInt8:
      return "int8";
  }
  return "?";
}

void DeviceProfile::fields(FieldVisitor& f) {
  f("name", name, "the device");
  f("per_node", per_node, 1, 1 << 16, "devices of a node");
  f("cores", cores, 0, 1 << 20, "streaming multiprocessors, or physical cores");
  f("f32_tflops", f32_tflops, 0.0, kMost, "peak of products in float");
  f("bf16_tflops", bf16_tflops, 0.0, kMost, "peak in bf16, dense");
  f("fp8_tflops", fp8_tflops, 0.0, kMost, "peak in fp8, dense");
  f("int8_tflops", int8_tflops, 0.0, kMost, "peak in int8, 1e12 operations per second, dense");
  f("memory_gb", memory_gb, 0.0, kMost, "memory of one device");
  f("memory_gbps", memory_gbps, 0.0, kMost, "its bandwidth");
  f("l1_kib", l1_kib, 0.0, kMost, "first cache of one core");
  f("l2_mib", l2_mib, 0.0, kMost, "second cache, of one core or shared by all");
  f("l3_mib", l3_mib, 0.0, kMost, "last cache of the device");
  f("source", source, "where these figures come from");
}

void AchievedProfile::fields(FieldVisitor& f) {
  f("f32", f32, 0.0, 1.0, "share of the f32 peak that large products reach");
  f("bf16", bf16, 0.0, 1.0, "of the bf16 peak");
  f("fp8", fp8, 0.0, 1.0, "of the fp8 peak");
  f("int8", int8, 0.0, 1.0, "of the int8 peak");
  f("attention", attention, 0.0, 1.0, "share of the bf16 peak (else f32) that attention reaches");
  f("memory", memory, 0.0, 1.0, "share of memory_gbps that reading weights or a cache reaches");
  f("absorbed_prefill", absorbed_prefill, "prompts read the latents themselves, as decoding does");
  f("source", source, "where these figures come from");
}

void RatesProfile::fields(FieldVisitor& f) {
  f("rows", rows, 1.0, 1e9, "rows (tokens) of a product, rising");
  f("f32_gflops", f32_gflops, 0.0, kMost, "GFLOP/s at those rows, float weights");
  f("bf16_gflops", bf16_gflops, 0.0, kMost, "bf16 weights");
  f("fp8_gflops", fp8_gflops, 0.0, kMost, "fp8 weights");
  f("int8_gflops", int8_gflops, 0.0, kMost, "int8 weights");
  f("int4_gflops", int4_gflops, 0.0, kMost, "int4 weights");
  f("attention_gflops", attention_gflops, 0.0, kMost,
    "attention over a latent cache, rows being queries times heads");
  f("source", source, "where these figures come from");
}

void BandwidthProfile::fields(FieldVisitor& f) {
  f("threads", threads, 1.0, 1e6, "threads, rising");
  f("read_gbps", read_gbps, 0.0, kMost, "what they read from memory together");
  f("source", source, "where these figures come from");
}

void OverheadProfile::fields(FieldVisitor& f) {
  f("pass_us", pass_us, 0.0, 1e9, "of a pass, besides bytes and operations");
  f("layer_us", layer_us, 0.0, 1e9, "of each layer of a pass");
  f("source", source, "where these figures come from");
}

void HostProfile::fields(FieldVisitor& f) {
  f("name", name, "the node's CPUs; the device's name where they are what computes");
  f("sockets", sockets, 0, 1 << 10, "sockets of a node");
  f("cores", cores, 0, 1 << 20, "physical cores of a node");
  f("memory_gb", memory_gb, 0.0, kMost, "memory of a node");
  f("memory_gbps", memory_gbps, 0.0, kMost, "its bandwidth, all sockets");
  f("source", source, "where these figures come from");
}

void LinkProfile::fields(FieldVisitor& f) {
  f("name", name, "what joins the devices of a node");
  f("gbps", gbps, 0.0, kMost, "of one device and direction, by the data sheet");
  f("achieved_gbps", achieved_gbps, 0.0, kMost, "of one device and direction, measured");
  f("latency_us", latency_us, 0.0, 1e9, "of a small message");
  f("source", source, "where these figures come from");
}

void NetworkProfile::fields(FieldVisitor& f) {
  f("name", name, "what joins the nodes");
  f("nics_per_node", nics_per_node, 0, 1 << 16, "network cards of a node, storage not counted");
  f("gbps", gbps, 0.0, kMost, "of one card and direction, by the data sheet");
  f("achieved_gbps", achieved_gbps, 0.0, kMost, "of one card and direction, measured");
  f("latency_us", latency_us, 0.0, 1e9, "of a small message, end to end");
  f("planes", planes, 0, 1 << 16, "separate networks, one card of a node in each; 0: not said");
  f("compute_share", compute_share, 0.0, 0.99, "of a device's cores, busy with it in training");
  f("source", source, "where these figures come from");
}

void DiskProfile::fields(FieldVisitor& f) {
  f("read_mbps", read_mbps, 0.0, kMost, "1e6 bytes per second read");
  f("write_mbps", write_mbps, 0.0, kMost, "written, until the data are safe");
  f("source", source, "where these figures come from");
}

void PriceProfile::fields(FieldVisitor& f) {
  f("device_hour", device_hour, 0.0, kMost, "rent of one device for an hour");
  f("node_hour", node_hour, 0.0, kMost, "rent of a node for an hour");
  f("currency", currency, "of both");
  f("source", source, "where these figures come from");
}

void HardwareProfile::fields(FieldVisitor& f) {
  f("name", name, "of the profile");
  f("notes", notes, "what a reader should know");
  f.section("device", device);
  f.section("achieved", achieved);
  f.section("rates", rates);
  f.section("pass_rates", pass_rates);
  f.section("expert_rates", expert_rates);
  f.section("bandwidth", bandwidth);
  f.section("overhead", overhead);
  f.section("host", host);
  f.section("link", link);
  f.section("network", network);
  f.section("disk", disk);
  f.section("price", price);
  f.section("training", training);
}

double HardwareProfile::peak(Arithmetic arithmetic) const noexcept {
  switch (arithmetic) {
    case Arithmetic::kF32:
      return 1e12 * device.f32_tflops;
    case Arithmetic::kBf16:
      return 1e12 * device.bf16_tflops;
    case Arithmetic::kFp8:
      return 1e12 * device.fp8_tflops;
    case Arithmetic::kInt8:
      return 1e12 * device.int8_tflops;
  }
  return 0;
}

double HardwareProfile::product_rate(Arithmetic arithmetic) const noexcept {
  switch (arithmetic) {
    case Arithmetic::kF32:
      return peak(arithmetic) * or_one(achieved.f32);
    case Arithmetic::kBf16:
      return peak(arithmetic) * or_one(achieved.bf16);
    case Arithmetic::kFp8:
      return peak(arithmetic) * or_one(achieved.fp8);
    case Arithmetic::kInt8:
      return peak(arithmetic) * or_one(achieved.int8);
  }
  return 0;
}

double HardwareProfile::attention_rate() const noexcept {
  const auto arithmetic = device.bf16_tflops > 0 ? Arithmetic::kBf16 : Arithmetic::kF32;
  return achieved.attention > 0 ? peak(arithmetic) * achieved.attention : product_rate(arithmetic);
}

double HardwareProfile::read_rate() const noexcept {
  return 1e9 * device.memory_gbps * or_one(achieved.memory);
}

double HardwareProfile::link_rate() const noexcept {
  return 1e9 * (link.achieved_gbps > 0 ? link.achieved_gbps : link.gbps);
}

double HardwareProfile::network_rate() const noexcept {
  const double card = network.achieved_gbps > 0 ? network.achieved_gbps : network.gbps;
  return 1e9 * card * network.nics_per_node / device.per_node;
}

double HardwareProfile::device_hour() const noexcept {
  return price.device_hour > 0 ? price.device_hour : price.node_hour / device.per_node;
}

double HardwareProfile::node_hour() const noexcept {
  return price.node_hour > 0 ? price.node_hour : price.device_hour * device.per_node;
}

int devices_of(const HardwareProfile& profile, int nodes) {
  constexpr int kMostDevices = std::numeric_limits<int>::max();
  const std::int64_t devices = std::int64_t{nodes} * profile.device.per_node;
  if (devices >= 1 && devices <= kMostDevices) return static_cast<int>(devices);
  throw Error(Code::kUsage, cat(nodes, " nodes of ", profile.device.per_node, " devices are ",
                                devices, " devices; 1 to ", kMostDevices, " can be planned."));
}

HardwareProfile parse_hardware(std::string_view toml, const std::string& file_name) {
  HardwareProfile profile;
  const auto fields = fields_of(profile);
  for (const io::TomlEntry& entry : io::parse_toml(toml, file_name)) {
    assign(fields, entry.path, entry.value, cat(file_name, ":", entry.line), Code::kConfig);
  }
  validate(profile, file_name);
  return profile;
}

HardwareProfile load_hardware(const std::string& name_or_file) {
  std::error_code ignored;
  const std::filesystem::path path(name_or_file);
  // What looks like a path and is not there is a missing file, not an unknown name.
  if (path.extension() == ".toml" || path.has_parent_path() ||
      std::filesystem::exists(path, ignored)) {
    return parse_hardware(read_file(name_or_file, kMostBytes), name_or_file);
  }
  std::vector<std::string_view> names;
  for (const EmbeddedFile& file : embedded_hardware()) {
    if (file.name == name_or_file) return parse_hardware(file.text, cat(file.name, ".toml"));
    names.push_back(file.name);
  }
  std::string list;
  for (const std::string_view known : names) list += cat(list.empty() ? "" : ", ", known);
  const std::string near = nearest(name_or_file, names.data(), names.data() + names.size());
  throw Error(
      Code::kUsage,
      cat("'", printable(name_or_file),
          "' is neither a file nor a hardware profile that comes with the program",
          near.empty() ? "" : "; did you mean '" + near + "'?", near.empty() ? ". " : " ",
          "There are: ", list, "; `cachalot plan probe --out FILE` writes one of this machine."));
}

std::string to_toml(const HardwareProfile& profile) {
  HardwareProfile copy = profile;
  return cachalot::to_toml(fields_of(copy));
}

std::string to_json(const HardwareProfile& profile) {
  HardwareProfile copy = profile;
  return cachalot::to_json(fields_of(copy));
}

std::string hardware_help_markdown() {
  HardwareProfile profile;
  return help_table_markdown(fields_of(profile));
}

}  // namespace cachalot::plan
