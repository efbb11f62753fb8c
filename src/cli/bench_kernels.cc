// cachalot bench kernels: the matrix products beside this machine's ceilings and other libraries.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "cli/command.h"
#include "cli/output.h"
#include "perf/bench_kernels.h"
#include "runtime/describe.h"
#include "runtime/runtime.h"

namespace cachalot::cli {

namespace {

struct Options {
  perf::KernelBenchOptions bench;
};

Json to_json(const runtime::Description& d, const perf::KernelReport& report) {
  Json cases = Json::array();
  for (const perf::CaseResult& c : report.cases) {
    Json peers = Json::object();
    for (const perf::PeerResult& p : c.peers) peers[p.name] = p.value;
    Json one = {{"name", c.name},       {"precision", c.precision}, {c.unit, c.value},
                {"ceiling", c.ceiling}, {"fraction", c.fraction},   {"peers", peers}};
    if (c.vdpbf16ps > 0) one["fraction_of_vdpbf16ps"] = c.vdpbf16ps;
    cases.push_back(std::move(one));
  }
  return {{"machine",
           {{"cpu", d.cpu},
            {"level", d.level},
            {"threads", d.threads},
            {"fma_gflops", report.fma_gflops},
            {"vdpbf16ps_gflops", report.vdpbf16ps_gflops},
            {"read_gbps", report.read_gbps}}},
          {"cases", cases},
          {"notes", report.notes}};
}

void print_table(const runtime::Description& d, const perf::KernelReport& report) {
  print_line(fmt::format("{}, level {}, {} threads", d.cpu, d.level, d.threads));
  print_line(fmt::format(
      "peaks from registers: float FMA {:.0f} GFLOP/s, vdpbf16ps {:.0f} GFLOP/s; read {:.1f} GB/s",
      report.fma_gflops, report.vdpbf16ps_gflops, report.read_gbps));
  print_line("");
  print_line(fmt::format("{:<30} {:<5} {:>16} {:>9} {:>9} {:>13}  {}", "case", "prec", "measured",
                         "ceiling", "fraction", "of vdpbf16ps", "others"));
  for (const perf::CaseResult& c : report.cases) {
    std::string peers;
    for (const perf::PeerResult& p : c.peers) peers += fmt::format("{} {:.0f}  ", p.name, p.value);
    const bool memory = c.unit == "gbps";
    print_line(
        fmt::format("{:<30} {:<5} {:>9.1f} {:<6} {:>9.1f} {:>8.0f}% {:>13}  {}", c.name,
                    c.precision, c.value, memory ? "GB/s" : "GF/s", c.ceiling, 100 * c.fraction,
                    c.vdpbf16ps > 0 ? fmt::format("{:.0f}%", 100 * c.vdpbf16ps) : "", peers));
  }
  for (const std::string& note : report.notes) print_line("note: " + note);
}

void run(const Options& options, const Globals& globals) {
  const runtime::Runtime rt({.threads = globals.threads, .cpu = {}});
  const runtime::Description d = runtime::describe(rt);
  const perf::KernelReport report = perf::bench_kernels(
      rt, options.bench, [](const std::string& name) { spdlog::info("{}", name); });
  if (globals.json) {
    print_json(to_json(d, report));
  } else {
    print_table(d, report);
  }
}

}  // namespace

void add_bench_kernels(CLI::App& bench, Globals& globals) {
  CLI::App* command = add_command(bench, globals, "kernels",
                                  "Matrix products beside this machine's ceilings, oneDNN and "
                                  "OpenBLAS, measured in turns");
  auto options = std::make_shared<Options>();
  command->add_option("--turns", options->bench.turns, "Turns; the median of them counts")
      ->check(CLI::Range(1, 1000))
      ->type_name("N");
  command->add_option("--only", options->bench.filter, "Only cases whose name contains this")
      ->type_name("TEXT");
  on_run(command, globals, options, run);
}

}  // namespace cachalot::cli
