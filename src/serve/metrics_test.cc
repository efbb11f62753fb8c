#include "serve/metrics.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <sstream>
#include <thread>
#include <vector>

namespace cachalot::serve {
namespace {

// The samples of a text, by name and labels as they are written.
std::map<std::string, double> samples(const std::string& text) {
  std::map<std::string, double> found;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line.front() == '#') continue;
    const std::size_t blank = line.rfind(' ');
    EXPECT_TRUE(found.emplace(line.substr(0, blank), std::stod(line.substr(blank + 1))).second)
        << line << " comes twice";
  }
  return found;
}

std::map<std::string, double> samples(Metrics& metrics) { return samples(metrics.text({})); }

infer::Result result(int prompt, int reused, const std::vector<infer::Finish>& finishes) {
  infer::Result r;
  r.timings.prompt_tokens = prompt;
  r.timings.reused_tokens = reused;
  for (const infer::Finish finish : finishes) {
    r.choices.emplace_back();
    r.choices.back().finish = finish;
  }
  return r;
}

TEST(Metrics, EverythingIsThereFromTheStartSoThatRatesAreKnown) {
  Metrics metrics("m", "1.2.3");
  const auto all = samples(metrics);
  for (const char* name : {"cachalot_prompt_tokens_total",
                           "cachalot_prompt_tokens_reused_total",
                           "cachalot_generated_tokens_total",
                           "cachalot_drafts_total",
                           "cachalot_drafts_accepted_total",
                           "cachalot_time_to_first_token_seconds_count",
                           "cachalot_time_per_output_token_seconds_count",
                           "cachalot_queue_seconds_count",
                           "cachalot_finished_total{reason=\"length\"}",
                           "cachalot_finished_total{reason=\"error\"}",
                           "cachalot_request_seconds_count{endpoint=\"/v1/chat/completions\"}",
                           "cachalot_request_seconds_count{endpoint=\"other\"}",
                           "cachalot_running",
                           "cachalot_waiting",
                           "cachalot_kept_texts",
                           "cachalot_cache_pages",
                           "cachalot_cache_pages_free",
                           "cachalot_open_streams",
                           "cachalot_connections",
                           "cachalot_passes_total",
                           "cachalot_pass_rows_total",
                           "cachalot_pass_seconds_total",
                           "cachalot_preemptions_total",
                           "cachalot_evictions_total"}) {
    ASSERT_TRUE(all.contains(name)) << name;
    EXPECT_EQ(0, all.at(name)) << name;
  }
  EXPECT_EQ(1, all.at("cachalot_build_info{model=\"m\",version=\"1.2.3\"}"));
}

TEST(Metrics, EachFamilyHasOneHelpAndOneTypeBeforeItsSamples) {
  Metrics metrics("m", "1");
  metrics.answered("/health", 200, 0.1);
  std::istringstream lines(metrics.text({}));
  std::set<std::string> helped, typed;
  std::map<std::string, std::string> types;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string hash, kind, name, type;
    if (line.starts_with("# ")) {
      words >> hash >> kind >> name >> type;
      EXPECT_TRUE((kind == "HELP" ? helped : typed).insert(name).second) << line;
      if (kind == "TYPE") types[name] = type;
      EXPECT_TRUE(name.starts_with("cachalot_")) << line;
    } else {
      std::string base = line.substr(0, line.find_first_of("{ "));
      for (const std::string suffix : {"_bucket", "_sum", "_count"}) {
        const std::string stem = base.substr(0, base.size() - std::min(base.size(), suffix.size()));
        if (base.ends_with(suffix) && types[stem] == "histogram") base = stem;
      }
      EXPECT_TRUE(helped.contains(base) && typed.contains(base)) << line;
      // By convention a counter, and nothing else, ends so.
      EXPECT_EQ(types[base] == "counter", base.ends_with("_total")) << line;
    }
  }
}

TEST(Metrics, RequestsAreCountedByEndpointAndStatus) {
  Metrics metrics("m", "1");
  metrics.answered("/v1/chat/completions", 200, 0.001);  // on a bound: that bucket's
  metrics.answered("/v1/chat/completions", 200, 0.0011);
  metrics.answered("/v1/chat/completions", 400, 1000);
  metrics.answered("/v1/models/some/model?x=1", 404, 0.5);
  const auto all = samples(metrics);
  const std::string chat = "endpoint=\"/v1/chat/completions\"";
  EXPECT_EQ(2, all.at("cachalot_requests_total{" + chat + ",status=\"200\"}"));
  EXPECT_EQ(1, all.at("cachalot_requests_total{" + chat + ",status=\"400\"}"));
  EXPECT_EQ(1, all.at("cachalot_requests_total{endpoint=\"/v1/models/{id}\",status=\"404\"}"));
  EXPECT_EQ(3, all.at("cachalot_request_seconds_count{" + chat + "}"));
  EXPECT_DOUBLE_EQ(0.001 + 0.0011 + 1000, all.at("cachalot_request_seconds_sum{" + chat + "}"));
  EXPECT_EQ(1, all.at("cachalot_request_seconds_bucket{" + chat + ",le=\"0.001\"}"));
  EXPECT_EQ(2, all.at("cachalot_request_seconds_bucket{" + chat + ",le=\"0.0025\"}"));
  EXPECT_EQ(2, all.at("cachalot_request_seconds_bucket{" + chat + ",le=\"120\"}"));
  EXPECT_EQ(3, all.at("cachalot_request_seconds_bucket{" + chat + ",le=\"+Inf\"}"));
}

TEST(Metrics, EndpointsAreOfAFixedSet) {
  EXPECT_EQ("/v1/completions", endpoint_label("/v1/completions"));
  EXPECT_EQ("/v1/completions", endpoint_label("/v1/completions?a=b"));
  EXPECT_EQ("/v1/models", endpoint_label("/v1/models"));
  EXPECT_EQ("/v1/models/{id}", endpoint_label("/v1/models/deepseek"));
  EXPECT_EQ("page", endpoint_label("/"));
  EXPECT_EQ("page", endpoint_label("/?tab=plan"));
  EXPECT_EQ("page", endpoint_label("page"));
  for (const char* path : {"", "/v1", "/v1/completions/", "/v1/Completions", "/wp-login.php", "?",
                           "//", "/metrics/", "*"}) {
    EXPECT_EQ("other", endpoint_label(path)) << path;
  }
  Metrics metrics("m", "1");
  metrics.answered("/a", 404, 0);
  const std::size_t before = samples(metrics).size();
  for (int i = 0; i < 100; ++i) metrics.answered("/v9/" + std::to_string(i), 404, 0);
  EXPECT_EQ(before, samples(metrics).size());
  EXPECT_EQ(101, samples(metrics).at("cachalot_requests_total{endpoint=\"other\",status=\"404\"}"));
}

TEST(Metrics, TokensAndTimesOfAnEndedRequest) {
  Metrics metrics("m", "1");
  infer::Result two = result(100, 64, {infer::Finish::kLength, infer::Finish::kEos});
  // Two choices of 11 and 9 tokens, side by side in 0.9 s: 18 further tokens, 9 of each choice.
  two.timings.new_tokens = 20;
  two.timings.first_tokens = 2;
  two.timings.queue_seconds = 0.25;
  two.timings.first_token_seconds = 0.5;
  two.timings.decode_seconds = 0.9;
  for (int token = 0; token < 20; ++token) metrics.generated_token();  // as they came
  metrics.ended(two);
  const auto all = samples(metrics);
  EXPECT_EQ(100, metrics.totals().prompt_tokens);
  EXPECT_EQ(64, metrics.totals().reused_tokens);
  EXPECT_EQ(20, metrics.totals().generated_tokens);
  EXPECT_EQ(100, all.at("cachalot_prompt_tokens_total"));
  EXPECT_EQ(64, all.at("cachalot_prompt_tokens_reused_total"));
  EXPECT_EQ(20, all.at("cachalot_generated_tokens_total"));
  EXPECT_DOUBLE_EQ(0.25, all.at("cachalot_queue_seconds_sum"));
  EXPECT_DOUBLE_EQ(0.5, all.at("cachalot_time_to_first_token_seconds_sum"));
  EXPECT_DOUBLE_EQ(0.1, all.at("cachalot_time_per_output_token_seconds_sum"));
  EXPECT_EQ(1, all.at("cachalot_time_per_output_token_seconds_count"));
  EXPECT_EQ(1, all.at("cachalot_finished_total{reason=\"length\"}"));
  EXPECT_EQ(1, all.at("cachalot_finished_total{reason=\"eos\"}"));
  EXPECT_EQ(0, all.at("cachalot_finished_total{reason=\"stop\"}"));
}

TEST(Metrics, ARequestWithoutTokensHasNoTimesOfThem) {
  Metrics metrics("m", "1");
  metrics.ended(result(5, 0, {infer::Finish::kCancelled}));
  infer::Result one = result(5, 0, {infer::Finish::kLength});
  one.timings.new_tokens = one.timings.first_tokens = 1;
  metrics.ended(one);
  const auto all = samples(metrics);
  EXPECT_EQ(2, all.at("cachalot_queue_seconds_count"));
  EXPECT_EQ(1, all.at("cachalot_time_to_first_token_seconds_count"));
  EXPECT_EQ(0, all.at("cachalot_time_per_output_token_seconds_count"));
  EXPECT_EQ(1, all.at("cachalot_finished_total{reason=\"cancelled\"}"));
}

TEST(Metrics, TheEnginesNumbersAreShownAsTheyAre) {
  Metrics metrics("m", "1");
  infer::EngineStats engine;
  engine.passes = (std::int64_t{1} << 53) - 1;  // no digit is lost
  engine.rows = 7;
  engine.pass_seconds = 0.1;
  engine.running = 1;
  engine.waiting = 2;
  engine.kept = 3;
  engine.pages = 4;
  engine.free_pages = 5;
  engine.preemptions = 6;
  engine.evictions = 8;
  engine.mtp.drafted = 10;
  engine.mtp.accepted = 9;
  engine.certain = {.drafted = 12, .accepted = 11};
  metrics.text(engine);  // looking changes nothing
  const auto all = samples(metrics.text(engine));
  EXPECT_EQ(9007199254740991.0, all.at("cachalot_passes_total"));
  EXPECT_EQ(7, all.at("cachalot_pass_rows_total"));
  EXPECT_EQ(0.1, all.at("cachalot_pass_seconds_total"));
  EXPECT_EQ(1, all.at("cachalot_running"));
  EXPECT_EQ(2, all.at("cachalot_waiting"));
  EXPECT_EQ(3, all.at("cachalot_kept_texts"));
  EXPECT_EQ(4, all.at("cachalot_cache_pages"));
  EXPECT_EQ(5, all.at("cachalot_cache_pages_free"));
  EXPECT_EQ(6, all.at("cachalot_preemptions_total"));
  EXPECT_EQ(8, all.at("cachalot_evictions_total"));
  EXPECT_EQ(10, all.at("cachalot_drafts_total"));
  EXPECT_EQ(9, all.at("cachalot_drafts_accepted_total"));
  EXPECT_EQ(12, all.at("cachalot_certain_drafts_total"));
  EXPECT_EQ(11, all.at("cachalot_certain_drafts_accepted_total"));
}

TEST(Metrics, AModelsNameMayHoldWhatTheFormatUses) {
  Metrics metrics("a\"b\\c\nd", "1");
  EXPECT_TRUE(
      samples(metrics).contains("cachalot_build_info{model=\"a\\\"b\\\\c\\nd\",version=\"1\"}"));
}

TEST(Metrics, ManyThreadsCountAndLookAtOnce) {
  Metrics metrics("m", "1");
  constexpr int kThreads = 4, kEach = 500;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&metrics, t] {
      for (int i = 0; i < kEach; ++i) {
        metrics.answered("/v1/completions", 200 + t, 0.5);
        infer::Result one = result(3, 1, {infer::Finish::kStopped});
        one.timings.new_tokens = one.timings.first_tokens = 1;
        metrics.ended(one);
        metrics.streams(t);
        metrics.connections(t);
        if (i % 100 == 0) metrics.text({});
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const auto all = samples(metrics);
  EXPECT_EQ(kThreads * kEach,
            all.at("cachalot_request_seconds_count{endpoint=\"/v1/completions\"}"));
  EXPECT_EQ(kEach, all.at("cachalot_requests_total{endpoint=\"/v1/completions\",status=\"203\"}"));
  EXPECT_EQ(3 * kThreads * kEach, all.at("cachalot_prompt_tokens_total"));
  EXPECT_EQ(kThreads * kEach, all.at("cachalot_finished_total{reason=\"stop\"}"));
  metrics.streams(2);
  metrics.connections(3);
  EXPECT_EQ(2, samples(metrics).at("cachalot_open_streams"));
  EXPECT_EQ(3, samples(metrics).at("cachalot_connections"));
}

}  // namespace
}  // namespace cachalot::serve
