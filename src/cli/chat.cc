// cachalot chat: a conversation in the terminal. What the model has read stays in its latent cache
// from turn to turn.
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <optional>

#include "base/error.h"
#include "cli/command.h"
#include "cli/engine_options.h"
#include "cli/generation_output.h"
#include "cli/inputs.h"
#include "cli/output_file.h"
#include "cli/session.h"
#include "text/chat.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::string model, system, format;
  std::string precision = kAutoPrecision;
  int max_tokens = 1024;
  bool timings = false;
  std::vector<std::string> stop;
  infer::SamplerConfig sampling{.temperature = 0.6, .top_p = 0.95};
  EngineOptions engine;
};

class Conversation {
 public:
  Conversation(const Options& o, const Globals& globals, const Session& session)
      : o_(o),
        globals_(globals),
        session_(session),
        tokenizer_(session.need_tokenizer("chat", "")),
        format_(o.format.empty() ? text::ChatFormat::of(tokenizer_)
                                 : text::ChatFormat::named(o.format)),
        eos_(session.eos()),
        engine_(session, o.engine) {
    reset();
  }

  void reset() {
    messages_.clear();
    forgotten_ = 0;
    if (!o_.system.empty()) messages_.push_back({"system", o_.system});
  }

  // Throws what was wrong with this line, or went wrong with its answer; the conversation goes on.
  void turn(const std::string& line) {
    const auto forgotten = forgotten_;
    try {
      require_utf8(line, "standard input");
      messages_.push_back({"user", line});
      answer();
    } catch (const Error& e) {
      if (!messages_.empty() && messages_.back().role == "user") messages_.pop_back();
      forgotten_ = forgotten;  // for a message that is gone itself
      turns_.push_back({{"finish", infer::name(infer::Finish::kError)}, {"error", e.what()}});
      throw;
    }
  }

  void finish() { engine_.finish(); }

  Json to_json() const {
    Json messages = Json::array();
    for (const text::ChatMessage& m : messages_) {
      messages.push_back({{"role", m.role}, {"content", m.content}});
    }
    return {{"format", format_.name()},
            {"precision", session_.precision},
            {"messages", messages},
            {"turns", turns_}};
  }

 private:
  // What the model can read, and what the cache has pages for.
  int context() {
    const auto& pool = engine_->pool();
    return static_cast<int>(
        std::min<std::int64_t>(pool.max_tokens(), std::int64_t{pool.pages()} * kLatentBlock));
  }
  // The conversation as the model reads it. Where the context has no room for it and an answer, the
  // oldest turns are left out.
  std::vector<std::int32_t> prompt() {
    const int context = this->context();
    const int room = std::min(o_.max_tokens, context / 4);
    const auto system = static_cast<std::ptrdiff_t>(o_.system.empty() ? 0 : 1);
    for (;;) {
      std::vector<text::ChatMessage> read(messages_.begin(), messages_.begin() + system);
      read.insert(read.end(), messages_.begin() + system + forgotten_, messages_.end());
      auto tokens = tokenizer_.encode(format_.render(read, {}, tokenizer_));
      const bool fits = static_cast<std::int64_t>(tokens.size()) + room <= context;
      if (fits || std::ssize(read) <= system + 1) return tokens;
      forgotten_ += 2;  // a message and its answer
    }
  }

  void answer() {
    infer::Request request;
    const auto before = forgotten_;
    request.prompt = prompt();
    if (forgotten_ > before) {
      spdlog::warn("the context of {} tokens is full: the {} oldest messages are not read any more",
                   context(), forgotten_);
    }
    request.sampling = o_.sampling;
    request.stream = turns_.size();
    request.max_tokens = o_.max_tokens;
    request.eos = eos_;
    request.stop = o_.stop;
    request.on_token = [&](const infer::NewToken& token) {
      if (!globals_.json && !token.text.empty()) {
        print(token.text);
        flush_output();
      }
      return true;
    };
    const infer::Result result = engine_->run(request);
    using enum infer::Finish;
    if (result.finish() == kCacheFull || result.finish() == kContext) {
      spdlog::warn("no room for more of this answer: {} tokens are all that the {} holds{}",
                   context(), result.finish() == kContext ? "model's context" : "cache",
                   result.finish() == kContext ? "" : "; raise --kv-memory");
    }
    if (!globals_.json) print(result.choices.front().untold());
    messages_.push_back({"assistant", result.choices.front().text});
    turns_.push_back({{"finish", infer::name(result.finish())},
                      {"forgotten_messages", forgotten_},
                      {"timings", timings_json(result, session_.load_seconds)},
                      {"mtp", mtp_json(result.mtp())}});
    if (!globals_.json) print("\n");
    flush_output();
    if (o_.timings) spdlog::info("{}", summary(result, session_.precision));
  }

  const Options& o_;
  const Globals& globals_;
  const Session& session_;
  const text::Tokenizer& tokenizer_;
  text::ChatFormat format_;
  std::vector<std::int32_t> eos_;
  LocalEngine engine_;
  std::vector<text::ChatMessage> messages_;
  std::ptrdiff_t forgotten_ = 0;  // of messages_, after the system's: read no more
  Json turns_ = Json::array();
};

void run(const Options& o, const Globals& globals) {
  infer::validate(o.sampling);
  require_utf8(o.system, "--system");
  for (const std::string& stop : o.stop) require_utf8(stop, "--stop");
  check_output_file("--routing-trace", o.engine.routing.file);
  const Session session(o.model, o.precision, globals.threads, ModelUse::kLong);
  Conversation conversation(o, globals, session);
  const bool terminal = ::isatty(STDIN_FILENO) != 0;
  if (terminal) fmt::print(stderr, "One line is one message. /reset begins anew, /exit ends.\n");
  std::optional<Error> first;
  const bool heard = printed([&] {
    for (std::string line;;) {
      if (terminal) fmt::print(stderr, "> ");
      if (!std::getline(std::cin, line) || line == "/exit") break;
      if (line.empty()) continue;
      if (line == "/reset") {
        conversation.reset();
        continue;
      }
      try {
        conversation.turn(line);
      } catch (const Error& e) {
        if (terminal) spdlog::error("{}", e.what());
        if (!terminal && !first) first = e;
      }
    }
    if (globals.json) print_json(conversation.to_json());
  });
  conversation.finish();
  if (!heard) throw ClosedPipe{};
  if (first) throw Error(*first);  // the exit code, after all that could be answered was
}

}  // namespace

void add_chat(CLI::App& root, Globals& globals) {
  CLI::App* command = add_command(
      root, globals, "chat",
      "Talk with a model: one line on stdin is one message, the answer streams to stdout.\n"
      "/reset begins a new conversation, /exit (or the end of the input) ends. Where the context "
      "is "
      "full, the oldest messages are no longer read; a line that cannot be answered is said so and "
      "passed over. With --json one object with all messages is printed at the end.");
  auto o = std::make_shared<Options>();
  add_model_folder(command, o->model);
  command->add_option("--system", o->system, "System message to begin with")->type_name("TEXT");
  command
      ->add_option("--format", o->format,
                   "Chat format; default: the one of tokenizer_config.json's chat_template")
      ->check(CLI::IsMember({"v2", "v3", "v3-0324", "r1", "r1-0528", "v3.1"}))
      ->type_name("v2|v3|v3-0324|r1|r1-0528|v3.1");
  command->add_option("--max-tokens", o->max_tokens, "New tokens per answer at most")
      ->check(CLI::Range(1, 1 << 30))
      ->type_name("N");
  command->add_option("--stop", o->stop, "Text that ends an answer; may be given more than once")
      ->allow_extra_args(false)
      ->type_name("TEXT");
  command->add_flag("--timings", o->timings, "After each answer, say on stderr what it took");
  add_precision_or_auto(command, o->precision);
  add_engine(command, o->engine);
  add_sampling(command, o->sampling);
  add_record_flags(*command, o->engine.routing);
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
