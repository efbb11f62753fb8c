// cachalot plan infer: what serving a model on given hardware takes, predicted.
#include "base/error.h"
#include "cli/command.h"
#include "cli/finite.h"
#include "cli/html_page.h"
#include "cli/output.h"
#include "cli/output_file.h"
#include "cli/plan_infer_report.h"
#include "cli/remarks.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::string model, hardware, html;
  std::string weights = "fp8", cache = "bf16";
  double tpot_ms = 0;
  plan::InferOptions infer;
};

void run(const Options& options, const Globals& globals) {
  Options o = options;
  check_output_file("--html", o.html);
  o.infer.weights = model::parse_weight_format(o.weights);
  o.infer.cache = o.cache == "fp8" ? cost::CacheFormat::kFp8 : cost::CacheFormat::kBf16;
  o.infer.tpot = 1e-3 * o.tpot_ms;
  if (o.infer.acceptance > 0 && o.infer.drafts == 0) o.infer.drafts = 1;
  std::vector<std::string> remarks;
  const cost::Decoder decoder = cost::load_decoder(o.model, &remarks);
  say_remarks(remarks);
  const plan::HardwareProfile hardware = plan::load_hardware(o.hardware);
  const plan::InferPlan p = plan::plan_infer(decoder, hardware, o.infer);
  const InferReport report{p, o.infer, decoder, hardware, o.weights, o.cache};
  if (!o.html.empty()) {
    write_html(o.html, page_of(report, plan::infer_grid(decoder, hardware, o.infer, p.layout)),
               globals);
  }
  if (globals.json) {
    print_json(to_json(report));
  } else {
    print(to_text(report));
  }
}

void add_lists(CLI::App* command, plan::InferOptions& infer) {
  command->add_option("--batch", infer.batches, "Sequences of each device (or of those that share)")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N,N,...");
  command->add_option("--context", infer.contexts, "Tokens in the cache")
      ->delimiter(',')
      ->check(CLI::Range(0, 1 << 26))
      ->type_name("N,N,...");
  command->add_option("--prompt", infer.prompt, "Tokens of a prompt")
      ->check(CLI::Range(1, 1 << 26))
      ->type_name("N");
  command->add_option("--output", infer.output, "New tokens of a request, for the split")
      ->check(CLI::Range(1, 1 << 26))
      ->type_name("N");
  command->add_option("--hit-rate", infer.hit_rate, "Share of prompts found in a prefix cache")
      ->check(finite_range(0, 0.999))
      ->type_name("SHARE");
  command
      ->add_option("--requests", infer.requests_per_s,
                   "Requests per second to size prefill and decoding for")
      ->check(finite_range(0, 1e9))
      ->type_name("N");
}

}  // namespace

void add_plan_infer(CLI::App& plan, Globals& globals) {
  CLI::App* command =
      add_command(plan, globals, "infer",
                  "Serving a model on given hardware: memory, time per token and to "
                  "the first one, throughput, cost");
  auto o = std::make_shared<Options>();
  command
      ->add_option("model", o->model,
                   "Model folder, a config.json, or the name of a known model (deepseek-v3)")
      ->required()
      ->type_name("MODEL");
  command
      ->add_option("--hardware", o->hardware,
                   "Profile: a TOML file, or a known name (h800); `plan probe` writes one")
      ->required()
      ->type_name("PROFILE");
  command->add_option("--nodes", o->infer.nodes, "Nodes; 0: as few as it fits on")
      ->check(CLI::Range(0, 1 << 14))
      ->type_name("N");
  command
      ->add_option("--tensor", o->infer.tensor,
                   "Devices that share the dense weights; 0: as few as it fits on")
      ->check(CLI::Range(0, 1 << 10))
      ->type_name("N");
  command
      ->add_option("--precision", o->weights,
                   "How weights are stored: f32, bf16, fp8, int8 or int4")
      ->type_name("NAME");
  command->add_option("--kv-cache", o->cache, "How the cache is stored: bf16 or fp8")
      ->check(CLI::IsMember({"bf16", "fp8"}))
      ->type_name("NAME");
  add_lists(command, o->infer);
  command
      ->add_option("--mtp-acceptance", o->infer.acceptance,
                   "Chance that a draft of the MTP layer is right; 0: no drafts")
      ->check(finite_range(0, 1))
      ->type_name("SHARE");
  command
      ->add_option("--drafts", o->infer.drafts,
                   "Drafts verified with each token; with an "
                   "acceptance 1 by default")
      ->check(CLI::Range(0, 4))
      ->type_name("N");
  command->add_option("--reserve", o->infer.reserve, "Share of memory for activations and buffers")
      ->check(finite_range(0, 0.9))
      ->type_name("SHARE");
  command
      ->add_option("--tpot", o->tpot_ms,
                   "Milliseconds per token at most: names the batch with the most tokens per "
                   "second within it, and the split keeps to it; 0: no limit")
      ->check(finite_range(0, 1e9))
      ->type_name("MS");
  add_html_flag(*command, o->html);
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
