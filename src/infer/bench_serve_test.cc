// The engine under load, scaled down: many streams of random lengths, some cancelled, in a cache
// that is too small for them. What counts is the answers, and that the sanitizers look on.
#include "infer/bench_serve.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "infer/engine_case_test.h"

namespace cachalot::infer {
namespace {

// $CACHALOT_LOAD_SECONDS makes the load last longer: half an hour of it is `bench serve`.
double load_seconds() {
  const char* seconds = std::getenv("CACHALOT_LOAD_SECONDS");
  return seconds != nullptr ? std::strtod(seconds, nullptr) : 2;
}

TEST(EngineLoadTest, ManyStreamsInASmallCacheAnswerAsAlone) {
  const runtime::Runtime rt(anywhere(2));
  const model::Model model = load_for(rt, model_with_mtp(), Precision::kBF16);
  ServeBenchOptions o;
  o.streams = 64;
  o.seconds = load_seconds();
  o.distinct = 24;
  o.most_prompt = 150;
  o.most_tokens = 40;
  o.cancelled = 0.15;
  // Of 64 streams of up to 190 tokens, three pages each, some 20 at a time.
  o.engine.cache_bytes = model::CachePool::bytes_for(
      model.config(), model::default_cache_format(Precision::kBF16), 3 * kLatentBlock, 20);
  o.engine.kept_texts = 8;
  const ServeBenchResult r = bench_serve(rt.context(), model, o, [](const std::string&) {});
  EXPECT_GT(r.requests, 0);
  EXPECT_GT(r.new_tokens, 0);
  // A device sums by the number of rows, so an answer among others need not be that alone.
  if (rt.context().device == nullptr) {
    EXPECT_EQ(r.wrong, 0);
  }
  EXPECT_EQ(r.failed, 0);
  // The cache was as small as it was meant to be, and nothing of it is held by ended requests.
  EXPECT_EQ(r.engine.running, 0);
  EXPECT_EQ(r.engine.waiting, 0);
  EXPECT_LE(r.late_pages, r.engine.pages);
  EXPECT_GE(r.late_pages, r.early_pages);
}

}  // namespace
}  // namespace cachalot::infer
