// The engine under load: many streams at once with random lengths, priorities and cancellations,
// every answer compared with that of the same request alone.
//
// Threads: starts one for the engine; the caller's submits and cancels.
// Errors:  those of Engine. A wrong answer is counted, not thrown.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "infer/engine.h"
#include "infer/latency_histogram.h"
#include "runtime/memory.h"

namespace cachalot::infer {

struct ServeBenchOptions {
  int streams = 64;        // requests in flight
  double seconds = 60;     // after that nothing is submitted any more
  int distinct = 64;       // different requests, each asked again and again
  int most_prompt = 512;   // tokens; lengths are uniform in their logarithm
  int most_tokens = 128;   // likewise
  double cancelled = 0.1;  // share of requests that are cancelled at a random moment
  double temperature = 0.8;
  std::uint64_t seed = 1;
  EngineConfig engine;
};

struct ServeBenchResult {
  std::int64_t requests = 0;   // ended
  std::int64_t cancelled = 0;  // of them, before their end
  std::int64_t refused = 0;    // by a full queue: submitted again later
  std::int64_t wrong = 0;      // answers that differ from those alone
  std::int64_t failed = 0;     // ended by an error or a full cache
  std::int64_t prompt_tokens = 0, reused_tokens = 0, new_tokens = 0;
  double seconds = 0;
  double alone_seconds = 0;  // what the distinct requests took one after the other
  double alone_tokens_per_s = 0;
  Percentiles first_token;  // seconds from submit
  Percentiles gap;          // the longest between two tokens, per request
  // Memory, and pages of the cache that were ever written to, after a tenth of the time and when
  // all of it is over, both with requests in flight. The cache is one block that the system fills
  // with pages as they are first used.
  runtime::MemoryUse early, late;
  int early_pages = 0, late_pages = 0;
  std::size_t page_bytes = 0;
  EngineStats engine;
};

// `progress` hears about once a second.
ServeBenchResult bench_serve(const Context& ctx, const model::Model& model,
                             const ServeBenchOptions& options,
                             const std::function<void(const std::string&)>& progress);

}  // namespace cachalot::infer
