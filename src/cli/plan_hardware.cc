// cachalot plan hardware: the profiles that come with the program, and what one of them says.
#include <fmt/format.h>

#include "cli/command.h"
#include "cli/output.h"
#include "plan/hardware.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::string profile;
  bool keys = false;
};

std::string known(double x, const char* unit) {
  return x > 0 ? fmt::format("{:.4g} {}", x, unit) : "-";
}

void list(const Globals& globals) {
  Json all = Json::array();
  if (!globals.json) {
    print_line(fmt::format("{:<14} {:>5} {:<26} {:>12} {:>12} {:>10} {:>10} {:>9} {:>9} {:>8}",
                           "profile", "per", "device", "bf16", "fp8", "memory", "read", "link",
                           "network", "an hour"));
  }
  for (const EmbeddedFile& file : plan::embedded_hardware()) {
    const plan::HardwareProfile p = plan::load_hardware(std::string(file.name));
    all.push_back({{"name", file.name}, {"profile", Json::parse(plan::to_json(p))}});
    if (globals.json) continue;
    print_line(fmt::format("{:<14} {:>5} {:<26} {:>12} {:>12} {:>10} {:>10} {:>9} {:>9} {:>8}",
                           file.name, p.device.per_node, p.device.name,
                           known(p.device.bf16_tflops, "TF/s"), known(p.device.fp8_tflops, "TF/s"),
                           known(p.device.memory_gb, "GB"), known(p.device.memory_gbps, "GB/s"),
                           known(1e-9 * p.link_rate(), "GB/s"),
                           known(1e-9 * p.network_rate(), "GB/s"), known(p.device_hour(), "$")));
  }
  if (globals.json) print_json({{"profiles", all}});
}

void run(const Options& o, const Globals& globals) {
  if (o.keys) {
    print(plan::hardware_help_markdown());
    return;
  }
  if (o.profile.empty()) {
    list(globals);
    return;
  }
  const plan::HardwareProfile p = plan::load_hardware(o.profile);
  if (globals.json) {
    print_json(Json::parse(plan::to_json(p)));
  } else {
    print(plan::to_toml(p));
  }
}

}  // namespace

void add_plan_hardware(CLI::App& plan, Globals& globals) {
  CLI::App* command =
      add_command(plan, globals, "hardware", "Hardware profiles: those there are, or one of them");
  auto o = std::make_shared<Options>();
  command
      ->add_option("profile", o->profile,
                   "A known name, or a file to check; none: the list of known ones")
      ->type_name("PROFILE");
  command->add_flag("--keys", o->keys, "The keys of a profile, as a table in Markdown");
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
