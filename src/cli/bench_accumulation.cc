// cachalot bench accumulation: the error of Hopper's accumulator by K and promotion interval.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "base/atomic_file.h"
#include "cli/command.h"
#include "cli/finite.h"
#include "cli/output.h"
#include "cli/output_file.h"
#include "perf/bench_accumulation.h"
#include "runtime/describe.h"
#include "runtime/runtime.h"

namespace cachalot::cli {

namespace {

struct Options {
  perf::AccumulationOptions bench;
  std::string svg;
};

using Cases = std::vector<perf::AccumulationCase>;

Json to_json(const runtime::Description& d, const perf::AccumulationOptions& options,
             const Cases& cases) {
  Json list = Json::array();
  for (const perf::AccumulationCase& c : cases) {
    const bool hopper = c.sum.kind == Accumulator::kHopper;
    Json one = {{"name", perf::name(c.inputs)},
                {"precision", "fp8"},
                {"k", c.k},
                {"accumulator", hopper ? "hopper" : "float32"}};
    if (hopper) one["interval"] = c.sum.interval;
    one["max_error"] = c.max_error;
    one["mean_error"] = c.mean_error;
    one["max_error_of_result"] = c.max_of_result;
    one["mean_error_of_result"] = c.mean_of_result;
    list.push_back(std::move(one));
  }
  return {{"machine", {{"cpu", d.cpu}, {"level", d.level}, {"threads", d.threads}}},
          {"size", options.size},
          {"seed", options.seed},
          {"cases", list}};
}

std::string heading(const Accumulation& sum) {
  if (sum.kind == Accumulator::kFloat) return "float32";
  return sum.interval == 0 ? "never" : std::to_string(sum.interval);
}

// A Markdown table: a row per K, a column per interval.
void print_table(const Cases& cases, perf::RandomInputs inputs, bool largest) {
  std::string head, rule = "|---:|", row;
  std::vector<std::string> rows;
  int k = 0;
  for (const perf::AccumulationCase& c : cases) {
    if (c.inputs != inputs) continue;
    if (c.k != k) {
      if (k != 0) rows.push_back(row);
      k = c.k;
      row = fmt::format("| {} |", k);
    }
    if (rows.empty()) {
      head += fmt::format(" {} |", heading(c.sum));
      rule += "---:|";
    }
    row += fmt::format(" {:.2g} % |", 100 * (largest ? c.max_error : c.mean_error));
  }
  rows.push_back(row);
  print_line(fmt::format("{} inputs, {} error by promotion interval N_C", perf::name(inputs),
                         largest ? "largest" : "mean"));
  print_line("");
  print_line("| K |" + head);
  print_line(rule);
  for (const std::string& line : rows) print_line(line);
  print_line("");
}

void run(const Options& options, const Globals& globals) {
  check_output_file("--svg", options.svg);
  const runtime::Runtime rt({.threads = globals.threads, .cpu = {}});
  const Cases cases = perf::bench_accumulation(
      rt.context(), options.bench, [](const std::string& what) { spdlog::info("{}", what); });
  if (!options.svg.empty()) {
    write_file_atomically(options.svg, perf::accumulation_picture(cases));
  }
  if (globals.json) {
    print_json(to_json(runtime::describe(rt), options.bench, cases));
    return;
  }
  print_line(
      fmt::format("{0} x {0} results of E4M3 with one scale per operand, seed {1}; errors "
                  "relative to the root mean square of the exact results",
                  options.bench.size, options.bench.seed));
  print_line("");
  for (const auto inputs : {perf::RandomInputs::kNormal, perf::RandomInputs::kUniform}) {
    for (const bool largest : {true, false}) print_table(cases, inputs, largest);
  }
}

}  // namespace

void add_bench_accumulation(CLI::App& bench, Globals& globals) {
  CLI::App* command =
      add_command(bench, globals, "accumulation",
                  "Errors of Hopper's FP8 accumulator by length of the sum and promotion interval");
  auto options = std::make_shared<Options>();
  command->add_option("--k", options->bench.k, "Lengths of the sum, separated by commas")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("K,...");
  command
      ->add_option("--intervals", options->bench.intervals,
                   "Elements of K between promotions, multiples of 32; 0: never")
      ->delimiter(',')
      ->check(CLI::Range(0, 1 << 20))
      ->type_name("N_C,...");
  command->add_option("--size", options->bench.size, "Rows and columns of each result")
      ->check(CLI::Range(1, 4096))
      ->type_name("N");
  command->add_option("--seed", options->bench.seed, "Seed of the operands")
      ->check(seed_range())
      ->type_name("N");
  add_output_file(*command, "--svg", options->svg, "Also writes a picture of the largest errors");
  on_run(command, globals, options, run);
}

}  // namespace cachalot::cli
