// cachalot bench decode | prefill: passes of a model beside the machine's ceilings.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "base/error.h"
#include "cli/cache_options.h"
#include "cli/command.h"
#include "cli/finite.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "cli/session.h"
#include "infer/bench_infer.h"
#include "runtime/describe.h"

namespace cachalot::cli {

namespace {

using infer::InferBenchCase;

struct Options {
  std::string model;
  std::string precision = kAutoPrecision;
  CacheOptions cache;
  infer::InferBenchOptions bench;
  bool prefill = false;
};

Json to_json(const InferBenchCase& c) {
  return {{"name", c.kind},
          {"batch", c.batch},
          {"context", c.context},
          {"drafts", c.drafts},
          {"prompt", c.prompt},
          {"tokens_per_s", c.tokens_per_s},
          {"plain_tokens_per_s", c.plain_tokens_per_s},
          {"pass_seconds", c.seconds},
          {"draft_seconds", c.draft_seconds},
          {"predicted_seconds", c.predicted_seconds},
          {"pays_from_acceptance", c.pays_from},
          {"bytes", c.rate * 1e9 * c.seconds * (c.kind == "decode" ? 1 : 0)},
          {"useful_flops", c.cost.useful_flops},
          {"experts_per_layer", c.experts},
          {"rate", c.rate},
          {"ceiling", c.ceiling},
          {"fraction", c.fraction},
          {"valid_turns", c.valid},
          {"turns", c.turns}};
}

Json weights_json(const Session& session) {
  return {{"precision", session.precision},
          {"placement", model::name(session.model.placement())},
          {"mapped_bytes", session.model.mapped_bytes()},
          {"copied_bytes", session.model.copied_bytes()},
          {"load_s", session.load_seconds}};
}

void print_decode(const std::vector<InferBenchCase>& cases) {
  print_line(fmt::format("{:>6} {:>8} {:>6} {:>10} {:>9} {:>9} {:>9} {:>7} {:>8} {:>6} {:>9} {:>7}",
                         "batch", "context", "drafts", "tokens/s", "ms/pass", "predicted",
                         "MB/token", "GB/s", "of read", "exp.", "pays from", "turns"));
  for (const InferBenchCase& c : cases) {
    const double tokens = c.batch * (1.0 + c.drafts);
    print_line(fmt::format(
        "{:>6} {:>8} {:>6} {:>10.1f} {:>9.1f} {:>9.1f} {:>9.0f} {:>7.1f} {:>7.0f}% {:>6.1f} {:>9} "
        "{:>3}/{}",
        c.batch, c.context, c.drafts, c.tokens_per_s, 1e3 * c.seconds, 1e3 * c.predicted_seconds,
        1e3 * c.rate * c.seconds / tokens, c.rate, 100 * c.fraction, c.experts,
        c.drafts == 0     ? ""
        : c.pays_from > 1 ? "never"
                          : fmt::format("{:.0f}%", 100 * c.pays_from),
        c.valid, c.turns));
  }
  print_line("");
  print_line(
      "of read: bytes of weights and cache that a pass must read, over the read bandwidth of the "
      "same turns.");
  print_line(
      "tokens/s with drafts: if all are right, the MTP layer's time included; pays from: the "
      "acceptance from which");
  print_line("drafting is faster than not. exp.: experts of a layer that a pass read.");
}

void print_prefill(const std::vector<InferBenchCase>& cases) {
  print_line(fmt::format("{:>7} {:>8} {:>10} {:>9} {:>10} {:>9} {:>8} {:>7}", "prompt", "context",
                         "tokens/s", "ms/pass", "predicted", "GFLOP/s", "of peak", "turns"));
  for (const InferBenchCase& c : cases) {
    print_line(fmt::format("{:>7} {:>8} {:>10.1f} {:>9.1f} {:>10.1f} {:>9.1f} {:>7.0f}% {:>3}/{}",
                           c.prompt, c.context, c.tokens_per_s, 1e3 * c.seconds,
                           1e3 * c.predicted_seconds, c.rate, 100 * c.fraction, c.valid, c.turns));
  }
  print_line("");
  print_line(
      "GFLOP/s: useful operations (products of weights, attention as with keys and values); of "
      "peak: of the same turns.");
}

void run(const Options& o, const Globals& globals) {
  const Session session(o.model, o.precision, globals.threads, ModelUse::kLong);
  infer::InferBenchOptions bench = o.bench;
  bench.attention = o.cache.attention();
  bench.cache =
      o.cache.latent_format().value_or(model::default_cache_format(session.model.precision()));
  if (!o.prefill) {
    for (const int drafts : bench.drafts) {
      if (drafts > 0 && !session.model.has_mtp()) {
        throw Error(Code::kUsage, cat(o.model, " has no MTP layer, so ", drafts,
                                      " drafts cannot be made: use --drafts 0"));
      }
    }
  }
  const auto say = [](const std::string& what) { spdlog::info("{}", what); };
  const auto cases = o.prefill ? infer::bench_prefill(session.context(), session.model, bench, say)
                               : infer::bench_decode(session.context(), session.model, bench, say);
  const runtime::Description d = runtime::describe(session.runtime);
  if (globals.json) {
    Json list = Json::array();
    for (const InferBenchCase& c : cases) list.push_back(to_json(c));
    print_json(
        {{"machine",
          {{"cpu", d.cpu}, {"device", d.device}, {"level", d.level}, {"threads", d.threads}}},
         {"weights", weights_json(session)},
         {"cases", list}});
    return;
  }
  print_line(fmt::format("{}, level {}, {} threads; products in {}, cache {}",
                         d.device.empty() ? d.cpu : d.device, d.level, d.threads, session.precision,
                         name(bench.cache)));
  print_line(fmt::format("weights {}: {} of files, {} held beside them, ready after {:.2f} s",
                         model::name(session.model.placement()),
                         human_bytes(static_cast<double>(session.model.mapped_bytes())),
                         human_bytes(static_cast<double>(session.model.copied_bytes())),
                         session.load_seconds));
  if (o.prefill) {
    print_prefill(cases);
  } else {
    print_decode(cases);
  }
}

void add(CLI::App& bench, Globals& globals, bool prefill) {
  CLI::App* command = add_command(
      bench, globals, prefill ? "prefill" : "decode",
      prefill ? "Passes of a prompt: tokens/s, and useful operations beside the product peak"
              : "Decode passes by batch, context and drafts: tokens/s, and bytes read beside the "
                "memory's bandwidth");
  auto o = std::make_shared<Options>();
  o->prefill = prefill;
  if (prefill) o->bench.contexts = {0, 4096};
  add_model_folder(command, o->model);
  const auto list = [&](const char* flag, std::vector<int>& to, const char* what, int least) {
    command->add_option(flag, to, what)
        ->delimiter(',')
        ->check(CLI::Range(least, 1 << 20))
        ->type_name("N,N,...");
  };
  list("--context", o->bench.contexts, "Tokens in the cache before a pass", 0);
  if (prefill) {
    list("--prompt", o->bench.prompts, "Tokens of a pass", 1);
  } else {
    list("--batch", o->bench.batches, "Sequences in a pass", 1);
    command->add_option("--drafts", o->bench.drafts, "Drafts verified with each token")
        ->delimiter(',')
        ->check(CLI::Range(0, 4))
        ->type_name("N,N,...");
  }
  command
      ->add_option("--turns", o->bench.turns.turns,
                   "Turns of a case beside ceilings that agree; their median counts")
      ->check(CLI::Range(1, 1000))
      ->type_name("N");
  command
      ->add_option("--limit", o->bench.turns.limit_seconds,
                   "Seconds after which a case ends with the turns it has")
      ->check(finite_range(0.1, 36000))
      ->type_name("SECONDS");
  add_precision_or_auto(command, o->precision);
  add_kv_cache(command, o->cache);
  add_fast(command, o->cache);
  on_run(command, globals, o, run);
}

}  // namespace

void add_bench_decode(CLI::App& bench, Globals& globals) { add(bench, globals, false); }
void add_bench_prefill(CLI::App& bench, Globals& globals) { add(bench, globals, true); }

}  // namespace cachalot::cli
