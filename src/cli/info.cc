// cachalot info: what this machine is and what the program made of it.
#include <fmt/format.h>

#include "cli/command.h"
#include "cli/output.h"
#include "runtime/describe.h"
#include "runtime/runtime.h"

namespace cachalot::cli {

namespace {

struct Options {};

Json to_json(const runtime::Description& d) {
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
          {"gpu", nullptr},
          {"mpi", nullptr},
          {"compiler", __VERSION__}};
}

void run(const Options&, const Globals& globals) {
  const runtime::Runtime rt({.threads = globals.threads, .cpu = {}});
  const runtime::Description d = runtime::describe(rt);
  if (globals.json) {
    print_json(to_json(d));
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
  row("memory", human_bytes(static_cast<double>(d.memory_bytes)));
  row("caches", fmt::format("L1d {}, L2 {}, L3 {}", human_bytes(static_cast<double>(d.l1d_bytes)),
                            human_bytes(static_cast<double>(d.l2_bytes)),
                            human_bytes(static_cast<double>(d.l3_bytes))));
  row("gpu", "none (this build computes on the CPU)");
  row("mpi", "none (this build runs as one process)");
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
