// cachalot context: prompts kept under a name in a prefix store, until they expire or are deleted.
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cmath>
#include <ctime>

#include "base/error.h"
#include "cli/command.h"
#include "cli/engine_options.h"
#include "cli/finite.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "cli/session.h"

namespace cachalot::cli {

namespace {

enum class Action { kSave, kList, kPin, kUnpin, kDelete };

struct Options {
  Action action = Action::kList;
  std::string name, model, prompt_file, tokens;
  std::string precision = kAutoPrecision;
  double ttl_hours = 0, quota_gib = 0;
  EngineOptions engine;
};

infer::PrefixStore& need_store(infer::PrefixStore* store) {
  if (store != nullptr) return *store;
  throw Error(Code::kUsage,
              "named contexts live in a prefix store: say its folder with --prefix-store or "
              "$CACHALOT_PREFIX_STORE");
}

std::vector<std::int32_t> prompt_of(const Options& o, const Session& session) {
  if (o.prompt_file.empty() == o.tokens.empty()) {
    throw Error(Code::kUsage, "context save needs one of --prompt-file and --tokens");
  }
  if (!o.tokens.empty()) return parse_tokens(o.tokens);
  const text::Tokenizer& tokenizer =
      session.need_tokenizer("--prompt-file", ", or give the prompt as --tokens");
  const std::string text = read_text(o.prompt_file);
  require_utf8(text, o.prompt_file);
  std::vector<std::int32_t> tokens;
  if (tokenizer.config().add_bos_token && tokenizer.bos_id()) tokens.push_back(*tokenizer.bos_id());
  tokenizer.encode(text, tokens);
  return tokens;
}

std::string when(std::int64_t seconds) {
  if (seconds == 0) return "never";
  return fmt::format("{:%Y-%m-%d %H:%M}", fmt::localtime(static_cast<std::time_t>(seconds)));
}

void save(const Options& o, const Globals& globals, const Session& session, LocalEngine& engine) {
  infer::Request request;
  request.prompt = prompt_of(o, session);
  request.max_tokens = 0;  // read, not continued
  infer::check_context_name(o.name);
  if (request.prompt.size() < kLatentBlock) {
    throw Error(Code::kUsage, cat("the prompt has ", request.prompt.size(),
                                  " tokens, but a context keeps whole blocks of ", kLatentBlock,
                                  "; give one of ", kLatentBlock, " tokens or more."));
  }
  infer::PrefixStore& store = need_store(engine.store());
  const infer::Result read = engine->run(request);
  if (read.finish() != infer::Finish::kLength) {
    throw Error(Code::kUnsupported,
                cat("the prompt of ", request.prompt.size(), " tokens was not read to its end (",
                    infer::name(read.finish()), "): the cache has ", engine->pool().pages(),
                    " pages of ", kLatentBlock, " tokens; raise --kv-memory. Nothing was saved"));
  }
  if (!store.flush()) {
    throw Error(Code::kIo,
                "the prefix store could not write the prompt's blocks; nothing was saved");
  }
  // Upwards: only an exact 0 means for ever, or without bound.
  const infer::ContextLife life{
      .ttl_seconds = static_cast<std::int64_t>(std::ceil(o.ttl_hours * 3600)),
      .quota_bytes = static_cast<std::int64_t>(std::ceil(o.quota_gib * 0x1p30))};
  const infer::SavedContext saved = store.save_context(o.name, request.prompt, life);
  if (saved.outcome == infer::SavedContext::Outcome::kFull) {
    throw Error(Code::kUsage,
                cat(saved.text, " `cachalot context delete` and --prefix-contexts do that."));
  }
  if (saved.outcome != infer::SavedContext::Outcome::kSaved) throw Error(Code::kUsage, saved.text);
  const std::size_t whole = request.prompt.size() / kLatentBlock * kLatentBlock;
  if (static_cast<std::size_t>(saved.tokens) < whole) {
    spdlog::warn(
        "only the first {} of {} tokens are kept: the store had no room for more at a time; "
        "raise --prefix-memory and save it again",
        saved.tokens, whole);
  }
  if (globals.json) {
    print_json({{"name", o.name},
                {"tokens", saved.tokens},
                {"bytes", saved.bytes},
                {"prompt_tokens", read.timings.prompt_tokens},
                {"prompt_cache_hit_tokens", read.timings.hit_tokens()},
                {"prompt_cache_miss_tokens", read.timings.miss_tokens()}});
    return;
  }
  print_line(fmt::format("{}: {} of {} tokens kept (whole blocks of 64), {}", o.name, saved.tokens,
                         request.prompt.size(), human_bytes(static_cast<double>(saved.bytes))));
}

void list(const Globals& globals, infer::PrefixStore& store) {
  Json all = Json::array();
  if (!globals.json) {
    print_line(fmt::format("{:<24} {:>8} {:>10} {:>17} {:>17} {}", "name", "tokens", "size",
                           "saved", "expires", ""));
  }
  for (const infer::ContextInfo& c : store.contexts()) {
    all.push_back({{"name", c.name},
                   {"tokens", c.tokens},
                   {"missing_tokens", c.missing},
                   {"bytes", c.bytes},
                   {"saved", c.saved},
                   {"expires", c.expires},
                   {"pinned", c.pinned},
                   {"usable", c.usable}});
    if (globals.json) continue;
    std::string notes = c.pinned ? "pinned" : "";
    if (!c.usable)
      notes += fmt::format("{}of another model, build or setting", notes.empty() ? "" : ", ");
    if (c.missing > 0) notes += fmt::format(" {} tokens damaged: save it again", c.missing);
    print_line(fmt::format("{:<24} {:>8} {:>10} {:>17} {:>17} {}", c.name, c.tokens,
                           human_bytes(static_cast<double>(c.bytes)), when(c.saved),
                           c.pinned ? "never" : when(c.expires), notes));
  }
  if (globals.json) print_json({{"contexts", all}});
}

void run(const Options& o, const Globals& globals) {
  const Session session(o.model, o.precision, globals.threads);
  if (o.action == Action::kSave) {
    LocalEngine engine(session, o.engine);
    save(o, globals, session, engine);
    return;
  }
  // The others run nothing: the store without an engine, which they do not make.
  StoreOptions where = o.engine.store;
  where.must_exist = true;
  const auto opened = open_store(where, session, engine_config(o.engine));
  infer::PrefixStore& store = need_store(opened.get());
  if (o.action == Action::kList) {
    list(globals, store);
    return;
  }
  const bool found = o.action == Action::kPin     ? store.pin_context(o.name)
                     : o.action == Action::kUnpin ? store.unpin_context(o.name)
                                                  : store.delete_context(o.name);
  if (!found) {
    throw Error(Code::kUsage,
                cat("there is no context `", o.name,
                    "` in this store: `cachalot context list` shows those there are"));
  }
}

CLI::App* add(CLI::App& context, Globals& globals, Action action, const char* name,
              const char* description, std::shared_ptr<Options>& o) {
  CLI::App* command = add_command(context, globals, name, description);
  o = std::make_shared<Options>();
  o->action = action;
  if (action != Action::kList) {
    command->add_option("name", o->name, "The context's name")->required()->type_name("NAME");
  }
  add_model_folder(command, o->model);
  add_precision_or_auto(command, o->precision);
  if (action == Action::kSave) {
    add_engine(command, o->engine);
  } else {
    // Pages of a store are of one format; whether a context can be used depends on all that its
    // numbers came from.
    add_kv_cache(command, o->engine.cache);
    if (action == Action::kList) {
      add_mtp_mode(command, o->engine);
      add_fast(command, o->engine.cache);
    }
    add_store(command, o->engine.store);
  }
  on_run(command, globals, o, run);
  return command;
}

}  // namespace

void add_context(CLI::App& root, Globals& globals) {
  CLI::App* context = root.add_subcommand(
      "context", "Prompts kept by name in a prefix store: they are found again until they expire");
  context->require_subcommand(1);
  std::shared_ptr<Options> o;
  CLI::App* save = add(*context, globals, Action::kSave, "save",
                       "Read a prompt and keep its whole blocks of 64 tokens under a name", o);
  save->add_option("--prompt-file", o->prompt_file, "File with the prompt; - for stdin")
      ->type_name("FILE");
  save->add_option("--tokens", o->tokens, "The prompt as token ids: LIST or @FILE")
      ->type_name("1,2,3");
  save->add_option("--ttl", o->ttl_hours, "Hours until it expires; 0: never")
      ->check(finite_range(0, 1e6))
      ->type_name("HOURS");
  save->add_option("--quota", o->quota_gib,
                   "GiB that it may take at most; 0: what the store allows")
      ->check(finite_range(0, 1048576))
      ->type_name("GIB");
  add(*context, globals, Action::kList, "list", "Show all contexts of a store", o);
  add(*context, globals, Action::kPin, "pin", "Keep one from expiring", o);
  add(*context, globals, Action::kUnpin, "unpin", "Let one expire again", o);
  add(*context, globals, Action::kDelete, "delete", "Delete one; its space comes back at once", o);
}

}  // namespace cachalot::cli
