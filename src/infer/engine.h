// Many requests at once on one model: continuous batching over a pool of latent-cache pages, with
// chunked prompts, MTP drafts, texts kept for those that begin alike, and a prefix store.
//
// Each step is one pass of the model. It takes the next token of every text that generates, with
// its drafts, and a bounded number of tokens of prompts that are still being read, so that a long
// prompt does not stop the others: a pass is kept near max_gap_seconds. Where pages are short, kept
// texts go first, then the pages of the most junior text (lower priority, later request), which is
// read again later. A request that could not run even alone ends with Finish::kCacheFull.
//
// With absorbed attention (the default) a token's bits depend on the tokens before it alone: not on
// the batch, chunks, reuse, drafts, preemption or threads. A draft is kept only where the sampler,
// asked at that place with the main model's logits, draws the same token; so sampling with drafts
// follows the target distribution exactly, and gives what it would give without.
//
// Owns:    the pool of pages and the texts; nothing of the model, the tokenizer or the store.
// Threads: submit, cancel and stats: any. step, run and serve: one at a time, which is the engine's
//          thread; callbacks run on it.
// Errors:  submit: kUsage (request.h), kBusy where max_waiting requests wait. A row of logits with
//          NaN, or an on_token that throws, ends that request (Finish::kError, Result::error). An
//          on_done that throws has nobody to tell: all others are told first, then step() throws
//          it; run() and serve() go on and throw the first one at their end.
// Paper:   V3 report 2.1.1, 2.2, 3.4, 5.4.3.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <string_view>
#include <vector>

#include "infer/draft_policy.h"
#include "infer/prefix_store.h"
#include "infer/request.h"
#include "infer/stream.h"
#include "model/forward.h"

namespace cachalot::infer {

enum class MtpMode : std::uint8_t {
  kAuto,  // where the model has an MTP layer, as many drafts as pay (draft_policy.h)
  kOn,    // draft_length of them, always
  kOff,
};
std::string_view name(MtpMode mode) noexcept;  // "auto", "on", "off"

struct EngineConfig {
  MtpMode mtp = MtpMode::kAuto;
  int draft_length = 1;  // with kOn: 1 to kMaxDrafts
  // Text that a request's constraint leaves no choice about is drafted (certain_limit.h).
  bool draft_certain = true;
  // kAuto reads long prompts faster, but then bits depend on how a prompt is cut.
  model::AttentionMode attention = model::AttentionMode::kAbsorbed;
  int prefill_chunk = 512;                 // prompt tokens of a pass, at most
  double max_gap_seconds = 0.5;            // a pass that others wait for takes about this at most
  std::optional<LatentFormat> cache = {};  // none: what the model's precision asks for
  std::size_t cache_bytes = 0;             // of the pool; 0: default_cache_bytes
  int max_running = 64;                    // texts in a pass, choices yet to begin included
  int max_waiting = 1024;                  // requests; submit refuses further ones
  int kept_texts = 16;                     // that have ended, for texts that begin alike
  PrefixStore* store = nullptr;
  // Where set, hears of every row that is read which experts it chose: [T, k] of all rows of a
  // layer, text after text, in the pass under way (from 0). Rows of drafts are among them, since
  // they went to their experts whether or not they were kept; rows found in the cache or the store
  // are not. The MTP layer, num_hidden_layers, is heard as often as it runs in a pass: where rows
  // catch up, for each draft, and where choices begin. On the engine's thread; it must not throw.
  std::function<void(std::int64_t pass, int layer, MatView<const std::int32_t> chosen)> on_routing =
      nullptr;
  int routing_layer = -1;  // whose rows on_routing hears; -1: every layer with experts
};

// Half of the memory there is free, on the device if there is one, but no more than 64 sequences as
// long as the model's context need.
std::size_t default_cache_bytes(const model::Config& config, LatentFormat format,
                                const Device* device = nullptr);

struct EngineStats {
  std::int64_t passes = 0;
  std::int64_t rows = 0;  // read by the main model, drafts included
  double pass_seconds = 0;
  double draft_seconds = 0;
  double longest_pass_seconds = 0;
  int running = 0, waiting = 0, kept = 0;
  int pages = 0, free_pages = 0;
  int most_pages = 0;  // held at once, so far
  std::int64_t finished = 0;
  std::int64_t preemptions = 0;
  std::int64_t evictions = 0;  // of kept texts
  MtpStats mtp;                // these two of ended texts
  CertainStats certain;
};

class Engine {
 public:
  Engine(const Context& ctx, const model::Model& model, const EngineConfig& config = {},
         const text::Tokenizer* tokenizer = nullptr);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  RequestId submit(Request request);
  // The request ends with what it has (Finish::kCancelled), before the next pass; unknown or ended
  // ones are ignored.
  void cancel(RequestId id);

  bool step();  // one pass; false where nothing is left to do
  void run();   // until nothing is left to do
  // Steps, and waits for requests, until asked to stop; what is then unfinished is cancelled.
  void serve(const std::stop_token& stop);

  // Submits, runs until these are done, and throws what ended one of them with kError, or what an
  // on_done threw meanwhile.
  std::vector<Result> run(std::span<const Request> requests);
  Result run(const Request& request);

  EngineStats stats() const;
  bool mtp() const noexcept { return mtp_; }
  const model::CachePool& pool() const noexcept { return pool_; }
  const EngineConfig& config() const noexcept { return config_; }

 private:
  using StreamPtr = std::shared_ptr<Stream>;
  struct Slice {  // of a text, for one pass
    StreamPtr stream;
    int tokens = 0;  // unread ones
    int drafts = 0;
    int rows() const noexcept { return tokens + drafts; }
  };

  // engine.cc
  void check_request(const Request& request) const;
  int queued() const;
  void take_inbox();
  bool advance();
  void finish(Stream& stream);
  void fail(Stream& stream, std::exception_ptr error);
  void settle(const std::shared_ptr<Job>& job);
  void tell_done();
  void throw_from_callback();
  void publish();

  // engine_memory.cc: who has pages
  void admit();
  bool admit_one(const StreamPtr& stream);
  int running_with_forks() const;
  void start(Stream& stream);
  bool reserve(Stream& stream, int rows);
  bool evict_kept();
  void preempt(Stream& stream);
  Stream* most_junior() const;
  void keep(Stream& stream);
  void store_blocks(Stream& stream);

  // engine_pass.cc: what a pass does
  struct Drafting {  // a text in a run of the MTP layer
    StreamPtr text;
    int rows = 0;    // that it reads of the text
    int drafts = 0;  // wanted
  };
  std::vector<Slice> plan();
  int prompt_rows(int generating) const;
  std::vector<Slice> with_pages(std::vector<Slice> slices);
  void pass(std::span<const Slice> slices);
  void sample(std::span<const Slice> slices, MatView<const float> rows);
  void take_tokens(const Slice& slice, int first_logits);
  void fork_choices(Stream& lead, int logits);
  void catch_up(Stream& text, int end);
  void read_mtp(std::span<const StreamPtr> texts);
  void guess(std::span<Drafting> drafting, MatView<const float> rows, int ahead);
  void draft_further(std::span<Drafting> drafting);
  void pick(MatView<const float> from, std::span<const std::int32_t> rows, Mat<float>& to);
  MatView<float> logits_room(int rows);
  void fetch_logits();
  std::span<const float> logits_row(int row) const;

  const Context& ctx_;
  const model::Model& model_;
  const EngineConfig config_;
  const text::Tokenizer* tokenizer_;
  model::CachePool pool_;
  model::Forward forward_;
  bool mtp_ = false;
  DraftPolicy policy_;
  double seconds_per_prompt_row_ = 0;  // measured; 0: not yet
  std::int64_t pass_ = 0;              // the one under way

  std::vector<StreamPtr> running_, waiting_;
  std::deque<std::shared_ptr<Job>> settled_;  // requests that have ended and were not told yet
  std::exception_ptr thrown_;                 // by an on_done, the first
  std::list<ReadText> kept_;                  // the last used one first
  std::vector<StreamPtr> forked_;             // in this pass
  Mat<float> last_rows_, picked_, joined_;    // where the model runs
  Mat<std::int32_t> picked_index_;
  Mat<float> logits_, device_logits_;  // the host's, and where a device wrote them
  EngineStats stats_;

  mutable std::mutex mutex_;  // of all below
  std::condition_variable arrived_;
  std::vector<std::shared_ptr<Job>> inbox_;
  std::vector<RequestId> cancelled_;
  RequestId next_id_ = 1;
  int queued_ = 0;     // requests that were never given pages
  EngineStats shown_;  // what stats() gives
};

}  // namespace cachalot::infer
