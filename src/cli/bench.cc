// cachalot bench: what is measured, each in a file of its own.
#include "cli/command.h"

namespace cachalot::cli {

void add_bench(CLI::App& root, Globals& globals) {
  CLI::App* bench = root.add_subcommand("bench", "Measures this machine, ceilings beside it");
  bench->require_subcommand(1);
  add_bench_kernels(*bench, globals);
  add_bench_train(*bench, globals);
  add_bench_decode(*bench, globals);
  add_bench_prefill(*bench, globals);
  add_bench_drafts(*bench, globals);
  add_bench_serve(*bench, globals);
  add_bench_load(*bench, globals);
  add_bench_accumulation(*bench, globals);
  add_bench_gradients(*bench, globals);
  add_bench_comm(*bench, globals);
}

}  // namespace cachalot::cli
