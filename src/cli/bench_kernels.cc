// cachalot bench kernels: each kernel beside this machine's ceiling, products beside other
// libraries.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "cli/command.h"
#include "cli/finite.h"
#include "cli/output.h"
#include "perf/bench_kernels.h"
#include "runtime/describe.h"
#include "runtime/runtime.h"

namespace cachalot::cli {

namespace {

struct Options {
  perf::KernelBenchOptions bench;
};

// Ours over another's, each as a part of its own turns' ceilings.
double ratio(const perf::Measured& ours, const perf::Measured& other) {
  return other.fraction > 0 ? ours.fraction / other.fraction : 0;
}

Json to_json(const runtime::Description& d, const perf::KernelReport& report) {
  Json cases = Json::array();
  for (const perf::CaseResult& c : report.cases) {
    const perf::Measured& m = c.measured;
    Json peers = Json::object();
    for (const perf::PeerResult& p : c.peers) {
      peers[p.name] = {{c.unit, p.measured.value},
                       {"fraction", p.measured.fraction},
                       {"ours_over_it", ratio(m, p.measured)},
                       {"valid_turns", p.measured.valid}};
    }
    Json one = {{"name", c.name},           {"group", c.group},
                {"precision", c.precision}, {c.unit, m.value},
                {"ceiling", m.ceiling},     {"fraction", m.fraction},
                {"predicted", c.predicted}, {"valid_turns", m.valid},
                {"turns", m.turns},         {"peers", peers}};
    if (m.of_second > 0) one["fraction_of_vdpbf16ps"] = m.of_second;
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
  print_line(
      "fraction: median over turns of measured / ceiling just before and after; ceilings of a turn "
      "agree, or it does not count");
  print_line("");
  print_line(fmt::format("{:<50} {:<5} {:>14} {:>8} {:>9} {:>10} {:>7}  {}", "case", "prec",
                         "measured", "ceiling", "fraction", "vdpbf16ps", "turns",
                         "others (fraction, ours over theirs)"));
  for (const perf::CaseResult& c : report.cases) {
    const perf::Measured& m = c.measured;
    std::string peers;
    for (const perf::PeerResult& p : c.peers) {
      peers += fmt::format("{} {:.0f} ({:.0f}%, ours {:.2f} x)  ", p.name, p.measured.value,
                           100 * p.measured.fraction, ratio(m, p.measured));
    }
    print_line(fmt::format("{:<50} {:<5} {:>9.1f} {} {:>8.1f} {:>8.0f}% {:>10} {:>7}  {}",
                           c.group + "/" + c.name, c.precision, m.value,
                           c.unit == "gbps" ? "GB/s" : "GF/s", m.ceiling, 100 * m.fraction,
                           m.of_second > 0 ? fmt::format("{:.0f}%", 100 * m.of_second) : "",
                           fmt::format("{}/{}", m.valid, m.turns), peers));
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
                                  "Kernels beside this machine's ceilings, products beside oneDNN "
                                  "and OpenBLAS, measured in turns");
  auto options = std::make_shared<Options>();
  perf::TurnOptions& turns = options->bench.turns;
  command
      ->add_option("--turns", turns.turns,
                   "Turns per case whose ceilings agree; their median counts")
      ->check(CLI::Range(1, 1000))
      ->type_name("N");
  command
      ->add_option("--limit", turns.limit_seconds,
                   "Seconds after which a case ends with the turns it has")
      ->check(finite_range(0.1, 3600))
      ->type_name("SECONDS");
  command
      ->add_option("--only", options->bench.only,
                   "Only cases whose `group/name precision` contains this; may be repeated")
      ->type_name("TEXT");
  on_run(command, globals, options, run);
}

}  // namespace cachalot::cli
