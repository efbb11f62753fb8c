// cachalot eval: how well a model predicts a text.
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "cli/cache_options.h"
#include "cli/command.h"
#include "cli/eval_answers.h"
#include "cli/finite.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "cli/output_file.h"
#include "cli/routing_writer.h"
#include "cli/session.h"
#include "infer/evaluate.h"
#include "train/learning_evaluate.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::string model, text, conversations;
  std::string precision = "f32";
  int context = 1024;
  bool no_bos = false;
  CacheOptions cache;
  double learn = 0;
  int learn_every = 256;
  RoutingOptions routing;
};

struct Scores {
  infer::Evaluation sum;
  std::size_t bytes = 0;  // whose tokens were scored
  double seconds = 0;
  std::int64_t steps = 0;  // learned on the way
  double nats_per_token() const { return sum.nats / static_cast<double>(sum.tokens); }
  double nats_per_byte() const { return sum.nats / static_cast<double>(bytes); }
  double bits_per_byte() const { return nats_per_byte() / std::log(2.0); }
};

Json to_json(const Scores& s) {
  Json json = {{"nats_per_token", s.nats_per_token()},
               {"nats_per_byte", s.nats_per_byte()},
               {"bits_per_byte", s.bits_per_byte()},
               {"perplexity", std::exp(s.nats_per_token())},
               {"tokens", s.sum.tokens},
               {"bytes", s.bytes},
               {"context", s.sum.context},
               {"tokens_per_s", static_cast<double>(s.sum.tokens) / s.seconds},
               {"mtp", nullptr}};
  if (s.steps > 0) json["learning_steps"] = s.steps;
  if (s.sum.drafts > 0) {
    json["mtp"] = {
        {"drafted", s.sum.drafts},
        {"accepted", s.sum.accepted},
        {"acceptance", static_cast<double>(s.sum.accepted) / static_cast<double>(s.sum.drafts)}};
  }
  return json;
}

void print_text(const Scores& s) {
  print_line(fmt::format("nats per token   {:.4f}", s.nats_per_token()));
  print_line(fmt::format("nats per byte    {:.4f}", s.nats_per_byte()));
  print_line(fmt::format("bits per byte    {:.4f}", s.bits_per_byte()));
  print_line(fmt::format("scored           {} tokens, {} bytes, context {}", s.sum.tokens, s.bytes,
                         s.sum.context));
  if (s.steps > 0) print_line(fmt::format("learned on the way in {} steps", s.steps));
  if (s.sum.drafts > 0) {
    print_line(
        fmt::format("MTP acceptance   {:.1f}% ({} of {})",
                    100.0 * static_cast<double>(s.sum.accepted) / static_cast<double>(s.sum.drafts),
                    s.sum.accepted, s.sum.drafts));
  }
  spdlog::info("{:.0f} tokens/s", static_cast<double>(s.sum.tokens) / s.seconds);
}

infer::Evaluation evaluate_learning(const Options& o, const Context& ctx,
                                    const std::vector<std::int32_t>& tokens, bool terminal,
                                    std::int64_t& steps) {
  train::LearningOptions options;
  options.context = std::min(o.context, model::load_config(o.model).max_position_embeddings);
  options.piece = std::min(o.learn_every, options.context);
  options.lr = o.learn;
  options.progress = [&](std::int64_t done, std::int64_t total, double nats) {
    if (!terminal) return;
    fmt::print(stderr, "\r{} of {} tokens, {:.4f} nats per token{}", done, total,
               nats / static_cast<double>(done), done == total ? "\n" : "");
  };
  const auto numerics = o.precision == "f32" ? nn::Numerics::f32() : nn::Numerics::bf16();
  const auto learned = train::evaluate_learning(ctx, o.model, numerics, tokens, options);
  steps = learned.steps;
  infer::Evaluation sum;
  sum.tokens = learned.tokens;
  sum.nats = learned.nats;
  sum.context = options.context;
  return sum;
}

// Either is scored, and what is about texts goes with a text.
void check_source(const Options& o) {
  if (o.text.empty() == o.conversations.empty()) {
    throw Error(Code::kUsage, o.text.empty()
                                  ? "nothing to score: give --text or --conversations"
                                  : "--text and --conversations are both given; give one");
  }
  if (o.conversations.empty()) return;
  const auto refuse = [](const char* flag, const char* why) {
    throw Error(Code::kUsage,
                cat("--conversations with ", flag, ": ", why, ". Leave one of them out."));
  };
  if (o.learn > 0) refuse("--learn", "a model learns on from a text as it reads it");
  if (o.no_bos) refuse("--no-bos", "a conversation begins as its chat format says");
  if (o.routing.asked()) refuse("--routing-trace", "choices are written of a text's tokens");
}

void run(const Options& o, const Globals& globals) {
  check_source(o);
  if (!o.conversations.empty()) {
    const Session session(o.model, o.precision, globals.threads);
    eval_answers(session, o.conversations, o.context, o.cache, globals.json);
    return;
  }
  if (o.learn > 0 && o.precision != "f32" && o.precision != "bf16") {
    throw Error(Code::kUsage, cat("--learn with --precision ", o.precision,
                                  ": a model learns in f32 or bf16; name one of these"));
  }
  if (o.learn > 0 && (o.cache.format != CacheOptions{}.format || o.cache.fast)) {
    throw Error(Code::kUsage,
                "--learn with --kv-cache or --fast: a model that learns reads each window whole "
                "and keeps no cache. Leave one of them out.");
  }
  if (o.learn > 0 && o.routing.asked()) {
    throw Error(Code::kUsage,
                "--learn with --routing-trace: each token is read several times while the model "
                "changes. Leave one of them out.");
  }
  const std::string text = read_text(o.text);
  if (text.empty()) {
    throw Error(Code::kUsage, cat("--text: ", o.text, " is empty; a text to score is needed"));
  }
  require_utf8(text, o.text);
  check_output_file("--routing-trace", o.routing.file);
  const Session session(o.model, o.precision, globals.threads);
  const text::Tokenizer& tokenizer = session.need_tokenizer("eval", "");

  // BOS (else EOS, which separates documents in training) makes the first token a scored one.
  std::vector<std::int32_t> tokens;
  if (!o.no_bos) {
    const auto begin = tokenizer.bos_id() ? tokenizer.bos_id() : tokenizer.eos_id();
    if (begin) tokens.push_back(*begin);
  }
  const bool begun = !tokens.empty();
  tokenizer.encode(text, tokens);

  infer::EvaluateOptions options{
      .context = o.context, .attention = o.cache.attention(), .cache = o.cache.latent_format()};
  const bool terminal = ::isatty(STDERR_FILENO) != 0;
  options.progress = [&](std::int64_t done, std::int64_t total) {
    if (terminal) fmt::print(stderr, "\r{} of {} tokens{}", done, total, done == total ? "\n" : "");
  };
  std::optional<RoutingWriter> routing;
  if (o.routing.asked()) {
    options.routing_layer = session.model.config().moe_layer_or_first(o.routing.layer);
    check_routing_tokens(o.routing, std::ssize(tokens));
    routing.emplace(o.routing, session.model.config().route.experts);
    options.on_routing = [&](MatView<const std::int32_t> chosen) { routing->append(chosen); };
  }
  Scores scores;
  const auto start = std::chrono::steady_clock::now();
  scores.sum = o.learn > 0 ? evaluate_learning(o, session.context(), tokens, terminal, scores.steps)
                           : infer::evaluate(session.context(), session.model, tokens, options);
  scores.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  scores.bytes = text.size() - (begun ? 0 : tokenizer.decode_bytes({tokens.data(), 1}).size());
  if (globals.json) {
    print_json(to_json(scores));
  } else {
    print_text(scores);
  }
  if (routing) routing->write();
}

}  // namespace

void add_eval(CLI::App& root, Globals& globals) {
  CLI::App* command = add_command(
      root, globals, "eval",
      "Score a text: nats per token, nats and bits per byte, MTP acceptance.\n"
      "A window of --context tokens slides by half its length; apart from the beginning of the "
      "text, every token is predicted from at least half a context. The text is preceded by BOS "
      "(else EOS) where the tokenizer has one, so that its first token is scored too; without "
      "one, the first token is only read. MTP acceptance: the share of tokens for which the MTP "
      "layer's best guess was the main model's best guess.\n"
      "With --learn the model goes on learning: each --learn-every tokens are predicted first and "
      "then trained on, in a window of --context tokens. That is how adaptive compressors read a "
      "text, and how a model is to be compared with them. The folder stays as it is.\n"
      "With --conversations the answers in them are scored, each sample read from its beginning up "
      "to --context tokens: also how many tokens are the model's first choice, and how many "
      "answers "
      "greedy decoding would write to the letter.");
  auto o = std::make_shared<Options>();
  add_model_folder(command, o->model);
  command->add_option("--text", o->text, "UTF-8 text to score; - for stdin")->type_name("FILE");
  command
      ->add_option("--conversations", o->conversations,
                   "JSON Lines of conversations instead of a text, as data.conversations of a "
                   "recipe has them: their answers are scored")
      ->type_name("FILE");
  command->add_option("--context", o->context, "Window in tokens, at most the model's own context")
      ->check(CLI::Range(2, 1 << 30))
      ->type_name("N");
  command->add_flag("--no-bos", o->no_bos, "Put nothing before the text");
  command
      ->add_option("--learn", o->learn,
                   "Learning rate of AdamW while the text is read (1e-4 is a good one for a model "
                   "of some millions of parameters); 0: nothing is learned")
      ->check(finite_range(0, 1))
      ->type_name("RATE");
  command->add_option("--learn-every", o->learn_every, "Tokens predicted before each step")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N");
  add_precision(command, o->precision);
  add_kv_cache(command, o->cache);
  add_fast(command, o->cache);
  add_routing_flags(*command, o->routing);
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
