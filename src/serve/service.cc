#include "serve/service.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "infer/request.h"
#include "serve/http_text.h"
#include "serve/json_body.h"
#include "serve/page_files.h"

namespace cachalot::serve {

namespace {

constexpr std::string_view kModels = "/v1/models";

bool is_json(std::string_view content_type) {
  content_type = content_type.substr(0, content_type.find_first_of("; \t"));
  constexpr std::string_view kJson = "application/json";
  const auto same = [](char a, char b) { return std::tolower(static_cast<unsigned char>(a)) == b; };
  return std::equal(content_type.begin(), content_type.end(), kJson.begin(), kJson.end(), same);
}

HttpHeaders cors_headers(const std::string& origin) {
  if (origin.empty()) return {};
  return {{"Access-Control-Allow-Origin", origin}, {"Vary", "Origin"}};
}

double seconds_since(std::chrono::steady_clock::time_point began) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

std::int64_t unix_seconds(std::chrono::system_clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count();
}

Json sampling_json(const infer::SamplerConfig& s) {
  return {{"temperature", s.temperature},
          {"top_k", s.top_k},
          {"top_p", s.top_p},
          {"min_p", s.min_p},
          {"repetition_penalty", s.repetition_penalty},
          {"presence_penalty", s.presence_penalty},
          {"frequency_penalty", s.frequency_penalty}};
}

std::span<const text::Tool> told_tools(const ToolUse& use) {
  return use.on() ? std::span<const text::Tool>(use.tools) : std::span<const text::Tool>();
}

}  // namespace

Service::Service(ServiceConfig config, infer::Engine& engine, const text::Tokenizer& tokenizer)
    : config_(std::move(config)),
      engine_(engine),
      tokenizer_(tokenizer),
      metrics_(config_.name, config_.version),
      context_{.engine = engine,
               .tokenizer = tokenizer,
               .metrics = metrics_,
               .model = config_.name,
               .eos = config_.eos,
               .answered = [this](std::string_view path, int status,
                                  double seconds) { answered(path, status, seconds); },
               .headers = cors_headers(config_.allow_origin)},
      forms_(tokenizer, config_.vocab_size > 0 ? config_.vocab_size : tokenizer.vocab_size()) {
  infer::validate(config_.defaults.sampling);
}

const std::vector<Service::Route>& Service::routes() {
  static const std::vector<Route> all = {
      {"GET", "/health", true, &Service::health},
      {"GET", kModels, false, &Service::models},
      {"GET", "/v1/server", false, &Service::server},
      {"GET", "/metrics", false, &Service::prometheus},
      {"GET", "/plan", true, &Service::plan},
      {"POST", "/v1/chat/completions", false, &Service::chat},
      {"POST", "/v1/completions", false, &Service::completions},
      {"POST", "/tokenize", false, &Service::tokenize},
      {"POST", "/detokenize", false, &Service::detokenize},
  };
  return all;
}

void Service::handle(HttpRequest request, const std::shared_ptr<Reply>& reply) {
  const auto began = std::chrono::steady_clock::now();
  try {
    dispatch(request, reply);
  } catch (const std::exception& e) {
    const ErrorReply told = error_reply(e);
    if (told.status == 500) spdlog::error("{} {}: {}", request.method, request.path, e.what());
    answered(request.path, told.status, seconds_since(began));
    reply->send(error_response(told.status, dump(told.body), context_.headers));
  }
}

void Service::answered(std::string_view path, int status, double seconds) {
  metrics_.answered(page_file(path) != nullptr ? "page" : path, status, seconds);
  if (config_.log_requests) {
    spdlog::info("{} {} in {:.3f} s", shown_text(path), status, seconds);
  }
}

void Service::dispatch(const HttpRequest& request, const std::shared_ptr<Reply>& reply) {
  const std::string method = request.method == "HEAD" ? "GET" : request.method;
  if (const PageFile* file = page_file(request.path)) {
    if (method != "GET") {
      return refuse(request, reply, 405, "this file can only be read", {{"Allow", "GET, HEAD"}});
    }
    answered(request.path, 200, 0);
    return reply->send({.content_type = std::string(file->content_type),
                        .body = std::string(file->text),
                        .headers = {{"Content-Security-Policy", std::string(kPagePolicy)},
                                    {"X-Content-Type-Options", "nosniff"},
                                    {"Referrer-Policy", "no-referrer"},
                                    {"Cache-Control", "no-cache"}}});
  }
  const bool one_model = request.path.starts_with(cat(kModels, "/"));
  const std::string_view path = one_model ? kModels : std::string_view(request.path);
  const auto& all = routes();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const Route& r) { return r.path == path; });
  if (found == all.end()) {
    return refuse(request, reply, 404,
                  cat("there is nothing at ", shown_text(request.path),
                      "; the API is at /v1/chat/completions, /v1/completions and /v1/models"));
  }
  if (method == "OPTIONS" && !config_.allow_origin.empty()) {
    HttpResponse preflight{.status = 204, .content_type = "", .headers = context_.headers};
    preflight.headers.emplace_back("Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    preflight.headers.emplace_back("Access-Control-Allow-Headers", "Authorization, Content-Type");
    preflight.headers.emplace_back("Access-Control-Max-Age", "600");
    return reply->send(std::move(preflight));
  }
  if (method != found->method) {
    return refuse(
        request, reply, 405,
        cat(shown_text(request.method), " is not known at ", path, ": use ", found->method),
        {{"Allow", std::string(found->method)}});
  }
  if (!found->open && config_.keys.required() && !config_.keys.name_of(request.authorization)) {
    return refuse(request, reply, 401,
                  request.authorization.empty()
                      ? "this server asks for a key: send \"Authorization: Bearer KEY\""
                      : "the key in the Authorization header is not one of this server's",
                  {{"WWW-Authenticate", "Bearer"}}, "invalid_api_key");
  }
  if (method == "POST" && !is_json(request.content_type)) {
    // Also what keeps a form on somebody's page from asking.
    return refuse(
        request, reply, 415,
        cat("the body is ",
            request.content_type.empty() ? "of no stated type" : shown_text(request.content_type),
            ", but JSON is needed: send \"Content-Type: application/json\""));
  }
  (this->*found->answer)(request, reply);
}

void Service::refuse(const HttpRequest& request, const std::shared_ptr<Reply>& reply, int status,
                     const std::string& message, HttpHeaders headers, std::string_view slug) {
  answered(request.path, status, 0);
  headers.insert(headers.end(), context_.headers.begin(), context_.headers.end());
  reply->send(
      error_response(status, dump(error_json(status, message, {}, slug)), std::move(headers)));
}

void Service::send(const HttpRequest& request, const std::shared_ptr<Reply>& reply,
                   const Json& json) {
  answered(request.path, 200, 0);
  reply->send({.body = dump(json), .headers = context_.headers});
}

void Service::health(const HttpRequest& request, const std::shared_ptr<Reply>& reply) {
  if (stopping_) return refuse(request, reply, 503, "the server is being stopped");
  send(request, reply, {{"status", "ok"}});
}

Json Service::model_json() const {
  return {{"id", config_.name},
          {"object", "model"},
          {"created", unix_seconds(started_)},
          {"owned_by", "cachalot"},
          {"max_model_len", engine_.pool().max_tokens()}};
}

void Service::models(const HttpRequest& request, const std::shared_ptr<Reply>& reply) {
  if (request.path == kModels) {
    return send(request, reply, {{"object", "list"}, {"data", Json::array({model_json()})}});
  }
  check_model(request.path.substr(kModels.size() + 1));
  send(request, reply, model_json());
}

void Service::server(const HttpRequest& request, const std::shared_ptr<Reply>& reply) {
  const infer::EngineStats stats = engine_.stats();
  const Metrics::Totals totals = metrics_.totals();
  Json json = {{"model", config_.name},
               {"version", config_.version},
               {"precision", config_.precision},
               {"context", engine_.pool().max_tokens()},
               {"vocab_size", tokenizer_.vocab_size()},
               {"format", config_.chat ? Json(config_.chat->name()) : Json(nullptr)},
               {"mtp", engine_.mtp()},
               {"uptime_s",
                std::chrono::duration<double>(std::chrono::system_clock::now() - started_).count()},
               {"defaults", sampling_json(config_.defaults.sampling)},
               {"engine",
                {{"running", stats.running},
                 {"waiting", stats.waiting},
                 {"kept", stats.kept},
                 {"pages", stats.pages},
                 {"free_pages", stats.free_pages},
                 {"passes", stats.passes},
                 {"rows", stats.rows},
                 {"finished", stats.finished},
                 {"preemptions", stats.preemptions},
                 {"evictions", stats.evictions},
                 {"drafted", stats.mtp.drafted},
                 {"accepted", stats.mtp.accepted},
                 {"generated_tokens", totals.generated_tokens},
                 {"prompt_tokens", totals.prompt_tokens},
                 {"reused_tokens", totals.reused_tokens}}}};
  for (const auto& [key, value] : config_.machine.items()) json[key] = value;
  send(request, reply, json);
}

void Service::prometheus(const HttpRequest& request, const std::shared_ptr<Reply>& reply) {
  answered(request.path, 200, 0);
  if (sockets_) {
    const Sockets now = sockets_();
    metrics_.connections(now.connections);
    metrics_.streams(now.answering);
  }
  reply->send(
      {.content_type = std::string(Metrics::kContentType), .body = metrics_.text(engine_.stats())});
}

void Service::plan(const HttpRequest& request, const std::shared_ptr<Reply>& reply) {
  if (config_.plan_page.empty()) {
    return refuse(request, reply, 404,
                  "this server was started without a plan: --hardware PROFILE gives it one");
  }
  answered(request.path, 200, 0);
  // The page's own script and nothing else: it is shown in a frame of this server's page.
  reply->send({.content_type = "text/html; charset=utf-8",
               .body = config_.plan_page,
               .headers = {{"Content-Security-Policy",
                            "default-src 'none'; script-src 'unsafe-inline'; style-src "
                            "'unsafe-inline'; img-src data:; frame-ancestors 'self'"},
                           {"X-Content-Type-Options", "nosniff"}}});
}

const text::ChatFormat& Service::need_chat() const {
  if (config_.chat) return *config_.chat;
  throw Error(Code::kUnsupported,
              cat("this model has no chat format (", config_.no_chat,
                  "): use /v1/completions, or start the server with --chat-format"));
}

void Service::check_model(const std::string& asked) const {
  if (asked.empty() || asked == config_.name) return;
  throw NotFound(
      cat("the model '", shown_text(asked), "' is not here: this server has '", config_.name, "'"),
      "model", "model_not_found");
}

// What the model's format does not have is said of the member that asked for it.
std::string Service::chat_text(std::span<const text::ChatMessage> messages,
                               const text::RenderOptions& options) const {
  const text::ChatFormat& format = need_chat();
  std::string param = "thinking";
  try {
    (void)format.render({}, {.thinking = options.thinking}, tokenizer_);
    param = options.tools.empty() ? "messages" : "tools";
    return format.render(messages, options, tokenizer_);
  } catch (const Error& e) {
    throw ApiError(e.code(), e.what(), param);
  }
}

void Service::chat(const HttpRequest& request, const std::shared_ptr<Reply>& reply) {
  ApiRequest asked = parse_chat_request(request.body, config_.defaults);
  check_model(asked.model);
  const text::ChatFormat& format = need_chat();
  const std::span<const text::Tool> tools = told_tools(asked.tools);
  const text::RenderOptions options{.thinking = asked.thinking, .tools = tools};
  CompletionPlan plan;
  plan.prompts = {tokenizer_.encode(chat_text(asked.messages, options))};
  plan.opens_thought = format.opens_thought(asked.messages, options);
  const bool thinks = format.thinks_first(asked.messages, options);
  if (asked.tools.on()) {
    plan.tools = format.tools();
    plan.constraint = forms_.of_tools(asked.tools, plan.tools, thinks);
  } else {
    plan.constraint = forms_.of_form(asked.form, thinks);
  }
  complete(std::move(asked), std::move(plan), reply);
}

void Service::completions(const HttpRequest& request, const std::shared_ptr<Reply>& reply) {
  ApiRequest asked = parse_completion_request(request.body, config_.defaults);
  check_model(asked.model);
  CompletionPlan plan;
  for (const PromptText& prompt : asked.prompts) plan.prompts.push_back(prompt_tokens(prompt));
  plan.constraint = forms_.of_form(asked.form, /*after_thoughts=*/false);
  complete(std::move(asked), std::move(plan), reply);
}

std::vector<std::int32_t> Service::prompt_tokens(const PromptText& prompt) const {
  if (const auto* ids = std::get_if<std::vector<std::int32_t>>(&prompt)) return *ids;
  std::vector<std::int32_t> tokens;
  if (tokenizer_.config().add_bos_token && tokenizer_.bos_id()) {
    tokens.push_back(*tokenizer_.bos_id());
  }
  tokenizer_.encode(std::get<std::string>(prompt), tokens);
  return tokens;
}

void Service::complete(ApiRequest request, CompletionPlan plan,
                       const std::shared_ptr<Reply>& reply) {
  if (stopping_) throw Error(Code::kInterrupted, "the server is being stopped: ask again later");
  const int context = engine_.pool().max_tokens();
  for (const auto& prompt : plan.prompts) {
    if (std::ssize(prompt) <= context) continue;
    throw ApiError(Code::kUsage,
                   cat("the prompt has ", prompt.size(), " tokens, but the model's context holds ",
                       context, ": shorten it"),
                   request.endpoint == Endpoint::kChat ? "messages" : "prompt",
                   "context_length_exceeded");
  }
  std::make_shared<Completion>(context_, std::move(request), std::move(plan), reply)->start();
}

void Service::tokenize(const HttpRequest& request, const std::shared_ptr<Reply>& reply) {
  const TokenizeRequest asked = parse_tokenize_request(request.body);
  const text::RenderOptions options{.add_generation_prompt = asked.add_generation_prompt,
                                    .thinking = asked.thinking,
                                    .tools = told_tools(asked.tools)};
  const auto ids = asked.prompt ? prompt_tokens(*asked.prompt)
                                : tokenizer_.encode(chat_text(asked.messages, options));
  send(request, reply,
       {{"tokens", ids}, {"count", ids.size()}, {"max_model_len", engine_.pool().max_tokens()}});
}

void Service::detokenize(const HttpRequest& request, const std::shared_ptr<Reply>& reply) {
  const auto ids = parse_detokenize_request(request.body);
  for (const std::int32_t id : ids) {
    if (tokenizer_.has(id)) continue;
    throw ApiError(Code::kUsage,
                   cat("token ", id, " does not exist: ids are 0 to ", tokenizer_.vocab_size() - 1),
                   "tokens");
  }
  send(request, reply, {{"prompt", tokenizer_.decode(ids)}});
}

}  // namespace cachalot::serve
