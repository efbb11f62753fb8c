// cachalot generate: a prompt continued.
#include <spdlog/spdlog.h>

#include "base/error.h"
#include "cli/command.h"
#include "cli/engine_options.h"
#include "cli/form_options.h"
#include "cli/generation_output.h"
#include "cli/inputs.h"
#include "cli/output_file.h"
#include "cli/prompt.h"
#include "cli/session.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::string model;
  PromptOptions prompt;
  std::string precision = kAutoPrecision;
  std::string context_end = "stop";
  int max_tokens = 256;
  int choices = 1;
  int logprobs = -1;
  bool ignore_eos = false;
  std::vector<std::string> stop;
  FormOptions form;
  infer::SamplerConfig sampling;
  EngineOptions engine;
};

void show(const Options& o, const Globals& globals, const Session& session,
          const infer::Result& result) {
  const bool has_text = session.tokenizer.has_value();
  if (globals.json) {
    Json json = choice_json(result.choices.front(), has_text);
    if (o.choices > 1) {
      json["choices"] = Json::array();
      for (const infer::Choice& c : result.choices) {
        json["choices"].push_back(choice_json(c, has_text));
      }
    }
    json["precision"] = session.precision;
    json["timings"] = timings_json(result, session.load_seconds);
    json["mtp"] = mtp_json(result.mtp());
    if (o.form.asked()) json["certain"] = certain_json(result.certain());
    print_json(json);
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
  spdlog::info("{}", summary(result, session.precision));
}

// The engine ends a text that its cache cannot hold; that is for who asked to know.
void require_room(const infer::Result& result, const infer::Engine& engine) {
  for (const infer::Choice& choice : result.choices) {
    if (choice.finish != infer::Finish::kCacheFull) continue;
    const std::string text =
        cat("the cache has ", engine.pool().pages(), " pages of ", kLatentBlock,
            " tokens, too few for the prompt's ", result.timings.prompt_tokens, " tokens and ",
            choice.tokens.size(), " new ones: raise --kv-memory, or ask for less");
    if (choice.tokens.empty()) throw Error(Code::kUnsupported, text);
    spdlog::warn("{}", text);
  }
}

void run(const Options& o, const Globals& globals) {
  require_prompt(o.prompt, "generate");
  for (const std::string& stop : o.stop) require_utf8(stop, "--stop");
  infer::validate(o.sampling);
  if (o.logprobs >= 0 && !globals.json) {
    throw Error(Code::kUsage, cat("--logprobs ", o.logprobs,
                                  ": log-probabilities are shown with --json alone; give --json "
                                  "too, or leave --logprobs out."));
  }
  if (o.form.asked() && o.ignore_eos) {
    throw Error(Code::kUsage,
                "--ignore-eos lets no text end, but --json-schema, --regex and --grammar say where "
                "it does: leave --ignore-eos out");
  }
  const std::optional<grammar::Grammar> form = read_form(o.form);
  if (form) {
    require_tokenizer_file(o.model, "--json-schema, --regex and --grammar", ", or leave them out");
  }
  check_output_file("--routing-trace", o.engine.routing.file);
  const Session session(o.model, o.precision, globals.threads);
  if (!o.stop.empty()) session.need_tokenizer("--stop", ", or leave --stop out");

  infer::Request request;
  request.prompt = prompt_tokens(o.prompt, session);
  request.sampling = o.sampling;
  request.max_tokens = o.max_tokens;
  request.stop = o.stop;
  request.constraint = constraint_of(form, session);
  request.n = o.choices;
  request.logprobs = o.logprobs;
  if (o.context_end == "slide") request.context_end = infer::ContextEnd::kSlide;
  if (!o.ignore_eos) request.eos = session.eos();
  const bool has_text = session.tokenizer.has_value();
  // One answer is shown as it comes, several one after the other.
  bool gone = false;  // who reads it
  if (!globals.json && o.choices == 1) {
    const bool to_the_end = o.engine.routing.asked();
    request.on_token = [&, to_the_end, first = true](const infer::NewToken& token) mutable {
      gone = gone || !printed([&] {
               if (has_text) {
                 print(token.text);
               } else {
                 print((first ? "" : ",") + std::to_string(token.token));
               }
               first = false;
               flush_output();
             });
      return !gone || to_the_end;
    };
  }
  LocalEngine engine(session, o.engine, request.n);
  const infer::Result result = engine->run(request);
  require_room(result, *engine);
  if (!gone) gone = !printed([&] { show(o, globals, session, result); });
  engine.finish();
  if (gone) throw ClosedPipe{};
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
  add_form(command, o->form);
  add_draft_certain(command, o->engine);
  add_precision_or_auto(command, o->precision);
  add_engine(command, o->engine);
  add_sampling(command, o->sampling);
  add_record_flags(*command, o->engine.routing);
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
