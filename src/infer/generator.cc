#include "infer/generator.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "runtime/memory.h"

namespace cachalot::infer {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double rate(double count, double seconds) { return seconds > 0 ? count / seconds : 0; }

void copy_row(MatView<const float> from, int row, MatView<float> to, int to_row) {
  std::copy_n(from.row(row), from.cols, to.row(to_row));
}

LatentFormat cache_format(const model::Model& model, const GeneratorConfig& config) {
  return config.cache.value_or(model::default_cache_format(model.precision()));
}

std::size_t pool_bytes(const model::Model& model, const GeneratorConfig& config) {
  if (config.cache_bytes > 0) return config.cache_bytes;
  return default_cache_bytes(model.config(), cache_format(model, config));
}

}  // namespace

std::string_view name(Finish finish) noexcept {
  switch (finish) {
    case Finish::kLength:
      return "length";
    case Finish::kContext:
      return "context";
    case Finish::kEos:
      return "eos";
    case Finish::kStopped:
      return "stop";
    case Finish::kCacheFull:
      return "cache_full";
  }
  return "length";
}

double Timings::prefill_tokens_per_s() const noexcept {
  return rate(prompt_tokens - reused_tokens, prefill_seconds);
}
double Timings::decode_tokens_per_s() const noexcept {
  return new_tokens > 1 ? rate(new_tokens - 1, decode_seconds) : 0;
}
double MtpStats::acceptance() const noexcept {
  return drafted > 0 ? static_cast<double>(accepted) / static_cast<double>(drafted) : 0;
}

std::size_t default_cache_bytes(const model::Config& config, LatentFormat format) {
  constexpr int kSequences = 64;
  const std::size_t useful =
      model::CachePool::bytes_for(config, format, config.max_position_embeddings, kSequences);
  const std::size_t least = model::CachePool::bytes_for(config, format, 1);
  return std::max(least, std::min(useful, runtime::available_memory() / 2));
}

Sequence Sequence::fork(int length) const {
  return {cache_.fork(length), tokens().first(static_cast<std::size_t>(length))};
}

void Sequence::truncate(int length) {
  tokens_.resize(static_cast<std::size_t>(length));
  cache_.truncate(length);
}

// One request on its way.
struct Generator::Slot {
  Slot(const Request& r, Sequence& s, Clock::time_point begin)
      : request(&r), sequence(&s), sampler(r.sampling, r.stream), start(begin) {}

  // Takes a new token into the result; false when it was the last one.
  bool take(std::int32_t token) {
    if (result.tokens.empty()) result.timings.first_token_seconds = seconds_since(start);
    result.tokens.push_back(token);
    sampler.accept(token);
    pending = token;
    const bool more = request->on_token ? request->on_token(token) : true;
    if (std::find(request->eos.begin(), request->eos.end(), token) != request->eos.end()) {
      return end(Finish::kEos);
    }
    if (!more) return end(Finish::kStopped);
    if (wanted() == 0) return end(Finish::kLength);
    if (known() >= sequence->cache_.capacity()) return end(Finish::kContext);
    return true;
  }
  bool end(Finish finish) {
    result.finish = finish;
    done = true;
    return false;
  }
  int wanted() const { return request->max_tokens - static_cast<int>(result.tokens.size()); }
  // A draft is worth a row when two more tokens are wanted and both fit into the cache.
  bool drafts() const {
    return draft >= 0 && wanted() >= 2 && known() + 2 <= sequence->cache_.capacity();
  }
  // Tokens of the text that the model has read; a draft is none of them until it is accepted.
  int known() const { return static_cast<int>(sequence->tokens_.size()); }
  std::uint64_t position() const { return result.tokens.size(); }

  const Request* request;
  Sequence* sequence;
  Sampler sampler;
  Clock::time_point start;
  Result result;
  std::int32_t pending = -1;  // sampled, not yet read by the model
  std::int32_t draft = -1;    // the MTP layer's guess at the token after `pending`
  bool done = false;

  // What the next MTP pass reads: tokens and, in the same order, the main rows before them.
  std::vector<std::int32_t> mtp_tokens;
  std::vector<int> mtp_rows;
};

Generator::Generator(const Context& ctx, const model::Model& model, const GeneratorConfig& config)
    : ctx_(ctx),
      model_(model),
      config_(config),
      pool_(model.config(), cache_format(model, config), pool_bytes(model, config)),
      forward_(ctx, model, config.attention) {
  if (config.mtp == MtpMode::kOn && !model.has_mtp()) {
    throw Error(Code::kUsage,
                "this model has no MTP layer (num_nextn_predict_layers is 0 or its tensors are "
                "missing), so nothing can be drafted: use --mtp off or auto");
  }
  if (config.prefill_chunk < 1) {
    throw Error(Code::kUsage,
                cat("prefill chunk is ", config.prefill_chunk, ", but it must be at least 1"));
  }
  mtp_ = config.mtp != MtpMode::kOff && model.has_mtp();
}

void Generator::check(const Request& request) const {
  const model::Config& c = model_.config();
  if (request.prompt.empty()) {
    throw Error(Code::kUsage,
                "the prompt has no tokens: give at least one (a BOS token counts) to begin from");
  }
  for (std::size_t i = 0; i < request.prompt.size(); ++i) {
    const std::int32_t id = request.prompt[i];
    if (id < 0 || id >= c.vocab_size) {
      throw Error(Code::kUsage, cat("token ", i, " of the prompt is ", id,
                                    ", but the model's vocabulary has ids 0 to ", c.vocab_size - 1,
                                    ": the tokens come from another tokenizer"));
    }
  }
  if (request.prompt.size() > static_cast<std::size_t>(c.max_position_embeddings)) {
    throw Error(
        Code::kUsage,
        cat("the prompt has ", request.prompt.size(), " tokens, but the model's context holds ",
            c.max_position_embeddings, " (max_position_embeddings): shorten the prompt"));
  }
  if (request.max_tokens < 0) {
    throw Error(Code::kUsage,
                cat("max-tokens is ", request.max_tokens, ", but it must be 0 or more"));
  }
}

std::span<const float> Generator::logits_row(int row) const {
  return {logits_.row(row), static_cast<std::size_t>(logits_.cols())};
}

// Pages for so many tokens more, and for the rows of the MTP layer that are behind.
bool Generator::reserve(Sequence& s, int tokens) const {
  const int length = s.cache_.length();
  return s.cache_.reserve(mtp_ ? std::min(length, s.cache_.mtp_length()) : length, length + tokens);
}

// Reads the prompt and samples the first token. One sequence at a time: a chunk fills the machine,
// and then its cuts, and with them its rounding, depend on this prompt alone.
void Generator::prefill(Slot& slot) {
  const Clock::time_point begin = Clock::now();
  Sequence& s = *slot.sequence;
  const std::vector<std::int32_t>& prompt = slot.request->prompt;
  const int size = static_cast<int>(prompt.size());
  // The last common token is read again: its row gives the logits and the MTP layer's input. MTP
  // row i has read token i + 1, so `reuse` rows of it are valid too.
  const auto mismatch =
      std::mismatch(s.tokens_.begin(), s.tokens_.end(), prompt.begin(), prompt.end());
  int reuse = std::max(0, static_cast<int>(mismatch.first - s.tokens_.begin()) - 1);
  if (mtp_) reuse = std::min(reuse, s.cache_.mtp_length());
  s.truncate(reuse);
  slot.sampler.observe_prompt(prompt);
  slot.result.timings.prompt_tokens = size;
  slot.result.timings.reused_tokens = reuse;
  slot.result.mtp.enabled = mtp_;

  const int width = model_.config().hidden_size;
  hidden_.resize(1, width);
  for (int at = reuse; at < size;) {
    const int n = std::min(config_.prefill_chunk, size - at);
    if (!reserve(s, n)) {
      slot.end(Finish::kCacheFull);
      return;
    }
    const std::span<const std::int32_t> tokens(prompt.data() + at, static_cast<std::size_t>(n));
    const model::Chunk chunk{tokens, &s.cache_};
    const MatView<const float> rows = forward_.run({&chunk, 1});
    s.tokens_.insert(s.tokens_.end(), tokens.begin(), tokens.end());
    copy_row(rows, n - 1, hidden_.view(), 0);
    at += n;
    // The MTP layer joins row i with token i + 1, which the last row does not have yet.
    const int known = at < size ? n : n - 1;
    if (mtp_ && known > 0) {
      const model::Chunk next{{tokens.data() + 1, static_cast<std::size_t>(known)}, &s.cache_};
      forward_.run_mtp({&next, 1}, rows.sub_rows(0, known));
    }
  }
  if (slot.wanted() == 0) {
    slot.end(Finish::kLength);
  } else {
    logits_.resize(1, model_.config().vocab_size);
    forward_.logits(hidden_.cview(), logits_.view());
    slot.take(slot.sampler.sample(logits_row(0), slot.position()));
  }
  slot.result.timings.prefill_seconds = seconds_since(begin);
  if (slot.done || !mtp_) return;
  slot.mtp_tokens = {slot.pending};
  slot.mtp_rows = {0};
  Slot* one = &slot;
  draft({&one, 1}, hidden_.cview());
}

// One MTP pass for all slots: feeds what mtp_tokens and mtp_rows say, and guesses the next token.
void Generator::draft(std::span<Slot*> slots, MatView<const float> hidden) {
  std::vector<model::Chunk> chunks;
  int rows = 0;
  for (const Slot* slot : slots) rows += static_cast<int>(slot->mtp_rows.size());
  picked_.resize(rows, hidden.cols);
  int row = 0;
  for (Slot* slot : slots) {
    chunks.push_back({slot->mtp_tokens, &slot->sequence->cache_});
    for (const int from : slot->mtp_rows) copy_row(hidden, from, picked_.view(), row++);
  }
  const MatView<const float> out = forward_.run_mtp(chunks, picked_.cview());
  // Of each slot only the last row guesses a token that is not known yet.
  row = 0;
  int last = 0;
  for (const Slot* slot : slots) {
    row += static_cast<int>(slot->mtp_rows.size());
    copy_row(out, row - 1, picked_.view(), last++);
  }
  logits_.resize(last, model_.config().vocab_size);
  forward_.mtp_logits(picked_.cview().sub_rows(0, last), logits_.view());
  for (int i = 0; i < last; ++i) {
    const std::span<const float> logits = logits_row(i);
    slots[static_cast<std::size_t>(i)]->draft =
        static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
}

// One pass: every slot reads its pending token and its draft, and gets one or two tokens.
void Generator::decode(std::span<Slot*> slots) {
  std::vector<std::vector<std::int32_t>> read;
  std::vector<Slot*> live;
  for (Slot* slot : slots) {
    const bool drafts = slot->drafts() && reserve(*slot->sequence, 2);
    if (!drafts && !reserve(*slot->sequence, 1)) {
      slot->end(Finish::kCacheFull);
      continue;
    }
    live.push_back(slot);
    read.push_back({slot->pending});
    if (drafts) read.back().push_back(slot->draft);
  }
  if (live.empty()) return;
  std::vector<model::Chunk> chunks;
  for (std::size_t i = 0; i < live.size(); ++i) {
    chunks.push_back({read[i], &live[i]->sequence->cache_});
  }
  const MatView<const float> rows = forward_.run(chunks);
  hidden_.resize(rows.rows, rows.cols);
  for (int i = 0; i < rows.rows; ++i) copy_row(rows, i, hidden_.view(), i);
  logits_.resize(rows.rows, model_.config().vocab_size);
  forward_.logits(hidden_.cview(), logits_.view());

  int row = 0;
  for (std::size_t i = 0; i < live.size(); ++i) {
    Slot& slot = *live[i];
    Sequence& s = *slot.sequence;
    MtpStats& mtp = slot.result.mtp;
    const bool drafted = read[i].size() == 2;
    ++mtp.passes;
    s.tokens_.push_back(slot.pending);
    slot.mtp_rows = {row};
    slot.take(slot.sampler.sample(logits_row(row), slot.position()));
    slot.mtp_tokens = {slot.pending};
    if (drafted) {
      ++mtp.drafted;
      const bool accepted = slot.pending == read[i][1];
      mtp.accepted += accepted ? 1 : 0;
      if (accepted && !slot.done) {
        s.tokens_.push_back(slot.pending);
        slot.take(slot.sampler.sample(logits_row(row + 1), slot.position()));
        slot.mtp_rows.push_back(row + 1);
        slot.mtp_tokens.push_back(slot.pending);
      }
    }
    s.cache_.truncate(slot.known());
    row += static_cast<int>(read[i].size());
  }
}

std::vector<Result> Generator::run(std::span<const Request> requests,
                                   std::span<Sequence*> sequences) {
  if (requests.size() != sequences.size()) {
    throw Error(Code::kInternal,
                cat(requests.size(), " requests on ", sequences.size(), " sequences"));
  }
  const Clock::time_point start = Clock::now();
  for (const Request& request : requests) check(request);
  std::vector<Slot> slots;
  slots.reserve(requests.size());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    slots.emplace_back(requests[i], *sequences[i], start);
  }
  for (Slot& slot : slots) prefill(slot);

  const Clock::time_point decoding = Clock::now();
  for (;;) {
    std::vector<Slot*> live;
    for (Slot& slot : slots) {
      if (!slot.done) live.push_back(&slot);
    }
    if (live.empty()) break;
    decode(live);
    for (Slot* slot : live) slot->result.timings.decode_seconds = seconds_since(decoding);
    std::erase_if(live, [](const Slot* slot) { return slot->done; });
    if (mtp_ && !live.empty()) draft(live, hidden_.cview());
  }

  std::vector<Result> results;
  for (Slot& slot : slots) {
    slot.result.timings.new_tokens = static_cast<int>(slot.result.tokens.size());
    results.push_back(std::move(slot.result));
  }
  return results;
}

std::vector<Result> Generator::run(std::span<const Request> requests) {
  std::vector<Sequence> owned;
  owned.reserve(requests.size());
  std::vector<Sequence*> sequences;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    sequences.push_back(&owned.emplace_back(pool_));
  }
  return run(requests, sequences);
}

Result Generator::run(const Request& request, Sequence& sequence) {
  Sequence* one = &sequence;
  return std::move(run({&request, 1}, {&one, 1}).front());
}

}  // namespace cachalot::infer
