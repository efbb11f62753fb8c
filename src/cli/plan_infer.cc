// cachalot plan infer: what serving a model on given hardware takes, predicted.
#include <fmt/format.h>

#include "base/error.h"
#include "cli/command.h"
#include "cli/output.h"
#include "plan/infer.h"

namespace cachalot::cli {

namespace {

using plan::DecodeCase;
using plan::InferPlan;

struct Options {
  std::string model, hardware;
  std::string weights = "fp8", cache = "bf16";
  plan::InferOptions infer;
};

Json time_json(const cost::PassTime& t, double communication) {
  return {{"dense_seconds", t.dense},
          {"expert_seconds", t.experts},
          {"attention_seconds", t.attention},
          {"overhead_seconds", t.overhead},
          {"memory_bound_seconds", t.memory},
          {"compute_bound_seconds", t.compute},
          {"communication_seconds", communication}};
}

Json to_json(const DecodeCase& c) {
  return {{"batch", c.batch},
          {"context", c.context},
          {"fits", c.fits},
          {"bytes_too_many", c.fits ? 0.0 : c.over},
          {"step_seconds", c.step},
          {"tokens_per_step", c.tokens_per_step},
          {"tpot_seconds", c.tpot},
          {"tokens_per_s", c.tokens_per_s},
          {"limit", cost::name(c.limit)},
          {"two_micro_batches", c.overlapped},
          {"mtp_gain", c.mtp_gain},
          {"cost_per_million_tokens", c.per_million},
          {"parts", time_json(c.time, c.communication)}};
}

Json to_json(const InferPlan& p, const plan::HardwareProfile& h) {
  Json cases = Json::array();
  for (const DecodeCase& c : p.decode) cases.push_back(to_json(c));
  Json out = {{"model", p.model},
              {"hardware", p.hardware},
              {"arithmetic", p.arithmetic},
              {"layout",
               {{"nodes", p.layout.nodes},
                {"devices", p.layout.devices},
                {"tensor", p.layout.tensor},
                {"experts_per_device", p.layout.experts_per_device}}},
              {"memory",
               {{"dense_bytes", p.memory.dense},
                {"expert_bytes", p.memory.experts},
                {"available_bytes", p.memory.available},
                {"free_bytes", p.memory.free()},
                {"cache_bytes_per_token", p.memory.cache_per_token}}},
              {"prefill",
               {{"prompt", p.prefill.prompt},
                {"ttft_seconds", p.prefill.ttft},
                {"tokens_per_s", p.prefill.tokens_per_s},
                {"limit", cost::name(p.prefill.limit)},
                {"cost_per_million_tokens", p.prefill.per_million},
                {"parts", time_json(p.prefill.time, p.prefill.communication)}}},
              {"decode", cases}};
  if (p.bound) {
    out["expert_bound"] = {{"tokens", p.bound->tokens},
                           {"destinations", p.bound->destinations},
                           {"bytes_per_s", p.bound->rate},
                           {"stage_seconds", p.bound->stage},
                           {"tpot_seconds", p.bound->tpot},
                           {"achieved_bytes_per_s", p.bound->achieved_rate},
                           {"achieved_tpot_seconds", p.bound->achieved_tpot}};
  }
  if (p.split) {
    out["split"] = {{"batch", p.split->decode.batch},
                    {"context", p.split->decode.context},
                    {"tpot_seconds", p.split->decode.tpot},
                    {"prefill_tokens_per_s_and_node", p.split->prefill_per_node},
                    {"decode_tokens_per_s_and_node", p.split->decode_per_node},
                    {"prefill_nodes_per_decode_node", p.split->prefill_per_decode},
                    {"cost_per_million_output_tokens", p.split->per_million_request},
                    {"prefill_nodes", p.split->prefill_nodes},
                    {"decode_nodes", p.split->decode_nodes}};
  }
  out["currency"] = h.price.currency;
  out["notes"] = p.notes;
  return out;
}

std::string money(double x, const plan::HardwareProfile& h) {
  return x > 0 ? fmt::format("{:.3f} {}", x, h.price.currency) : "-";
}
std::string gb(double bytes) { return fmt::format("{:.1f} GB", bytes / 1e9); }

void print_decode(const InferPlan& p, const Options& o, const plan::HardwareProfile& h) {
  const bool drafts = o.infer.drafts > 0;
  const auto last = [&](std::string_view limit, const std::string& gain) {
    return drafts ? fmt::format("{:<20} {:>8}", limit, gain) : std::string(limit);
  };
  print_line("");
  print_line(fmt::format("{:>7} {:>8} {:>9} {:>9} {:>12} {:>8} {:>14}  {}", "batch", "context",
                         "step, ms", "TPOT, ms", "tokens/s", "each", "per 1e6",
                         last("limited by", "MTP gain")));
  for (const DecodeCase& c : p.decode) {
    const std::string head = fmt::format("{:>7} {:>8}", c.batch, c.context);
    if (!c.fits) {
      print_line(fmt::format("{} does not fit: {} too much on each device", head, gb(c.over)));
      continue;
    }
    print_line(fmt::format("{} {:>9.3f} {:>9.3f} {:>12.1f} {:>8.1f} {:>14}  {}", head, 1e3 * c.step,
                           1e3 * c.tpot, c.tokens_per_s, 1 / c.tpot, money(c.per_million, h),
                           last(cost::name(c.limit), fmt::format("{:.2f}", c.mtp_gain))));
  }
  print_line("");
  print_line(fmt::format(
      "batch: sequences of each {}; tokens/s: of all {}; each: of one sequence.",
      p.layout.tensor > 1 ? fmt::format("{} devices", p.layout.tensor) : std::string("device"),
      p.layout.devices > 1 ? fmt::format("{} devices", p.layout.devices)
                           : std::string("of the device")));
}

void print_rest(const InferPlan& p, const Options& o, const plan::HardwareProfile& h) {
  const plan::PrefillCase& f = p.prefill;
  print_line("");
  print_line(
      fmt::format("prefill of {}: first token after {:.3f} s (nothing waiting), {:.0f} "
                  "tokens/s in all, {} per 1e6, limited by {}",
                  f.prompt, f.ttft, f.tokens_per_s, money(f.per_million, h), cost::name(f.limit)));
  if (p.bound) {
    print_line(fmt::format(
        "experts' communication alone: {:.2f} us per layer ({} tokens to {} experts each at {:.0f} "
        "GB/s), so at least {:.2f} ms per token{}",
        1e6 * p.bound->stage, p.bound->tokens, p.bound->destinations, p.bound->rate / 1e9,
        1e3 * p.bound->tpot,
        p.bound->achieved_rate == p.bound->rate
            ? ""
            : fmt::format("; at the measured {:.0f} GB/s {:.2f} ms", p.bound->achieved_rate / 1e9,
                          1e3 * p.bound->achieved_tpot)));
  }
  if (p.split) {
    print_line(fmt::format(
        "split for {} + {} tokens{}: {:.2f} nodes of prefill per node of decoding (batch {}, "
        "{:.0f} "
        "and {:.0f} tokens/s a node); {} per 1e6 new tokens, prompts included",
        o.infer.prompt, o.infer.output,
        o.infer.hit_rate > 0 ? fmt::format(", {:.0f}% of prompts cached", 100 * o.infer.hit_rate)
                             : "",
        p.split->prefill_per_decode, p.split->decode.batch, p.split->prefill_per_node,
        p.split->decode_per_node, money(p.split->per_million_request, h)));
    if (o.infer.requests_per_s > 0) {
      print_line(fmt::format("for {} requests/s: {} nodes of prefill, {} of decoding",
                             o.infer.requests_per_s, p.split->prefill_nodes,
                             p.split->decode_nodes));
    }
  }
  for (const std::string& note : p.notes) print_line("note: " + note);
}

void run(const Options& options, const Globals& globals) {
  Options o = options;
  o.infer.weights = model::parse_weight_format(o.weights);
  o.infer.cache_bytes = o.cache == "fp8" ? 1 : 2;
  if (o.infer.acceptance > 0 && o.infer.drafts == 0) o.infer.drafts = 1;
  const cost::Decoder decoder = cost::load_decoder(o.model);
  const plan::HardwareProfile hardware = plan::load_hardware(o.hardware);
  const InferPlan p = plan::plan_infer(decoder, hardware, o.infer);
  if (globals.json) {
    print_json(to_json(p, hardware));
    return;
  }
  const plan::ServeLayout& l = p.layout;
  print_line(fmt::format("{}, weights {}, cache {}, products in {}; {} x {} ({} in all)", p.model,
                         o.weights, o.cache, p.arithmetic, l.nodes, p.hardware,
                         fmt::format("{} device{}", l.devices, l.devices == 1 ? "" : "s")));
  print_line(fmt::format(
      "each device: {} of experts ({} per layer), {} of everything else{}; {} are free, {} tokens",
      gb(p.memory.experts), l.experts_per_device, gb(p.memory.dense),
      l.tensor > 1 ? fmt::format(" (shared by {})", l.tensor) : "", gb(p.memory.free()),
      static_cast<std::int64_t>(p.memory.free() / p.memory.cache_per_token)));
  print_decode(p, o, hardware);
  print_rest(p, o, hardware);
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
      ->check(CLI::Range(0.0, 0.999))
      ->type_name("SHARE");
  command
      ->add_option("--requests", infer.requests_per_s,
                   "Requests per second to size prefill and decoding for")
      ->check(CLI::Range(0.0, 1e9))
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
      ->check(CLI::Range(0.0, 1.0))
      ->type_name("SHARE");
  command
      ->add_option("--drafts", o->infer.drafts,
                   "Drafts verified with each token; with an "
                   "acceptance 1 by default")
      ->check(CLI::Range(0, 4))
      ->type_name("N");
  command->add_option("--reserve", o->infer.reserve, "Share of memory for activations and buffers")
      ->check(CLI::Range(0.0, 0.9))
      ->type_name("SHARE");
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
