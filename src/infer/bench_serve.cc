#include "infer/bench_serve.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/rng.h"

namespace cachalot::infer {

namespace {

// Random numbers in the order they are asked for.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : rng_(seed, 17) {}
  double uniform() { return rng_.uniform(at_++); }
  // 1 to `most`, uniform in the logarithm: many short ones, some long.
  int length(int most) {
    return std::clamp(static_cast<int>(std::exp(uniform() * std::log(most + 1.0))), 1, most);
  }

 private:
  Rng rng_;
  std::uint64_t at_ = 0;
};

std::vector<Request> distinct_requests(const model::Config& config, const ServeBenchOptions& o) {
  Dice dice(o.seed);
  std::vector<Request> requests;
  for (int i = 0; i < o.distinct; ++i) {
    Request r;
    const int prompt = dice.length(std::min(o.most_prompt, config.max_position_embeddings));
    for (int t = 0; t < prompt; ++t) {
      r.prompt.push_back(static_cast<std::int32_t>(dice.uniform() * config.vocab_size));
    }
    r.max_tokens = dice.length(o.most_tokens);
    r.sampling = {.temperature = o.temperature, .seed = static_cast<std::uint64_t>(i)};
    r.priority = static_cast<int>(dice.uniform() * 3);
    requests.push_back(std::move(r));
  }
  return requests;
}

// What the client knows; written by the engine's thread as requests end.
struct Ledger {
  std::mutex mutex;
  std::condition_variable changed;
  int in_flight = 0;
  LatencyHistogram first_token, gap;
  ServeBenchResult sum;
};

bool begins_with(const std::vector<std::int32_t>& whole, const std::vector<std::int32_t>& part) {
  return part.size() <= whole.size() && std::equal(part.begin(), part.end(), whole.begin());
}

void record(Ledger& ledger, const Result& result, const std::vector<std::int32_t>& want) {
  const std::lock_guard lock(ledger.mutex);
  --ledger.in_flight;
  ServeBenchResult& sum = ledger.sum;
  ++sum.requests;
  const Finish finish = result.finish();
  const bool whole = finish == Finish::kLength || finish == Finish::kContext;
  sum.cancelled += finish == Finish::kCancelled ? 1 : 0;
  sum.failed += !whole && finish != Finish::kCancelled ? 1 : 0;
  const bool right = whole ? result.tokens() == want : begins_with(want, result.tokens());
  sum.wrong += right ? 0 : 1;
  sum.prompt_tokens += result.timings.prompt_tokens;
  sum.reused_tokens += result.timings.reused_tokens;
  sum.new_tokens += result.timings.new_tokens;
  if (!result.tokens().empty()) ledger.first_token.add(result.timings.first_token_seconds);
  if (result.tokens().size() > 1) ledger.gap.add(result.timings.longest_gap_seconds);
  ledger.changed.notify_all();
}

}  // namespace

ServeBenchResult bench_serve(const Context& ctx, const model::Model& model,
                             const ServeBenchOptions& o,
                             const std::function<void(const std::string&)>& progress) {
  const std::vector<Request> requests = distinct_requests(model.config(), o);
  Ledger ledger;
  std::vector<std::vector<std::int32_t>> want;
  {
    progress(cat(requests.size(), " requests alone, one after the other, for their answers"));
    EngineConfig config = o.engine;
    config.mtp = MtpMode::kOff;
    config.kept_texts = 0;
    config.store = nullptr;
    config.on_routing = nullptr;
    Engine engine(ctx, model, config);
    const Clock::time_point begin = Clock::now();
    std::int64_t tokens = 0;
    for (const Request& request : requests) {
      want.push_back(engine.run(request).tokens());
      tokens += static_cast<std::int64_t>(want.back().size());
    }
    ledger.sum.alone_seconds = seconds_between(begin, Clock::now());
    ledger.sum.alone_tokens_per_s = static_cast<double>(tokens) / ledger.sum.alone_seconds;
  }

  Engine engine(ctx, model, o.engine);
  std::jthread server([&](const std::stop_token& stop) { engine.serve(stop); });
  Dice dice(o.seed + 1);
  struct Doomed {
    RequestId id;
    Clock::time_point when;
  };
  std::vector<Doomed> doomed;
  const Clock::time_point begin = Clock::now();
  double said = 0;
  for (std::uint64_t n = 0;; ++n) {
    const double now = seconds_between(begin, Clock::now());
    if (now >= o.seconds) break;
    std::erase_if(doomed, [&](const Doomed& d) {
      if (Clock::now() < d.when) return false;
      engine.cancel(d.id);
      return true;
    });
    {
      std::unique_lock lock(ledger.mutex);
      if (ledger.sum.early.resident == 0 && now > 0.1 * o.seconds) {
        ledger.sum.early = runtime::memory_use();
        ledger.sum.early_pages = engine.stats().most_pages;
      }
      if (now >= said + 1) {
        said = now;
        const EngineStats s = engine.stats();
        progress(fmt::format(
            "{:.0f} s of {:.0f}: {} requests done, {:.1f} new tokens/s, {} running, {} waiting, {} "
            "of {} pages free, {} preempted, {} wrong",
            now, o.seconds, ledger.sum.requests, static_cast<double>(ledger.sum.new_tokens) / now,
            s.running, s.waiting, s.free_pages, s.pages, s.preemptions, ledger.sum.wrong));
      }
      if (ledger.in_flight >= o.streams) {
        ledger.changed.wait_for(lock, std::chrono::milliseconds(20));
        continue;
      }
      ++ledger.in_flight;
    }
    const auto which = static_cast<std::size_t>(dice.uniform() * o.distinct);
    Request request = requests[which];
    request.on_done = [&ledger, &want, which](const Result& result) {
      record(ledger, result, want[which]);
    };
    const bool dies = dice.uniform() < o.cancelled;
    const double after = dice.uniform() * 2;
    try {
      const RequestId id = engine.submit(std::move(request));
      if (dies) {
        doomed.push_back({id, Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                                 std::chrono::duration<double>(after))});
      }
    } catch (const Error& e) {
      if (e.code() != Code::kBusy) throw;
      std::unique_lock lock(ledger.mutex);
      --ledger.in_flight;
      ++ledger.sum.refused;
      ledger.changed.wait_for(lock, std::chrono::milliseconds(20));
    }
  }
  {
    std::unique_lock lock(ledger.mutex);
    ledger.sum.late = runtime::memory_use();
    ledger.sum.late_pages = engine.stats().most_pages;
    ledger.changed.wait(lock, [&] { return ledger.in_flight == 0; });
  }
  ServeBenchResult result = ledger.sum;
  result.seconds = seconds_between(begin, Clock::now());
  server.request_stop();
  server.join();
  result.engine = engine.stats();
  result.page_bytes = engine.pool().shape().page_bytes();
  result.first_token = ledger.first_token.percentiles();
  result.gap = ledger.gap.percentiles();
  return result;
}

}  // namespace cachalot::infer
