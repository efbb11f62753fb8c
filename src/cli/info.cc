// cachalot info: what this machine is and what the program made of it.
#include <fmt/format.h>

#include "cli/command.h"
#include "cli/output.h"
#include "comm/world.h"
#include "runtime/describe.h"
#include "runtime/runtime.h"

namespace cachalot::cli {

namespace {

struct Options {};

Json numa_json(const runtime::Topology& topology) {
  Json nodes = Json::array();
  for (const auto& n : topology.nodes) {
    nodes.push_back({{"id", n.os_index}, {"memory_bytes", n.memory_bytes}, {"cores", n.cores}});
  }
  return nodes;
}

std::string plural(std::size_t n, std::string_view one) {
  return fmt::format("{} {}{}", n, one, n == 1 ? "" : "s");
}

// "1 socket, 1 NUMA node, 2 cores, 2 logical CPUs, 1 last cache"
std::string topology_text(const runtime::Topology& t) {
  std::string text =
      fmt::format("{}, {}, {}, {}, {}", plural(static_cast<std::size_t>(t.packages), "socket"),
                  plural(t.nodes.size(), "NUMA node"), plural(t.cores.size(), "core"),
                  plural(static_cast<std::size_t>(t.cpus), "logical CPU"),
                  plural(static_cast<std::size_t>(t.last_caches), "last cache"));
  if (t.is_restricted()) text += fmt::format(" (of {} logical CPUs)", t.machine_cpus);
  return text;
}

std::string huge_page_text(const runtime::HugePages& h) {
  if (h.transparent.empty()) return "none";
  return fmt::format("{} of {}{}", h.transparent, human_bytes(static_cast<double>(h.page_bytes)),
                     h.allowed() ? ", taken for large buffers" : "");
}

std::string gpu_text(const runtime::Description& d, const runtime::DeviceFound& idle) {
  if (!d.device.empty()) return d.device;
  if (idle.name.empty()) return fmt::format("none ({})", idle.why);
  return fmt::format("{}, not in use (--device cuda computes on it)", idle.name);
}

Json to_json(const runtime::Description& d, const runtime::DeviceFound& idle,
             const std::string& mpi) {
  Json kernels = Json::object();
  for (const auto& slot : d.slots) kernels[slot.name] = slot.fast ? d.level : "ref";
  return {{"version", kVersion},
          {"cpu", d.cpu},
          {"level", d.level},
          {"levels", d.levels},
          {"bf16", d.bf16},
          {"kernels", kernels},
          {"threads", d.threads},
          {"cores", d.cores},
          {"memory_bytes", d.memory_bytes},
          {"cache_bytes", {{"l1d", d.l1d_bytes}, {"l2", d.l2_bytes}, {"l3", d.l3_bytes}}},
          {"topology",
           {{"sockets", d.topology.packages},
            {"numa_nodes", numa_json(d.topology)},
            {"cores", d.topology.cores.size()},
            {"cpus", d.topology.cpus},
            {"machine_cpus", d.topology.machine_cpus},
            {"smt", d.topology.smt()},
            {"last_caches", d.topology.last_caches}}},
          {"pinned", d.pinned},
          {"pin_reason", d.pin_reason},
          {"huge_pages",
           {{"transparent", d.huge_pages.transparent},
            {"page_bytes", d.huge_pages.page_bytes},
            {"in_use_bytes", d.huge_pages.in_use}}},
          {"gpu", d.device.empty() ? Json(nullptr) : Json(d.device)},
          {"gpu_idle", idle.name.empty() ? Json(nullptr) : Json(idle.name)},
          {"gpu_reason", idle.why.empty() ? Json(nullptr) : Json(idle.why)},
          {"mpi", mpi.empty() ? Json(nullptr) : Json(mpi)},
          {"compiler", __VERSION__}};
}

void run(const Options&, const Globals& globals) {
  const runtime::Runtime rt({.threads = globals.threads, .cpu = {}, .on_device = true});
  const runtime::Description d = runtime::describe(rt);
  const auto idle = d.device.empty() ? runtime::find_device() : runtime::DeviceFound{};
  const std::string mpi = comm::mpi_version();
  if (globals.json) {
    print_json(to_json(d, idle, mpi));
    return;
  }
  const auto row = [](std::string_view key, const std::string& value) {
    print_line(fmt::format("{:<10} {}", key, value));
  };
  row("version", kVersion);
  row("cpu", d.cpu);
  row("level", fmt::format("{} (this machine can run: {})", d.level, fmt::join(d.levels, ", ")));
  row("vdpbf16ps", d.bf16);
  row("threads", fmt::format("{} of {} cores", d.threads, d.cores));
  row("topology", topology_text(d.topology));
  row("pinning", d.pin_reason);
  row("memory", human_bytes(static_cast<double>(d.memory_bytes)));
  row("huge pages", huge_page_text(d.huge_pages));
  row("caches", fmt::format("L1d {}, L2 {}, L3 {}", human_bytes(static_cast<double>(d.l1d_bytes)),
                            human_bytes(static_cast<double>(d.l2_bytes)),
                            human_bytes(static_cast<double>(d.l3_bytes))));
  row("gpu", gpu_text(d, idle));
  row("mpi", mpi.empty() ? "none (this build runs as one process)" : mpi);
  row("compiler", __VERSION__);
  print_line("kernels");
  for (const auto& slot : d.slots) {
    print_line(fmt::format("  {:<20} {}", slot.name, slot.fast ? d.level : "ref"));
  }
}

}  // namespace

void add_info(CLI::App& root, Globals& globals) {
  CLI::App* command = add_command(root, globals, "info",
                                  "Show CPU level, kernels per slot, threads, memory, versions");
  on_run(command, globals, std::make_shared<Options>(), run);
}

}  // namespace cachalot::cli
