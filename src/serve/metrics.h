// What the server counts, in Prometheus' text format (prometheus-cpp). docs/serving.md lists it.
//
// Owns:    the registry. Its size is fixed but for the statuses of answers: no name or label comes
//          from a client.
// Threads: any.
// Errors:  none.
// Source:  https://prometheus.io/docs/instrumenting/exposition_formats/
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "infer/engine.h"

namespace cachalot::serve {

class Metrics {
 public:
  static constexpr std::string_view kContentType = "text/plain; version=0.0.4; charset=utf-8";

  Metrics(const std::string& model, const std::string& version);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // A request has been answered, or given up by its client (status 499). `endpoint`: the path as it
  // came, or "page" for a file of the page; see endpoint_label.
  void answered(std::string_view endpoint, int status, double seconds);
  void generated_token();  // as each comes, for who looks at the speed now
  // An engine request has ended: its prompt's tokens, reuse, time to the first token, time per
  // output token.
  void ended(const infer::Result& result);
  struct Totals {
    std::int64_t generated_tokens = 0, prompt_tokens = 0, reused_tokens = 0;
  };
  Totals totals() const;
  // As the caller counts them. Where several threads do, the call that comes last stays, so they
  // are best told just before text().
  void streams(int open);      // answers under way now
  void connections(int open);  // sockets now

  // The text of /metrics, with the engine's numbers as they are now.
  std::string text(const infer::EngineStats& engine);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The label of a path: itself where the server knows it (a query is left out), "/v1/models/{id}",
// "page" for "/" and "page", and "other" for everything else, so that strangers cannot make it
// remember what they ask for.
std::string_view endpoint_label(std::string_view path) noexcept;

}  // namespace cachalot::serve
