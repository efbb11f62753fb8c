#include "serve/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <unordered_map>

namespace cachalot::serve {

namespace {

using prometheus::Counter;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::MetricType;

constexpr std::string_view kOneModel = "/v1/models/{id}";
constexpr std::string_view kPage = "page";
constexpr std::string_view kOther = "other";
constexpr std::array<std::string_view, 11> kEndpoints = {
    "/v1/chat/completions", "/v1/completions", "/v1/models", kOneModel, "/v1/server", "/tokenize",
    "/detokenize",          "/health",         "/metrics",   kPage,     kOther};

constexpr std::array kFinishes = {infer::Finish::kLength,    infer::Finish::kContext,
                                  infer::Finish::kEos,       infer::Finish::kStopped,
                                  infer::Finish::kCacheFull, infer::Finish::kCancelled,
                                  infer::Finish::kError};

// Seconds, from a token of a small model on a GPU to a long prompt on a CPU; a larger time is in
// +Inf alone.
Histogram::BucketBoundaries time_buckets() {
  return {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120};
}

prometheus::MetricFamily family(const char* name, const char* help, MetricType type, double value) {
  prometheus::ClientMetric metric;
  if (type == MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  return {name, help, type, {std::move(metric)}};
}

// The engine counts from its own beginning: its numbers are shown as they are, so that counters
// stay counters and no total is kept twice.
void add_engine(const infer::EngineStats& s, std::vector<prometheus::MetricFamily>& to) {
  const auto counter = [&](const char* name, auto value, const char* help) {
    to.push_back(family(name, help, MetricType::Counter, static_cast<double>(value)));
  };
  const auto gauge = [&](const char* name, int value, const char* help) {
    to.push_back(family(name, help, MetricType::Gauge, value));
  };
  gauge("cachalot_running", s.running, "Texts that have cache pages: read or generated now");
  gauge("cachalot_waiting", s.waiting, "Texts that wait for cache pages or a place");
  gauge("cachalot_kept_texts", s.kept,
        "Ended texts whose pages are kept for ones that begin alike");
  gauge("cachalot_cache_pages", s.pages, "Pages of the latent cache, of 64 tokens each");
  gauge("cachalot_cache_pages_free", s.free_pages, "Pages that hold nothing");
  counter("cachalot_passes_total", s.passes, "Passes of the model");
  counter("cachalot_pass_rows_total", s.rows, "Tokens read by passes, drafts included");
  counter("cachalot_pass_seconds_total", s.pass_seconds, "Time in passes");
  counter("cachalot_draft_seconds_total", s.draft_seconds, "Time in the MTP layer, for drafts");
  counter("cachalot_preemptions_total", s.preemptions, "Texts that gave their pages to others");
  counter("cachalot_evictions_total", s.evictions, "Kept texts that went where pages were short");
  counter("cachalot_drafts_total", s.mtp.drafted, "Tokens the MTP layer drafted, in ended texts");
  counter("cachalot_drafts_accepted_total", s.mtp.accepted, "Drafts that were right");
  counter("cachalot_certain_drafts_total", s.certain.drafted,
          "Tokens drafted because a form left no choice about their text, in ended texts");
  counter("cachalot_certain_drafts_accepted_total", s.certain.accepted,
          "Of those, tokens that were cut as guessed");
}

}  // namespace

std::string_view endpoint_label(std::string_view path) noexcept {
  path = path.substr(0, path.find_first_of("?#"));
  if (path == "/") return kPage;
  const auto known = std::find(kEndpoints.begin(), kEndpoints.end(), path);
  if (known != kEndpoints.end()) return *known;
  return path.starts_with("/v1/models/") ? kOneModel : kOther;
}

struct Metrics::Impl {
  prometheus::Registry registry;
  prometheus::Family<Counter>& requests;
  std::unordered_map<std::string_view, Histogram*> request_seconds;  // all of kEndpoints
  Counter &prompt_tokens, &reused_tokens, &generated_tokens;
  std::array<Counter*, kFinishes.size()> finished;
  Histogram &first_token, &per_token, &queue;
  Gauge &streams, &connections;

  Impl(const std::string& model, const std::string& version)
      : requests(prometheus::BuildCounter()
                     .Name("cachalot_requests_total")
                     .Help("HTTP requests answered; status 499: given up by the client")
                     .Register(registry)),
        prompt_tokens(counter("cachalot_prompt_tokens_total", "Prompt tokens of ended requests")),
        reused_tokens(counter("cachalot_prompt_tokens_reused_total",
                              "Of them, found in the cache or the prefix store: not computed")),
        generated_tokens(counter("cachalot_generated_tokens_total", "Tokens, as they come")),
        first_token(histogram("cachalot_time_to_first_token_seconds",
                              "From a request's arrival at the engine to its first token")),
        per_token(histogram("cachalot_time_per_output_token_seconds",
                            "Of a request: mean time from a token of a choice to its next")),
        queue(histogram("cachalot_queue_seconds", "Until a request was first given cache pages")),
        streams(gauge("cachalot_open_streams", "Answers under way")),
        connections(gauge("cachalot_connections", "Open connections")) {
    prometheus::BuildGauge()
        .Name("cachalot_build_info")
        .Help("Always 1; the labels say what runs")
        .Register(registry)
        .Add({{"version", version}, {"model", model}}, 1);
    auto& seconds = prometheus::BuildHistogram()
                        .Name("cachalot_request_seconds")
                        .Help("From a request's first line to the end of its answer")
                        .Register(registry);
    for (const std::string_view endpoint : kEndpoints) {
      request_seconds[endpoint] =
          &seconds.Add({{"endpoint", std::string(endpoint)}}, time_buckets());
    }
    auto& ends = prometheus::BuildCounter()
                     .Name("cachalot_finished_total")
                     .Help("Choices that ended, by what ended them")
                     .Register(registry);
    for (std::size_t i = 0; i < kFinishes.size(); ++i) {
      finished[i] = &ends.Add({{"reason", std::string(infer::name(kFinishes[i]))}});
    }
  }

  Counter& counter(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
  }
  Gauge& gauge(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({});
  }
  Histogram& histogram(const char* name, const char* help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(
        {}, time_buckets());
  }
};

Metrics::Metrics(const std::string& model, const std::string& version)
    : impl_(std::make_unique<Impl>(model, version)) {}
Metrics::~Metrics() = default;

void Metrics::answered(std::string_view endpoint, int status, double seconds) {
  const std::string_view label = endpoint_label(endpoint);
  impl_->requests.Add({{"endpoint", std::string(label)}, {"status", std::to_string(status)}})
      .Increment();
  impl_->request_seconds.at(label)->Observe(seconds);
}

void Metrics::ended(const infer::Result& result) {
  const infer::Timings& t = result.timings;
  impl_->prompt_tokens.Increment(t.prompt_tokens);
  impl_->reused_tokens.Increment(t.reused_tokens);
  impl_->queue.Observe(t.queue_seconds);
  if (t.first_tokens > 0) impl_->first_token.Observe(t.first_token_seconds);
  if (t.new_tokens > t.first_tokens) {
    // Choices of one request take their tokens in the same passes: a reader of one of them waits
    // for as many passes as that choice has further tokens.
    const double further = static_cast<double>(t.new_tokens - t.first_tokens) / t.first_tokens;
    impl_->per_token.Observe(t.decode_seconds / further);
  }
  for (const infer::Choice& choice : result.choices) {
    const auto reason = std::find(kFinishes.begin(), kFinishes.end(), choice.finish);
    if (reason == kFinishes.end()) continue;
    impl_->finished[static_cast<std::size_t>(reason - kFinishes.begin())]->Increment();
  }
}

void Metrics::generated_token() { impl_->generated_tokens.Increment(); }

Metrics::Totals Metrics::totals() const {
  const auto count = [](const Counter& counter) {
    return static_cast<std::int64_t>(counter.Value());
  };
  return {.generated_tokens = count(impl_->generated_tokens),
          .prompt_tokens = count(impl_->prompt_tokens),
          .reused_tokens = count(impl_->reused_tokens)};
}

void Metrics::streams(int open) { impl_->streams.Set(open); }
void Metrics::connections(int open) { impl_->connections.Set(open); }

std::string Metrics::text(const infer::EngineStats& engine) {
  std::vector<prometheus::MetricFamily> families = impl_->registry.Collect();
  add_engine(engine, families);
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace cachalot::serve
