// cachalot generate: a prompt continued.
#include <spdlog/spdlog.h>

#include "base/error.h"
#include "cli/command.h"
#include "cli/engine_options.h"
#include "cli/generation_output.h"
#include "cli/inputs.h"
#include "cli/prompt.h"
#include "cli/session.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::string model;
  PromptOptions prompt;
  std::string precision = "f32";
  std::string context_end = "stop";
  int max_tokens = 256;
  int choices = 1;
  int logprobs = -1;
  bool ignore_eos = false;
  std::vector<std::string> stop;
  infer::SamplerConfig sampling;
  EngineOptions engine;
};

void run(const Options& o, const Globals& globals) {
  require_prompt(o.prompt, "generate");
  infer::validate(o.sampling);
  const Session session(o.model, o.precision, globals.threads);
  if (!o.stop.empty()) session.need_tokenizer("--stop", ", or leave --stop out");

  infer::Request request;
  request.prompt = prompt_tokens(o.prompt, session);
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
  LocalEngine engine(session, o.engine, request.n);
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
    print(has_text ? result.choices.front().untold() : "");
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
  add_prompt(command, o->prompt);
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
