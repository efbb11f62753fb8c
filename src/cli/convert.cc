// cachalot convert: a model folder in another precision.
#include <fmt/format.h>

#include <filesystem>

#include "base/error.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/remarks.h"
#include "cli/weight_options.h"
#include "model/convert.h"
#include "runtime/runtime.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::string source, target;
  std::string dtype;
  WeightOptions weights;
};

void run(const Options& o, const Globals& globals) {
  const model::WeightFormat format = model::parse_weight_format(o.dtype);
  const runtime::Runtime rt({.threads = globals.threads, .cpu = {}});
  Progress progress;
  model::ConvertOptions options;
  options.format = format;
  apply(o.weights, options);
  if (o.weights.asks_for_head()) refuse_tied_head(o.weights, model::load_config(o.source));
  options.progress = [&](std::size_t done, std::size_t all) {
    progress.show(fmt::format("{} {} of {} tensors",
                              bar(static_cast<double>(done), static_cast<double>(all)), done, all),
                  done == all);
  };
  const model::ConvertReport report =
      model::convert_model(rt.context(), o.source, o.target, options);
  say_remarks(report.remarks);
  if (globals.json) {
    print_json({{"out", o.target},
                {"dtype", model::name(format)},
                {"tensors", report.tensors},
                {"fp8_tensors", report.fp8_tensors},
                {"packed_tensors", report.packed_tensors},
                {"bytes", report.bytes},
                {"copied_files", report.copied_files}});
    return;
  }
  print_line(fmt::format("{}: {} tensors ({} in FP8, {} packed), {}", o.target, report.tensors,
                         report.fp8_tensors, report.packed_tensors,
                         human_bytes(static_cast<double>(report.bytes))));
  for (const std::string& file : report.copied_files) print_line("  copied " + file);
}

}  // namespace

void add_convert(CLI::App& root, Globals& globals) {
  CLI::App* command =
      add_command(root, globals, "convert", "Write a model folder in another precision");
  auto o = std::make_shared<Options>();
  command->add_option("source", o->source, "Model folder to read")->required()->type_name("SRC");
  command->add_option("target", o->target, "Model folder to write; must not be there, or be empty")
      ->required()
      ->type_name("DST");
  command
      ->add_option(
          "--dtype", o->dtype,
          "f32, bf16, fp8: E4M3 with a scale per block of 128 x 128, or int8, int4: with a "
          "BF16 scale per group of columns")
      ->required()
      ->type_name("f32|bf16|fp8|int8|int4");
  add_weight_options(command, o->weights);
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
