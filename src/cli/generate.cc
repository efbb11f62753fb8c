// cachalot generate: a prompt continued.
#include <spdlog/spdlog.h>

#include "base/error.h"
#include "cli/cache_options.h"
#include "cli/command.h"
#include "cli/generation_output.h"
#include "cli/inputs.h"
#include "cli/session.h"
#include "infer/text_stream.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::string model, prompt, prompt_file, tokens;
  std::string precision = "f32";
  std::string mtp = "auto";
  int max_tokens = 256;
  bool ignore_eos = false;
  bool has_prompt = false;
  std::vector<std::string> stop;
  infer::SamplerConfig sampling;
  CacheOptions cache;
};

std::vector<std::int32_t> prompt_tokens(const Options& o, const Session& session) {
  if (!o.tokens.empty()) return parse_tokens(o.tokens);
  const bool file = !o.prompt_file.empty();
  const text::Tokenizer& tokenizer = session.need_tokenizer(file ? "--prompt-file" : "--prompt",
                                                            ", or give the prompt as --tokens");
  const std::string text = file ? read_text(o.prompt_file) : o.prompt;
  require_utf8(text, file ? o.prompt_file : std::string("--prompt"));
  std::vector<std::int32_t> tokens;
  if (tokenizer.config().add_bos_token && tokenizer.bos_id()) tokens.push_back(*tokenizer.bos_id());
  tokenizer.encode(text, tokens);
  return tokens;
}

void run(const Options& o, const Globals& globals) {
  const int sources = static_cast<int>(o.has_prompt) + static_cast<int>(!o.prompt_file.empty()) +
                      static_cast<int>(!o.tokens.empty());
  if (sources != 1) {
    throw Error(Code::kUsage, cat("generate got ", sources,
                                  " prompts, but needs exactly one of --prompt, --prompt-file and "
                                  "--tokens"));
  }
  infer::validate(o.sampling);
  const infer::MtpMode mtp = parse_mtp(o.mtp);
  const Session session(o.model, o.precision, globals.threads);
  if (!o.stop.empty()) session.need_tokenizer("--stop", ", or leave --stop out");

  infer::Request request;
  request.prompt = prompt_tokens(o, session);
  request.sampling = o.sampling;
  request.max_tokens = o.max_tokens;
  if (!o.ignore_eos) request.eos = session.eos();

  std::optional<infer::TextStream> stream;
  if (session.tokenizer) stream.emplace(*session.tokenizer, o.stop);
  std::string text;
  bool first = true;
  const auto emit = [&](const std::string& piece) {
    if (globals.json) {
      text += piece;
    } else if (!piece.empty()) {
      print(piece);
      flush_output();
    }
  };
  request.on_token = [&](std::int32_t token) {
    if (stream) {
      // An id the vocabulary has room for but the tokenizer no token: it has no text.
      if (session.tokenizer->has(token)) emit(stream->push(token));
      return !stream->stopped();
    }
    if (!globals.json) emit((first ? "" : ",") + std::to_string(token));
    first = false;
    return true;
  };
  infer::GeneratorConfig config{.mtp = mtp};
  o.cache.apply(config);
  infer::Generator generator(session.context(), session.model, config);
  const infer::Result result = std::move(generator.run({&request, 1}).front());
  if (stream) emit(stream->finish());

  if (globals.json) {
    print_json({{"tokens", result.tokens},
                {"text", stream ? Json(text) : Json(nullptr)},
                {"finish", infer::name(result.finish)},
                {"timings", timings_json(result, session.load_seconds)},
                {"mtp", mtp_json(result.mtp)}});
    return;
  }
  print("\n");
  flush_output();
  spdlog::info("{}", summary(result));
}

}  // namespace

void add_generate(CLI::App& root, Globals& globals) {
  CLI::App* command = add_command(root, globals, "generate", "Continue a prompt");
  auto o = std::make_shared<Options>();
  add_model_folder(command, o->model);
  command
      ->add_option("--prompt", o->prompt, "Text to continue, after BOS where the tokenizer adds it")
      ->type_name("TEXT")
      ->each([o = o.get()](const std::string&) { o->has_prompt = true; });
  command
      ->add_option("--prompt-file", o->prompt_file, "File with the text to continue; - for stdin")
      ->type_name("FILE");
  command->add_option("--tokens", o->tokens, "Token ids to continue, as they are: LIST or @FILE")
      ->type_name("1,2,3");
  command->add_option("--max-tokens", o->max_tokens, "New tokens at most")
      ->check(CLI::Range(0, 1 << 30))
      ->type_name("N");
  command->add_flag("--ignore-eos", o->ignore_eos, "Go on past the end-of-text token");
  command->add_option("--stop", o->stop, "Text that ends the output; may be given more than once")
      ->allow_extra_args(false)
      ->type_name("TEXT");
  command->add_option("--mtp", o->mtp, "Draft with the MTP layer; auto: where the model has one")
      ->check(CLI::IsMember({"on", "off", "auto"}))
      ->type_name("on|off|auto");
  add_precision(command, o->precision);
  add_kv_cache(command, o->cache);
  add_fast(command, o->cache);
  add_kv_memory(command, o->cache);
  add_sampling(command, o->sampling);
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
