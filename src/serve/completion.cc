#include "serve/completion.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <random>

#include "base/error.h"
#include "serve/http_text.h"

namespace cachalot::serve {

namespace {

// Counted for clients that went, as web servers do.
constexpr int kClientGone = 499;

std::uint64_t drawn_number() {
  static thread_local std::random_device device;
  return (std::uint64_t{device()} << 32) | device();
}

AnswerConfig answer_config(const CompletionContext& context, const ApiRequest& request,
                           const CompletionPlan& plan) {
  const bool chat = request.endpoint == Endpoint::kChat;
  AnswerConfig config{.endpoint = request.endpoint,
                      .id = fmt::format("{}-{:016x}", chat ? "chatcmpl" : "cmpl", drawn_number()),
                      .created = std::chrono::duration_cast<std::chrono::seconds>(
                                     std::chrono::system_clock::now().time_since_epoch())
                                     .count(),
                      .model = context.model,
                      .logprobs = request.logprobs >= 0,
                      .opens_thought = plan.opens_thought,
                      .echo = {},
                      .tools = plan.tools};
  if (!request.echo) return config;
  for (std::size_t p = 0; p < plan.prompts.size(); ++p) {
    const auto* text = std::get_if<std::string>(&request.prompts[p]);
    const std::string echoed = text ? *text : context.tokenizer.decode(plan.prompts[p], true);
    config.echo.insert(config.echo.end(), static_cast<std::size_t>(request.n), echoed);
  }
  return config;
}

const char* endpoint_path(Endpoint endpoint) {
  return endpoint == Endpoint::kChat ? "/v1/chat/completions" : "/v1/completions";
}

// What ended a text that is no answer; nullptr where it is one.
std::exception_ptr trouble(const infer::Result& result, const infer::Engine& engine) {
  if (result.error) return result.error;
  for (const infer::Choice& choice : result.choices) {
    if (choice.finish == infer::Finish::kCancelled) {
      return std::make_exception_ptr(
          Error(Code::kInterrupted, "the server is being stopped: ask again later"));
    }
    if (choice.finish == infer::Finish::kCacheFull && choice.tokens.empty()) {
      return std::make_exception_ptr(ApiError(
          Code::kUnsupported,
          cat("the prompt has ", result.timings.prompt_tokens, " tokens, more than the cache's ",
              engine.pool().pages(), " pages of ", kLatentBlock,
              " hold: shorten it, or start the server with a larger --kv-memory"),
          "", "context_length_exceeded"));
    }
  }
  return nullptr;
}

}  // namespace

Completion::Completion(CompletionContext& context, ApiRequest request, CompletionPlan plan,
                       std::shared_ptr<Reply> reply)
    : context_(context),
      request_(std::move(request)),
      plan_(std::move(plan)),
      seed_(request_.seed.value_or(0)),
      reply_(std::move(reply)),
      answer_(answer_config(context, request_, plan_), context.tokenizer,
              static_cast<int>(plan_.prompts.size()) * request_.n),
      choices_(plan_.prompts.size() * static_cast<std::size_t>(request_.n)),
      open_(plan_.prompts.size()) {
  if (!request_.seed) seed_ = drawn_number();
}

infer::Request Completion::engine_request(std::size_t prompt) {
  const int first = static_cast<int>(prompt) * request_.n;
  const int room =
      context_.engine.pool().max_tokens() - static_cast<int>(plan_.prompts[prompt].size());
  infer::Request r;
  r.prompt = plan_.prompts[prompt];
  r.sampling = request_.sampling;
  r.sampling.seed = seed_;
  r.stream = static_cast<std::uint64_t>(first);
  r.max_tokens = request_.max_tokens.value_or(
      request_.endpoint == Endpoint::kChat ? std::max(room, 1) : kDefaultCompletionTokens);
  if (!request_.ignore_eos) r.eos = context_.eos;
  r.stop = request_.stop;
  r.constraint = plan_.constraint;
  r.n = request_.n;
  r.logprobs = request_.logprobs;
  const auto self = shared_from_this();
  r.on_token = [self, first](const infer::NewToken& token) { return self->on_token(first, token); };
  r.on_done = [self, prompt](const infer::Result& result) { self->on_done(prompt, result); };
  return r;
}

void Completion::start() {
  const std::lock_guard lock(mutex_);
  try {
    for (std::size_t p = 0; p < plan_.prompts.size(); ++p) {
      ids_.push_back(context_.engine.submit(engine_request(p)));
    }
  } catch (const std::exception& e) {
    return fail(e);
  }
  if (request_.stream) {
    HttpResponse head{.content_type = "text/event-stream", .headers = context_.headers};
    head.headers.emplace_back("Cache-Control", "no-cache");
    head.ping = ": still here\n\n";                        // a comment of the stream
    head.headers.emplace_back("X-Accel-Buffering", "no");  // nginx would hold pieces back
    reply_->begin(std::move(head));
    begun_ = true;
    for (int c = 0; c < static_cast<int>(choices_.size()); ++c) {
      if (const auto chunk = answer_.first_chunk(c)) reply_->write(event(*chunk));
    }
  }
  reply_->when_gone([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->give_up();
  });
}

bool Completion::on_token(int first_choice, const infer::NewToken& token) {
  context_.metrics.generated_token();
  const std::lock_guard lock(mutex_);
  if (gone_ || ended_) return false;
  if (!request_.stream) return true;
  infer::NewToken mine = token;
  mine.choice += first_choice;
  const auto chunk = answer_.token_chunk(mine.choice, mine);
  if (chunk && !reply_->write(event(*chunk))) gone_ = true;
  return !gone_;
}

void Completion::on_done(std::size_t prompt, const infer::Result& result) {
  const std::lock_guard lock(mutex_);
  context_.metrics.ended(result);
  --open_;
  if (ended_) return;
  if (gone_) {
    if (open_ == 0) end(kClientGone);
    return;
  }
  if (const auto error = trouble(result, context_.engine)) {
    try {
      std::rethrow_exception(error);
    } catch (const std::exception& e) {
      return fail(e);
    }
  }
  usage_.add(result.timings);
  timings_ = timings_json(result);
  const std::size_t first = prompt * static_cast<std::size_t>(request_.n);
  for (std::size_t c = 0; c < result.choices.size(); ++c) {
    if (request_.stream) {
      const int index = static_cast<int>(first + c);
      reply_->write(event(answer_.last_chunk(index, result.choices[c])));
    } else {
      choices_[first + c] = result.choices[c];
    }
  }
  if (open_ == 0) finish();
}

void Completion::finish() {
  const std::shared_ptr<Reply> reply = end(200);
  if (request_.stream) {
    if (request_.include_usage) reply->write(event(answer_.usage_chunk(usage_, timings_)));
    reply->write(std::string(kLastEvent));
    reply->end();
  } else {
    reply->send(
        {.body = dump(answer_.whole(choices_, usage_, timings_)), .headers = context_.headers});
  }
}

// Before the stream has begun with a status of its own, within it as an event.
void Completion::fail(const std::exception& error) {
  const ErrorReply told = error_reply(error);
  if (told.status >= 500 && told.status != 503) {
    spdlog::error("{}: {}", endpoint_path(request_.endpoint), error.what());
  }
  for (const infer::RequestId id : ids_) context_.engine.cancel(id);
  const std::shared_ptr<Reply> reply = end(told.status);
  if (begun_) {
    reply->write(event(told.body));
    reply->end();
  } else {
    reply->send(error_response(told.status, dump(told.body), context_.headers));
  }
}

void Completion::give_up() {
  const std::lock_guard lock(mutex_);
  gone_ = true;
  for (const infer::RequestId id : ids_) context_.engine.cancel(id);
}

std::shared_ptr<Reply> Completion::end(int status) {
  ended_ = true;
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began_;
  context_.answered(endpoint_path(request_.endpoint), status, took.count());
  return std::move(reply_);
}

}  // namespace cachalot::serve
