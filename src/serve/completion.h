// One request to /v1/chat/completions or /v1/completions on its way through the engine: submitted
// once per prompt, streamed or collected, and given up when its client goes.
//
// Owns:    itself: the engine's callbacks and the reply hold it until it has ended.
// Threads: start: one of the server's. The engine's callbacks run on the engine's thread.
// Errors:  start throws nothing: what is wrong is told to the client.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "infer/engine.h"
#include "serve/http.h"
#include "serve/metrics.h"
#include "serve/openai_answer.h"
#include "serve/openai_request.h"

namespace cachalot::serve {

// What completions share; outlives them.
struct CompletionContext {
  infer::Engine& engine;
  const text::Tokenizer& tokenizer;
  Metrics& metrics;
  std::string model;              // in answers
  std::vector<std::int32_t> eos;  // ends a text unless the request says ignore_eos
  // An answer has ended or was given up: path, status, seconds.
  std::function<void(std::string_view, int, double)> answered = {};
  HttpHeaders headers = {};  // of every answer
};

// What a request became, besides its members.
struct CompletionPlan {
  std::vector<std::vector<std::int32_t>> prompts;  // as many as it has (one of a chat), tokenized
  bool opens_thought = false;                      // the prompt ends with <think>
  text::ToolForm tools = text::ToolForm::kNone;    // what is a call; kNone: nothing
  std::shared_ptr<const grammar::Constraint> constraint = {};  // of its text; null: none
};

class Completion : public std::enable_shared_from_this<Completion> {
 public:
  Completion(CompletionContext& context, ApiRequest request, CompletionPlan plan,
             std::shared_ptr<Reply> reply);

  void start();

 private:
  infer::Request engine_request(std::size_t prompt);
  bool on_token(int first_choice, const infer::NewToken& token);
  void on_done(std::size_t prompt, const infer::Result& result);
  void finish();
  void fail(const std::exception& error);
  void give_up();
  // Counts the answer before its end is sent: who has read it finds it counted.
  std::shared_ptr<Reply> end(int status);

  CompletionContext& context_;
  const ApiRequest request_;
  const CompletionPlan plan_;
  const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  std::uint64_t seed_ = 0;

  std::mutex mutex_;  // of all below: start, the client's going and the engine meet here
  std::shared_ptr<Reply> reply_;
  Answer answer_;
  std::vector<infer::RequestId> ids_;
  std::vector<infer::Choice> choices_;  // of ended prompts
  std::size_t open_ = 0;                // prompts that have not ended
  Usage usage_;
  Json timings_;
  bool begun_ = false;  // a stream, with status 200
  bool gone_ = false;   // nobody reads the answer
  bool ended_ = false;  // the answer has been told, or given up
};

}  // namespace cachalot::serve
