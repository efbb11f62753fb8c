// cachalot generate: a prompt continued.
#include <spdlog/spdlog.h>

#include "base/error.h"
#include "cli/command.h"
#include "cli/engine_options.h"
#include "cli/generation_output.h"
#include "cli/inputs.h"
#include "cli/session.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::string model, prompt, prompt_file, tokens;
  std::string precision = "f32";
  std::string context_end = "stop";
  int max_tokens = 256;
  int choices = 1;
  int logprobs = -1;
  bool ignore_eos = false;
  bool has_prompt = false;
  std::vector<std::string> stop;
  infer::SamplerConfig sampling;
  EngineOptions engine;
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
  const Session session(o.model, o.precision, globals.threads);
  if (!o.stop.empty()) session.need_tokenizer("--stop", ", or leave --stop out");

  infer::Request request;
  request.prompt = prompt_tokens(o, session);
  request.sampling = o.sampling;
  request.max_tokens = o.max_tokens;
  request.stop = o.stop;
  request.n = o.choices;
  request.logprobs = o.logprobs;
  if (o.context_end == "slide") request.context_end = infer::ContextEnd::kSlide;
  if (!o.ignore_eos) request.eos = session.eos();
  const bool has_text = session.tokenizer.has_value();
  // One answer is shown as it comes, several one after the other.
  if (!globals.json && o.choices == 1) {
    request.on_token = [has_text, first = true](const infer::NewToken& token) mutable {
      if (has_text) {
        print(token.text);
      } else {
        print((first ? "" : ",") + std::to_string(token.token));
      }
      first = false;
      flush_output();
      return true;
    };
  }
  LocalEngine engine(session, o.engine);
  const infer::Result result = engine->run(request);

  if (globals.json) {
    Json json = choice_json(result.choices.front(), has_text);
    if (o.choices > 1) {
      json["choices"] = Json::array();
      for (const infer::Choice& c : result.choices) {
        json["choices"].push_back(choice_json(c, has_text));
      }
    }
    json["timings"] = timings_json(result, session.load_seconds);
    json["mtp"] = mtp_json(result.mtp());
    print_json(json);
    engine.finish();
    return;
  }
  if (o.choices > 1) {
    for (std::size_t i = 0; i < result.choices.size(); ++i) {
      const infer::Choice& c = result.choices[i];
      print_line("--- " + std::to_string(i + 1));
      print(has_text ? c.text : join_tokens(c.tokens));
      print("\n");
    }
  } else {
    print("\n");
  }
  flush_output();
  spdlog::info("{}", summary(result));
  engine.finish();
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
  command->add_option("-n,--choices", o->choices, "Answers to the one prompt")
      ->check(CLI::Range(1, infer::kMaxChoices))
      ->type_name("N");
  command
      ->add_option(
          "--logprobs", o->logprobs,
          "With --json: log-probabilities of each token and of so many likeliest ones; -1: "
          "none")
      ->check(CLI::Range(-1, infer::kMaxLogprobs))
      ->type_name("N");
  command
      ->add_option("--context-end", o->context_end,
                   "Where the model's context is full: stop, or slide: forget the older half, read "
                   "the rest again and go on")
      ->check(CLI::IsMember({"stop", "slide"}))
      ->type_name("stop|slide");
  add_precision(command, o->precision);
  add_engine(command, o->engine);
  add_sampling(command, o->sampling);
  add_record_flags(*command, o->engine.routing);
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
