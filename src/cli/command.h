// What the commands share: global settings, how a command registers itself, and what it may print.
//
// One file per command. `add_x` declares its flags; when the command line names it, its callback
// sets Globals::action, which main runs once everything has parsed: a wrong flag is found before
// any work is done.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <functional>
#include <memory>
#include <string>

namespace cachalot::cli {

inline constexpr const char* kVersion = CACHALOT_VERSION;

struct Globals {
  int threads = 0;  // 0: $CACHALOT_THREADS, else one per core
  bool json = false;
  std::string device;        // empty: $CACHALOT_DEVICE, else cpu
  std::string pin;           // empty: $CACHALOT_PIN, else auto
  std::string weights;       // empty: $CACHALOT_WEIGHTS, else auto
  std::string command_line;  // as a shell would take it again
  std::function<void()> action;
};

// A subcommand with --threads and --json of its own, so that its --help is complete.
CLI::App* add_command(CLI::App& parent, Globals& globals, const std::string& name,
                      const std::string& description);

// Makes `run(options)` the action of a command; `options` is what its flags were bound to.
template <class Options>
void on_run(CLI::App* command, Globals& globals, std::shared_ptr<Options> options,
            void (*run)(const Options&, const Globals&)) {
  command->callback([options, run, &globals] {
    globals.action = [options, run, &globals] { run(*options, globals); };
  });
}

void add_bench(CLI::App& root, Globals& globals);
void add_bench_accumulation(CLI::App& bench, Globals& globals);
void add_bench_comm(CLI::App& bench, Globals& globals);
void add_bench_decode(CLI::App& bench, Globals& globals);
void add_bench_drafts(CLI::App& bench, Globals& globals);
void add_bench_gradients(CLI::App& bench, Globals& globals);
void add_bench_kernels(CLI::App& bench, Globals& globals);
void add_bench_load(CLI::App& bench, Globals& globals);
void add_bench_prefill(CLI::App& bench, Globals& globals);
void add_bench_serve(CLI::App& bench, Globals& globals);
void add_bench_train(CLI::App& bench, Globals& globals);
void add_chat(CLI::App& root, Globals& globals);
void add_context(CLI::App& root, Globals& globals);
void add_convert(CLI::App& root, Globals& globals);
void add_eval(CLI::App& root, Globals& globals);
void add_forward(CLI::App& root, Globals& globals);
void add_generate(CLI::App& root, Globals& globals);
void add_init(CLI::App& root, Globals& globals);
void add_info(CLI::App& root, Globals& globals);
void add_network(CLI::App& root, Globals& globals);
void add_network_compare(CLI::App& group, Globals& globals);
void add_network_faults(CLI::App& group, Globals& globals);
void add_network_measured(CLI::App& group, Globals& globals);
void add_network_simulate(CLI::App& group, Globals& globals);
void add_network_topology(CLI::App& group, Globals& globals);
void add_plan(CLI::App& root, Globals& globals);
void add_plan_design(CLI::App& plan, Globals& globals);
void add_plan_experts(CLI::App& plan, Globals& globals);
void add_plan_schedule(CLI::App& plan, Globals& globals);
void add_plan_train(CLI::App& plan, Globals& globals);
void add_plan_compare(CLI::App& plan, Globals& globals);
void add_plan_hardware(CLI::App& plan, Globals& globals);
void add_plan_infer(CLI::App& plan, Globals& globals);
void add_plan_probe(CLI::App& plan, Globals& globals);
void add_serve(CLI::App& root, Globals& globals);
void add_tokenize(CLI::App& root, Globals& globals);
void add_train(CLI::App& root, Globals& globals);
void add_verify(CLI::App& root, Globals& globals);

}  // namespace cachalot::cli
