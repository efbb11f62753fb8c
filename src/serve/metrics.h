// What the server counts, in Prometheus' text format (prometheus-cpp).
//
// Owns:    the registry.
// Threads: any.
// Errors:  none.
// Source:  https://prometheus.io/docs/instrumenting/exposition_formats/
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "infer/engine.h"

namespace cachalot::serve {

class Metrics {
 public:
  explicit Metrics(const std::string& model);
  ~Metrics();

  // A request has been answered, or given up by its client (status 499).
  void answered(std::string_view endpoint, int status, double seconds);
  // An engine request has ended: tokens, reuse, time to the first token, time per output token.
  void ended(const infer::Result& result);
  void streams(int open);      // answers under way now
  void connections(int open);  // sockets now

  // The text of /metrics, with the engine's numbers as they are now.
  std::string text(const infer::EngineStats& engine);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace cachalot::serve
