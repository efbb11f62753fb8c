// cachalot plan train: step time by parts, memory, utilisation, hours and money of a training run.
#include <fmt/format.h>

#include <cmath>

#include "base/error.h"
#include "cli/command.h"
#include "cli/finite.h"
#include "cli/html_page.h"
#include "cli/output.h"
#include "cli/output_file.h"
#include "cli/plan_train_report.h"
#include "cli/remarks.h"
#include "cost/cost.h"
#include "cost/decoder.h"
#include "plan/measured_step.h"
#include "plan/train_plan.h"
#include "plan/usual_batch.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::string model;
  std::string hardware;
  int nodes = 1;
  int batch = 0;
  int sequence = 4096;
  std::string precision = "auto";
  double tokens = 0;
  double device_hours = 0;
  std::string layout = "search";
  std::string beside;
  std::string html;
};

cost::TrainPrecision precision_of(const std::string& text, const plan::HardwareProfile& hardware) {
  if (text == "f32") return cost::TrainPrecision::kF32;
  if (text == "bf16") return cost::TrainPrecision::kBf16;
  if (text == "fp8") return cost::TrainPrecision::kFp8;
  const auto known = [&](double peak, const std::vector<double>& rates) {
    return peak > 0 || !rates.empty();
  };
  if (known(hardware.device.fp8_tflops, {})) return cost::TrainPrecision::kFp8;
  if (known(hardware.device.bf16_tflops, hardware.rates.bf16_gflops)) {
    return cost::TrainPrecision::kBf16;
  }
  return cost::TrainPrecision::kF32;
}

int positive(std::string_view key, const std::string& value) {
  std::size_t used = 0;
  int number = 0;
  try {
    number = std::stoi(value, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used != value.size() || used == 0 || number < 1) {
    throw Error(Code::kUsage,
                cat("--layout: ", key, "=", value, "; a whole number from 1 is needed."));
  }
  return number;
}

// "pp=16,ep=64,tp=1,micro_batch=1,schedule=dualpipe,recompute=selective", any of them.
plan::LayoutChoice parse_layout(const std::string& text) {
  plan::LayoutChoice choice;
  if (text == "search") return choice;
  static constexpr std::string_view kKeys[] = {"pp",          "tp",       "ep",
                                               "micro_batch", "schedule", "recompute"};
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string item = text.substr(begin, end - begin);
    begin = end + 1;
    const std::size_t equals = item.find('=');
    const std::string key = item.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : item.substr(equals + 1);
    if (key == "pp") {
      choice.pipeline = positive(key, value);
    } else if (key == "tp") {
      choice.tensor = positive(key, value);
    } else if (key == "ep") {
      choice.expert = positive(key, value);
    } else if (key == "micro_batch") {
      choice.micro_batch = positive(key, value);
    } else if (key == "schedule") {
      choice.schedule = cost::parse_schedule_kind(value);
    } else if (key == "recompute" && (value == "selective" || value == "full" || value == "none")) {
      choice.recompute = value == "none"   ? cost::Recompute::kNone
                         : value == "full" ? cost::Recompute::kFull
                                           : cost::Recompute::kSelective;
    } else {
      const std::string near = nearest(key, std::begin(kKeys), std::end(kKeys));
      throw Error(Code::kUsage,
                  cat("--layout: '", item, "' is not understood",
                      near.empty() || key == near ? "" : "; did you mean ", key == near ? "" : near,
                      ". It takes pp, tp, ep, micro_batch, schedule and "
                      "recompute (none, selective, full), as in pp=16,ep=64,schedule=dualpipe."));
    }
  }
  return choice;
}

bool all_fixed(const plan::LayoutChoice& c) {
  return c.pipeline && c.tensor && c.expert && c.micro_batch && c.schedule && c.recompute;
}

// Why a search came back with nothing, and the least that would do.
Error no_layout(const model::Config& config, const plan::HardwareProfile& hardware,
                const cost::Layout& base, const plan::LayoutChoice& choice,
                const plan::LayoutSearch& search) {
  const std::string why = plan::why_no_layout(config, hardware, base, choice);
  if (search.too_large == 0) {
    return Error(Code::kConfig,
                 cat("no layout of ", base.devices, " devices is possible: ", why, "."));
  }
  // However it is dealt out: weights, float gradients and masters, two moments.
  const cost::Parameters p = cost::parameters(config);
  const double states =
      cost::least_state_bytes(base.precision) * static_cast<double>(p.total + p.mtp.total);
  const double node = plan::usable_memory(hardware) * base.devices_per_node;
  return Error(Code::kConfig,
               cat("no layout of ", base.devices, " devices fits the memory (", search.too_large,
                   " tried). The nearest: ", why, ". Weights, gradients and optimizer alone are ",
                   fmt::format("{:.1f}", states / 1e12), " TB: at least ",
                   static_cast<long long>(std::ceil(states / node)), " such nodes (--nodes)."));
}

std::vector<plan::TrainPlan> plans(const model::Config& config,
                                   const plan::HardwareProfile& hardware, const cost::Layout& base,
                                   const plan::LayoutChoice& choice) {
  if (all_fixed(choice)) {
    cost::Layout l = base;
    l.pipeline = *choice.pipeline;
    l.tensor = *choice.tensor;
    l.expert = *choice.expert;
    l.micro_batch = *choice.micro_batch;
    l.schedule = *choice.schedule;
    l.recompute = *choice.recompute;
    plan::TrainPlan plan = plan::plan_training(config, hardware, l);
    const std::string miss = plan::why_too_large(plan, hardware);
    if (!miss.empty()) throw Error(Code::kConfig, cat("the layout does not fit: ", miss, "."));
    return {std::move(plan)};
  }
  plan::LayoutSearch search = plan::search_layouts(config, hardware, base, choice);
  if (!search.best.empty()) return std::move(search.best);
  throw no_layout(config, hardware, base, choice, search);
}

void run(const Options& o, const Globals& globals) {
  check_output_file("--html", o.html);
  std::vector<std::string> remarks;
  const model::Config config = cost::load_latent_config(o.model, &remarks);
  say_remarks(remarks);
  const plan::HardwareProfile hardware = plan::load_hardware(o.hardware);
  cost::Layout base;
  base.devices_per_node = hardware.device.per_node;
  base.devices = plan::devices_of(hardware, o.nodes);
  base.sequence = o.sequence;
  base.precision = precision_of(o.precision, hardware);
  const plan::UsualBatch usual = plan::usual_batch(base.devices, base.sequence);
  base.batch = o.batch > 0 ? o.batch : usual.sequences;
  const auto found = plans(config, hardware, base, parse_layout(o.layout));
  TrainReport report{config, hardware, found, o.tokens, o.device_hours, {}, {}};
  if (o.batch == 0) report.batch_reason = usual.why;
  if (!o.beside.empty()) report.beside = plan::load_measured_step(o.beside);
  if (!o.html.empty()) write_html(o.html, page_of(report), globals);
  if (globals.json) {
    print_json(to_json(report));
  } else {
    print(to_text(report));
  }
}

}  // namespace

void add_plan_train(CLI::App& plan, Globals& globals) {
  CLI::App* command =
      add_command(plan, globals, "train",
                  "Step time by parts, memory, utilisation, hours and money of a training run");
  auto o = std::make_shared<Options>();
  command
      ->add_option("model", o->model,
                   "Model folder, a config.json, or the name of a known model (deepseek-v3)")
      ->required()
      ->type_name("MODEL");
  command->add_option("--hardware", o->hardware, "A profile's name or TOML file")
      ->required()
      ->type_name("PROFILE");
  command->add_option("--nodes", o->nodes, "Nodes")->check(CLI::Range(1, 1 << 20))->type_name("N");
  command
      ->add_option(
          "--batch", o->batch,
          "Sequences of a step; 0: as many on each device, at least one, as make some four "
          "million tokens in all, and the plan says why")
      ->check(CLI::Range(0, 1 << 24))
      ->type_name("N");
  command->add_option("--sequence", o->sequence, "Tokens of a sequence")
      ->check(CLI::Range(1, 1 << 24))
      ->type_name("N");
  command
      ->add_option("--precision", o->precision,
                   "Of the products: f32, bf16, fp8, or auto: the lowest the hardware has")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "fp8"}))
      ->type_name("P");
  command
      ->add_option("--layout", o->layout,
                   "search, or what is fixed of it: "
                   "pp=16,ep=64,tp=1,micro_batch=1,schedule=dualpipe,recompute=selective")
      ->type_name("LAYOUT");
  command->add_option("--tokens", o->tokens, "Tokens of the whole run, for hours and money")
      ->check(finite_range(0, 1e18))
      ->type_name("N");
  command
      ->add_option("--device-hours", o->device_hours,
                   "Price so many device hours instead of --tokens")
      ->check(finite_range(0, 1e15))
      ->type_name("H");
  command->add_option("--beside", o->beside, "A measured step (TOML) to compare with")
      ->type_name("FILE");
  add_html_flag(*command, o->html);
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
