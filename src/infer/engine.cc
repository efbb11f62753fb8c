#include "infer/engine.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"
#include "runtime/memory.h"

namespace cachalot::infer {

namespace {

LatentFormat cache_format(const model::Model& model, const EngineConfig& config) {
  return config.cache.value_or(model::default_cache_format(model.precision()));
}

std::size_t pool_bytes(const Context& ctx, const model::Model& model, const EngineConfig& config) {
  if (config.cache_bytes > 0) return config.cache_bytes;
  return default_cache_bytes(model.config(), cache_format(model, config), ctx.device);
}

void check(const EngineConfig& c, const model::Model& model) {
  if (c.mtp == MtpMode::kOn && !model.has_mtp()) {
    throw Error(Code::kUsage,
                "this model has no MTP layer (num_nextn_predict_layers is 0 or its tensors are "
                "missing), so nothing can be drafted: use --mtp off or auto");
  }
  const auto need = [](bool ok, std::string_view what, auto met, std::string_view needed) {
    if (!ok) throw Error(Code::kUsage, cat(what, " is ", met, ", but it must be ", needed));
  };
  need(c.prefill_chunk >= 1, "prefill chunk", c.prefill_chunk, "at least 1");
  need(c.draft_length >= 1 && c.draft_length <= kMaxDrafts, "draft length", c.draft_length,
       cat("1 to ", kMaxDrafts));
  need(c.max_gap_seconds > 0, "the longest gap", c.max_gap_seconds, "above 0 seconds");
  need(c.max_running >= 1, "max_running", c.max_running, "at least 1");
  need(c.max_waiting >= 1, "max_waiting", c.max_waiting, "at least 1");
  need(c.kept_texts >= 0, "kept_texts", c.kept_texts, "0 or more");
  if (c.on_routing && c.routing_layer != -1) {
    const bool mtp = c.mtp != MtpMode::kOff && model.has_mtp();
    model.config().moe_layer_or_first(c.routing_layer, mtp);
  }
}

}  // namespace

std::string_view name(MtpMode mode) noexcept {
  static constexpr std::array<std::string_view, 3> kNames = {"auto", "on", "off"};
  return kNames[static_cast<std::size_t>(mode)];
}

std::size_t default_cache_bytes(const model::Config& config, LatentFormat format,
                                const Device* device) {
  constexpr int kSequences = 64;
  const std::size_t useful =
      model::CachePool::bytes_for(config, format, config.max_position_embeddings, kSequences);
  const std::size_t least = model::CachePool::bytes_for(config, format, 1);
  return std::max(least, std::min(useful, runtime::available_memory(device) / 2));
}

Engine::Engine(const Context& ctx, const model::Model& model, const EngineConfig& config,
               const text::Tokenizer* tokenizer)
    : ctx_(ctx),
      model_(model),
      config_((check(config, model), config)),
      tokenizer_(tokenizer),
      pool_(model.config(), cache_format(model, config), pool_bytes(ctx, model, config),
            ctx.device),
      forward_(ctx, model, config.attention),
      mtp_(config.mtp != MtpMode::kOff && model.has_mtp()),
      policy_(config.mtp == MtpMode::kOn ? config.draft_length : -1) {
  if (!config_.on_routing) return;
  const auto hear = [this](int layer, MatView<const std::int32_t> chosen) {
    config_.on_routing(pass_, layer, chosen);
  };
  forward_.tap_routing({hear, config_.routing_layer});
}

Engine::~Engine() = default;

void Engine::check_request(const Request& request) const {
  validate(request, {model_.config().vocab_size, pool_.max_tokens(), tokenizer_ != nullptr});
  if (request.n > config_.max_running) {
    throw Error(Code::kUsage, cat(request.n, " choices are asked for, but ", config_.max_running,
                                  " texts run at once (max_running): ask for fewer"));
  }
}

int Engine::queued() const {
  const std::lock_guard lock(mutex_);
  return queued_;
}

RequestId Engine::submit(Request request) {
  check_request(request);
  auto job = std::make_shared<Job>();
  job->request = std::move(request);
  job->submitted = Clock::now();
  job->unfinished = job->request.n;
  job->result.choices.resize(static_cast<std::size_t>(job->request.n));
  for (Choice& choice : job->result.choices) choice.mtp.enabled = mtp_;
  job->result.timings.prompt_tokens = static_cast<int>(job->request.prompt.size());
  const std::lock_guard lock(mutex_);
  if (queued_ >= config_.max_waiting) {
    throw Error(Code::kBusy, cat(queued_,
                                 " requests are waiting, which is as many as are taken "
                                 "(max_waiting): try again when some are done"));
  }
  ++queued_;
  job->id = job->result.id = next_id_++;
  inbox_.push_back(job);
  arrived_.notify_all();
  return job->id;
}

void Engine::cancel(RequestId id) {
  const std::lock_guard lock(mutex_);
  cancelled_.push_back(id);
  arrived_.notify_all();
}

void Engine::take_inbox() {
  std::vector<std::shared_ptr<Job>> jobs;
  std::vector<RequestId> cancelled;
  {
    const std::lock_guard lock(mutex_);
    jobs.swap(inbox_);
    cancelled.swap(cancelled_);
  }
  for (const auto& job : jobs) {
    auto stream = std::make_shared<Stream>(job, 0, pool_, tokenizer_);
    stream->forks = job->request.n - 1;
    waiting_.push_back(std::move(stream));
  }
  if (cancelled.empty()) return;
  std::vector<StreamPtr> all = running_;
  all.insert(all.end(), waiting_.begin(), waiting_.end());
  for (const StreamPtr& stream : all) {
    if (std::find(cancelled.begin(), cancelled.end(), stream->job().id) == cancelled.end()) {
      continue;
    }
    stream->end(Finish::kCancelled);
    finish(*stream);
  }
}

// Takes an ended text out; its pages are kept for others that begin like it.
void Engine::finish(Stream& stream) {
  const auto is_it = [&](const StreamPtr& s) { return s.get() == &stream; };
  const auto found = std::find_if(running_.begin(), running_.end(), is_it);
  const auto waits = std::find_if(waiting_.begin(), waiting_.end(), is_it);
  if (found == running_.end() && waits == waiting_.end()) return;  // taken out before
  const StreamPtr alive = found != running_.end() ? *found : *waits;
  std::erase_if(running_, is_it);
  std::erase_if(waiting_, is_it);
  stream.running = false;
  Job& job = stream.job();
  // Choices that were to begin at its prompt's end never will.
  for (; stream.forks > 0; --stream.forks) {
    const int last = job.request.n - stream.forks;
    job.result.choices[static_cast<std::size_t>(last)].finish = stream.choice().finish;
    --job.unfinished;
  }
  stats_.mtp.add(stream.choice().mtp);
  stats_.certain.drafted += stream.choice().certain.drafted;
  stats_.certain.accepted += stream.choice().certain.accepted;
  keep(stream);
  if (--job.unfinished == 0) settle(stream.shared_job());
}

void Engine::fail(Stream& stream, std::exception_ptr error) {
  Job& job = stream.job();
  job.result.error = std::move(error);
  std::vector<StreamPtr> all = running_;  // keeps the job, too
  all.insert(all.end(), waiting_.begin(), waiting_.end());
  std::erase_if(all, [&](const StreamPtr& each) { return &each->job() != &job; });
  // All of them first: the last one that is taken out settles the request.
  for (const StreamPtr& each : all) {
    if (!each->done()) each->end(Finish::kError);
  }
  for (const StreamPtr& each : all) {
    each->read.truncate(each->size() - 1);  // rows of drafts, where the pass was not over
    finish(*each);
  }
}

// Of a request whose choices have all ended. It is told when nothing is half done (tell_done).
void Engine::settle(const std::shared_ptr<Job>& ended) {
  Job& job = *ended;
  Timings& t = job.result.timings;
  const Clock::time_point now = Clock::now();
  const Clock::time_point started = job.started.value_or(now);
  const Clock::time_point first = job.first_token.value_or(now);
  t.queue_seconds = seconds_between(job.submitted, started);
  t.prefill_seconds = seconds_between(started, first);
  t.first_token_seconds = seconds_between(job.submitted, first);
  t.decode_seconds = job.first_token ? seconds_between(first, job.last_token) : 0;
  t.new_tokens = t.first_tokens = 0;
  for (const Choice& choice : job.result.choices) {
    t.new_tokens += static_cast<int>(choice.tokens.size());
    t.first_tokens += choice.tokens.empty() ? 0 : 1;
  }
  if (!job.started) {
    const std::lock_guard lock(mutex_);
    --queued_;
  }
  ++stats_.finished;
  settled_.push_back(ended);
}

// Between passes: a callback that throws finds every text where it belongs, and keeps nobody else
// from being told.
void Engine::tell_done() {
  while (!settled_.empty()) {
    const std::shared_ptr<Job> job = std::move(settled_.front());
    settled_.pop_front();
    try {
      if (job->request.on_done) job->request.on_done(job->result);
    } catch (...) {
      if (!thrown_) thrown_ = std::current_exception();
    }
  }
}

void Engine::throw_from_callback() {
  if (thrown_) std::rethrow_exception(std::exchange(thrown_, nullptr));
}

void Engine::publish() {
  stats_.running = static_cast<int>(running_.size());
  stats_.waiting = static_cast<int>(waiting_.size());
  stats_.kept = static_cast<int>(kept_.size());
  stats_.pages = pool_.pages();
  stats_.free_pages = pool_.free_pages();
  stats_.most_pages = pool_.most_pages();
  const std::lock_guard lock(mutex_);
  shown_ = stats_;
}

EngineStats Engine::stats() const {
  const std::lock_guard lock(mutex_);
  return shown_;
}

bool Engine::advance() {
  take_inbox();
  admit();
  const std::vector<Slice> slices = with_pages(plan());
  tell_done();  // of those that got no pass: they need not wait for it
  if (!slices.empty()) pass(slices);
  tell_done();
  publish();
  // A callback, or another thread, may have brought something while the pass ran.
  const std::lock_guard lock(mutex_);
  return !running_.empty() || !waiting_.empty() || !inbox_.empty();
}

bool Engine::step() {
  const bool more = advance();
  throw_from_callback();
  return more;
}

void Engine::run() {
  while (advance()) {
  }
  throw_from_callback();
}

void Engine::serve(const std::stop_token& stop) {
  const std::stop_callback wake(stop, [this] {
    const std::lock_guard lock(mutex_);
    arrived_.notify_all();
  });
  while (!stop.stop_requested()) {
    if (advance()) continue;
    std::unique_lock lock(mutex_);
    arrived_.wait(lock,
                  [&] { return stop.stop_requested() || !inbox_.empty() || !cancelled_.empty(); });
  }
  take_inbox();
  std::vector<StreamPtr> all = running_;
  all.insert(all.end(), waiting_.begin(), waiting_.end());
  for (const StreamPtr& stream : all) {
    stream->end(Finish::kCancelled);
    finish(*stream);
  }
  tell_done();
  publish();
  throw_from_callback();
}

std::vector<Result> Engine::run(std::span<const Request> requests) {
  for (const Request& request : requests) check_request(request);
  // Shared with the callbacks, which may outlive this call where it throws.
  struct Answers {
    std::vector<Result> results;
    std::size_t done = 0;
  };
  const auto answers = std::make_shared<Answers>();
  answers->results.resize(requests.size());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    Request request = requests[i];
    request.on_done = [answers, i, on_done = requests[i].on_done](const Result& result) {
      answers->results[i] = result;
      ++answers->done;
      if (on_done) on_done(result);
    };
    // More requests than may wait: those before them go first.
    while (queued() >= config_.max_waiting) advance();
    submit(std::move(request));
  }
  while (answers->done < requests.size() && advance()) {
  }
  throw_from_callback();
  for (const Result& result : answers->results) {
    if (result.error) std::rethrow_exception(result.error);
  }
  return std::move(answers->results);
}

Result Engine::run(const Request& request) {
  return std::move(run(std::span<const Request>(&request, 1)).front());
}

}  // namespace cachalot::infer
