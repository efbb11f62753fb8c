// cachalot plan probe: this machine measured into a hardware profile.
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <filesystem>

#include "base/atomic_file.h"
#include "base/error.h"
#include "cli/command.h"
#include "cli/finite.h"
#include "cli/output.h"
#include "cli/output_file.h"
#include "comm/world.h"
#include "infer/probe_pass.h"
#include "kernels/quant_linear.h"
#include "perf/probe.h"
#include "plan/disk_probe.h"
#include "plan/hardware.h"
#include "runtime/describe.h"
#include "runtime/runtime.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::string out;
  std::string disk = ".";
  int disk_mib = 256;
  int turns = 5;
  double limit = 0.5;  // seconds per case
  bool rates = true;
  std::vector<std::string> formats{"bf16", "fp8", "int8", "int4"};
};

// Figures as they will be read: more digits would say more than was measured.
double rounded(double x) { return std::stod(fmt::format("{:.4g}", x)); }
std::vector<double> rounded(std::vector<double> all) {
  for (double& x : all) x = rounded(x);
  return all;
}

void probe_peaks(const Options& o, const runtime::Runtime& rt, plan::HardwareProfile& p,
                 const std::string& source) {
  spdlog::info("peaks, and memory by threads");
  const perf::Peaks peaks = perf::register_peaks(rt.context(), 4 * o.turns);
  p.device.f32_tflops = rounded(1e-3 * peaks.f32_gflops);
  p.device.bf16_tflops = rounded(1e-3 * peaks.bf16_gflops);
  p.device.int8_tflops = rounded(1e-3 * peaks.int8_gops);
  for (int threads = 1;; threads = std::min(2 * threads, rt.threads())) {
    const runtime::Runtime few({.threads = threads, .cpu = {}});
    p.bandwidth.threads.push_back(threads);
    p.bandwidth.read_gbps.push_back(rounded(perf::read_gbps(few.context(), 2 * o.turns)));
    if (threads >= rt.threads()) break;
  }
  p.bandwidth.source = source;
  p.device.memory_gbps =
      *std::max_element(p.bandwidth.read_gbps.begin(), p.bandwidth.read_gbps.end());
}

// How much narrow products lose: the width w at which half of the rate is left, from one of width
// 128, where w makes it (128 / (128 + w))^2 of the rate of wide ones.
void probe_narrow(const runtime::Runtime& rt, plan::HardwareProfile& p,
                  const perf::TurnOptions& turns, const std::string& source) {
  constexpr int kWidth = 128;
  const bool bf16 = p.device.bf16_tflops > 0;
  const double wide = bf16 ? p.rates.bf16_gflops.back() : p.rates.f32_gflops.back();
  const double narrow = perf::narrow_training_gflops(
      rt.context(), bf16 ? Precision::kBF16 : Precision::kF32, kWidth, turns);
  p.training.half_size =
      narrow > 0 ? rounded(std::max(0.0, kWidth * (std::sqrt(wide / narrow) - 1))) : 0;
  p.training.source = source + "; products of training 128 wide beside wide ones";
}

void probe_rates(const Options& o, const runtime::Runtime& rt, plan::HardwareProfile& p,
                 const std::string& source) {
  const Context& ctx = rt.context();
  const perf::TurnOptions turns{.turns = o.turns, .limit_seconds = o.limit, .turn_seconds = 0.02};
  const std::vector<int> rows{1, 4, 16, 64, 512};
  p.rates.rows.assign(rows.begin(), rows.end());
  const auto measure = [&](const char* what, perf::ProbeWeights weights) {
    spdlog::info("products with weights in {}", what);
    return rounded(perf::product_gflops(ctx, weights, rows, turns));
  };
  p.rates.f32_gflops = measure("f32", perf::ProbeWeights::kF32);
  p.rates.bf16_gflops = measure("bf16", perf::ProbeWeights::kBf16);
  if (quant_linear_is_fast(ctx)) {  // else codes are multiplied out at load
    p.rates.fp8_gflops = measure("fp8", perf::ProbeWeights::kFp8);
    p.rates.int8_gflops = measure("int8", perf::ProbeWeights::kInt8);
    p.rates.int4_gflops = measure("int4", perf::ProbeWeights::kInt4);
  }
  spdlog::info("attention over a latent cache");
  p.rates.attention_gflops = rounded(perf::attention_gflops(ctx, rows, turns));
  p.rates.source = source;

  spdlog::info("products of training");
  const auto share = [](double gflops, double peak_tflops) {
    return peak_tflops > 0 ? rounded(std::min(1.0, gflops / 1e3 / peak_tflops)) : 0;
  };
  p.achieved.f32 = share(perf::training_gflops(ctx, Precision::kF32, turns), p.device.f32_tflops);
  p.achieved.bf16 =
      share(perf::training_gflops(ctx, Precision::kBF16, turns), p.device.bf16_tflops);
  probe_narrow(rt, p, turns, source);
  p.achieved.attention =
      share(p.rates.attention_gflops.back(),
            p.device.bf16_tflops > 0 ? p.device.bf16_tflops : p.device.f32_tflops);
  p.achieved.absorbed_prefill = true;
  p.achieved.source =
      source + "; f32 and bf16: products of training, of a linear layer and of experts";
}

// Lists of one format's rates; rows are those of the first format measured.
void put(plan::RatesProfile& to, const std::string& format, const std::vector<double>& rows,
         const std::vector<double>& gflops) {
  if (to.rows.empty()) to.rows = rounded(rows);
  // Experts' rows hang on which ones a pass happened to choose: read at the rows of the list.
  const cost::RateCurve curve{rows, gflops};
  std::vector<double> at;
  for (const double r : to.rows) at.push_back(curve.at(r));
  (format == "bf16"   ? to.bf16_gflops
   : format == "fp8"  ? to.fp8_gflops
   : format == "int8" ? to.int8_gflops
                      : to.int4_gflops) = rounded(at);
}

void probe_passes(const Options& o, const runtime::Runtime& rt, plan::HardwareProfile& p,
                  const infer::PassOverhead& overhead, const std::string& source) {
  cost::RateCurve attention{p.rates.rows, p.rates.attention_gflops};
  for (double& x : attention.flops) x *= 1e9;
  for (const std::string& format : o.formats) {
    spdlog::info("passes with weights in {}", format);
    const infer::PassRates r =
        infer::measure_pass_rates(rt.context(), o.disk, model::parse_weight_format(format),
                                  {1, 4, 16, 64, 192, 512}, overhead, attention, o.turns);
    put(p.pass_rates, format, r.rows, r.dense_gflops);
    if (!r.expert_rows.empty()) put(p.expert_rates, format, r.expert_rows, r.expert_gflops);
  }
  p.pass_rates.source = source + "; passes of a model of 6 dense layers of 1280";
  p.expert_rates.source = source + "; passes of a model of 4 layers of 1280 with 32 experts of 512";
}

void probe_rest(const Options& o, const runtime::Runtime& rt, plan::HardwareProfile& p,
                const std::string& source) {
  spdlog::info("overhead of a pass");
  const infer::PassOverhead overhead = infer::measure_pass_overhead(rt.context(), o.disk, o.turns);
  p.overhead.pass_us = rounded(1e6 * overhead.pass_seconds);
  p.overhead.layer_us = rounded(1e6 * overhead.layer_seconds);
  p.overhead.source = source + "; passes of two models with next to no weights";
  if (o.rates) probe_passes(o, rt, p, overhead, source);
  if (o.disk_mib > 0) {
    spdlog::info("disk below {}", o.disk);
    const plan::DiskSpeed disk =
        plan::measure_disk(o.disk, static_cast<std::uint64_t>(o.disk_mib) << 20);
    p.disk.read_mbps = rounded(disk.read_mbps);
    p.disk.write_mbps = rounded(disk.write_mbps);
    p.disk.source = fmt::format(
        "{}; a file of {} MiB, written and synced, read past the page cache", source, o.disk_mib);
  }
}

// Messages between the first rank and another of its machine, and one of each of up to eight other
// machines: medians. [link] and [network] have these figures alike.
template <typename Profile>
void put(Profile& to, const std::vector<comm::MessageRates>& pairs, const std::string& where,
         const std::string& source) {
  const auto median = [&](double comm::MessageRates::*figure) {
    std::vector<double> all;
    for (const comm::MessageRates& pair : pairs) all.push_back(pair.*figure);
    std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2),
                     all.end());
    return rounded(all[all.size() / 2]);
  };
  to.name = fmt::format("{}, {}", comm::mpi_version(), where);
  to.latency_us = median(&comm::MessageRates::latency_us);
  to.achieved_gbps = median(&comm::MessageRates::both_ways_gbps);
  to.gbps = std::max(to.achieved_gbps, median(&comm::MessageRates::one_way_gbps));
  to.source = fmt::format(
      "{}; {} of ranks: half of a round trip of 8 bytes; messages of 4 MiB while one "
      "side sends (gbps) and while both do (achieved_gbps, of each)",
      source, pairs.size() == 1 ? "one pair" : fmt::format("{} pairs", pairs.size()));
}

// Where a launcher started several ranks: what messages between them take. False in all ranks but
// the first, which goes on alone.
bool probe_messages(plan::HardwareProfile& p, const std::string& source) {
  if (comm::launched_ranks() == 1) return true;
  comm::World world;
  if (world.size() == 1) {
    throw Error(Code::kUsage, cat("a launcher started ", comm::launched_ranks(), " ranks, but ",
                                  comm::mpi_version(),
                                  " knows of this one alone: the launcher is "
                                  "another MPI's. Start the ranks with the mpirun of this one."));
  }
  const std::vector<int>& machines = world.machines();
  const int last = *std::max_element(machines.begin(), machines.end());
  std::vector<comm::MessageRates> near, far;
  for (int machine = 0; machine <= std::min(last, 8); ++machine) {
    const auto from = machines.begin() + (machine == 0 ? 1 : 0);  // not the first rank itself
    const auto peer = std::find(from, machines.end(), machine);
    if (peer == machines.end()) continue;
    const int rank = static_cast<int>(peer - machines.begin());
    if (world.rank() == 0) spdlog::info("messages between the ranks 0 and {}", rank);
    (machine == 0 ? near : far).push_back(world.measure(0, rank));
  }
  if (!near.empty()) put(p.link, near, "ranks of one machine", source);
  if (!far.empty()) {
    put(p.network, far, "ranks of two machines", source);
    p.network.nics_per_node = 1;
  }
  return world.rank() == 0;
}

void describe(const runtime::Description& d, plan::HardwareProfile& p, const std::string& source) {
  p.name = fmt::format("{}, {} threads", d.cpu, d.threads);
  p.notes = "Measured by `cachalot plan probe`.";
  if (p.link.gbps == 0 && p.network.gbps == 0) {
    p.notes +=
        " One process alone: messages were not measured, which takes ranks (mpirun -n 2 "
        "--bind-to none).";
  }
  p.device.name = d.cpu;
  p.device.cores = static_cast<int>(d.topology.cores.size());
  p.device.memory_gb = rounded(1e-9 * static_cast<double>(d.memory_bytes));
  p.device.l1_kib = static_cast<double>(d.l1d_bytes) / 1024;
  p.device.l2_mib = static_cast<double>(d.l2_bytes) / (1 << 20);
  p.device.l3_mib = static_cast<double>(d.l3_bytes) / (1 << 20);
  p.device.source = source + "; caches and memory as the system describes them";
  p.host.name = d.cpu;
  p.host.sockets = d.topology.packages;
  p.host.cores = p.device.cores;
  p.host.memory_gb = p.device.memory_gb;
  p.host.source = p.device.source;
}

void run(const Options& o, const Globals& globals) {
  if (!std::filesystem::is_directory(o.disk)) {
    throw Error(Code::kUsage, cat("--disk ", o.disk, " is not a folder"));
  }
  plan::HardwareProfile p;
  const std::string date = fmt::format("measured {:%Y-%m-%d}", fmt::gmtime(std::time(nullptr)));
  if (!probe_messages(p, date)) return;
  check_output_file("--out", o.out);
  const runtime::Runtime rt({.threads = globals.threads, .cpu = {}});
  const runtime::Description d = runtime::describe(rt);
  if (comm::launched_ranks() > 1 && d.topology.is_restricted()) {
    spdlog::warn(
        "the launcher lets this rank use {} of the machine's {} CPUs, and that is what is "
        "measured; mpirun --bind-to none allows them all",
        d.topology.cpus, d.topology.machine_cpus);
  }
  const std::string source = fmt::format("{}, {} threads, level {}", date, d.threads, d.level);
  describe(d, p, source);
  probe_peaks(o, rt, p, source);
  p.host.memory_gbps = p.device.memory_gbps;
  if (o.rates) probe_rates(o, rt, p, source);
  probe_rest(o, rt, p, source);
  plan::validate(p, "the profile measured");
  const std::string toml = plan::to_toml(p);
  if (!o.out.empty()) write_file_atomically(o.out, toml);
  if (globals.json) {
    print_json(Json::parse(plan::to_json(p)));
  } else if (o.out.empty()) {
    print(toml);
  } else {
    print_line(fmt::format("{}: {:.0f} GFLOP/s in f32, {:.0f} in bf16, {:.1f} GB/s", o.out,
                           1e3 * p.device.f32_tflops, 1e3 * p.device.bf16_tflops,
                           p.device.memory_gbps));
  }
}

}  // namespace

void add_plan_probe(CLI::App& plan, Globals& globals) {
  CLI::App* command = add_command(plan, globals, "probe",
                                  "Measure this machine into a hardware profile: peaks, memory by "
                                  "threads, rates of products, overhead, disk; under mpirun "
                                  "messages between ranks as well");
  auto o = std::make_shared<Options>();
  add_output_file(*command, "--out", o->out,
                  "File to write; without it the profile goes to stdout");
  command->add_option("--disk", o->disk, "Folder on the disk to measure")->type_name("DIR");
  command->add_option("--disk-mib", o->disk_mib, "Size of the file that measures it; 0: do not")
      ->check(CLI::Range(0, 1 << 20))
      ->type_name("N");
  command->add_option("--turns", o->turns, "Turns of each case; their median counts")
      ->check(CLI::Range(1, 1000))
      ->type_name("N");
  command->add_option("--limit", o->limit, "Seconds after which a case ends with the turns it has")
      ->check(finite_range(0.01, 3600))
      ->type_name("SECONDS");
  command
      ->add_option("--formats", o->formats, "Formats of weights that whole passes are measured in")
      ->delimiter(',')
      ->check(CLI::IsMember({"bf16", "fp8", "int8", "int4"}))
      ->type_name("NAME,NAME,...");
  command->add_flag("--rates,!--no-rates", o->rates,
                    "Rates of products and attention; without them the profile has peaks alone");
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
