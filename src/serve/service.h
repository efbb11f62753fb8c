// The routes of the server: who may ask, what is asked, and who answers.
//
// Owns:    keys, metrics and settings; borrows the engine and the tokenizer, which outlive it.
// Threads: handle: any, several at once. The engine is driven by another thread (Engine::serve).
// Errors:  none: they are told to the client. The constructor: kUsage.
// Source:  https://platform.openai.com/docs/api-reference; /tokenize and /detokenize as vLLM has
// them
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "infer/engine.h"
#include "serve/answer_form.h"
#include "serve/api_keys.h"
#include "serve/completion.h"
#include "serve/http.h"
#include "serve/metrics.h"
#include "text/chat.h"

namespace cachalot::serve {

struct ServiceConfig {
  std::string name;  // of the model, in answers
  std::string version, precision;
  std::vector<std::int32_t> eos;         // tokens that end a text
  int vocab_size = 0;                    // logits of the model; 0: as the tokenizer has tokens
  std::optional<text::ChatFormat> chat;  // none: /v1/chat/completions is refused...
  std::string no_chat;                   // ...because of this
  RequestDefaults defaults;
  ApiKeys keys;
  std::string allow_origin;       // of pages elsewhere that may ask (CORS); empty: none
  bool log_requests = false;      // a line of the log for each
  std::string plan_page;          // HTML behind /plan; empty: none
  Json machine = Json::object();  // further members of /v1/server: what it runs on
};

class Service {
 public:
  Service(ServiceConfig config, infer::Engine& engine, const text::Tokenizer& tokenizer);

  void handle(HttpRequest request, const std::shared_ptr<Reply>& reply);
  const std::string& name() const noexcept { return config_.name; }
  // Further completions are refused with 503, which the others are not.
  void stop_taking() noexcept { stopping_ = true; }
  struct Sockets {
    int connections = 0, answering = 0;
  };
  // For the gauges; set before the first request.
  void count_sockets(std::function<Sockets()> count) { sockets_ = std::move(count); }

 private:
  struct Route {
    std::string_view method, path;
    bool open;  // without a key
    void (Service::*answer)(const HttpRequest&, const std::shared_ptr<Reply>&);
  };
  static const std::vector<Route>& routes();

  void answered(std::string_view path, int status, double seconds);
  void dispatch(const HttpRequest& request, const std::shared_ptr<Reply>& reply);
  void refuse(const HttpRequest& request, const std::shared_ptr<Reply>& reply, int status,
              const std::string& message, HttpHeaders headers = {}, std::string_view slug = {});
  void send(const HttpRequest& request, const std::shared_ptr<Reply>& reply, const Json& json);

  void health(const HttpRequest& request, const std::shared_ptr<Reply>& reply);
  void models(const HttpRequest& request, const std::shared_ptr<Reply>& reply);
  void server(const HttpRequest& request, const std::shared_ptr<Reply>& reply);
  void prometheus(const HttpRequest& request, const std::shared_ptr<Reply>& reply);
  void plan(const HttpRequest& request, const std::shared_ptr<Reply>& reply);
  void chat(const HttpRequest& request, const std::shared_ptr<Reply>& reply);
  void completions(const HttpRequest& request, const std::shared_ptr<Reply>& reply);
  void tokenize(const HttpRequest& request, const std::shared_ptr<Reply>& reply);
  void detokenize(const HttpRequest& request, const std::shared_ptr<Reply>& reply);

  const text::ChatFormat& need_chat() const;
  void check_model(const std::string& asked) const;
  void complete(ApiRequest request, CompletionPlan plan, const std::shared_ptr<Reply>& reply);
  std::string chat_text(std::span<const text::ChatMessage> messages,
                        const text::RenderOptions& options) const;
  std::vector<std::int32_t> prompt_tokens(const PromptText& prompt) const;
  Json model_json() const;

  const ServiceConfig config_;
  infer::Engine& engine_;
  const text::Tokenizer& tokenizer_;
  Metrics metrics_;
  CompletionContext context_;
  AnswerForms forms_;
  const std::chrono::system_clock::time_point started_ = std::chrono::system_clock::now();
  std::atomic<bool> stopping_ = false;
  std::function<Sockets()> sockets_;
};

}  // namespace cachalot::serve
