// Engine: what a pass reads, what comes out of it, and the drafts for the next one.
#include <algorithm>

#include "base/error.h"
#include "infer/engine.h"
#include "kernels/elementwise.h"
#include "kernels/permute.h"

namespace cachalot::infer {

namespace {

constexpr int kLeastPromptRows = 16;  // of a pass that others wait for
constexpr int kLogitsRows = 64;       // at once: a row has the whole vocabulary
constexpr int kMostLag = 512;         // rows that wait for the MTP layer

}  // namespace

// Rows of `from`, in this order; `to` is other memory.
void Engine::pick(MatView<const float> from, std::span<const std::int32_t> rows, Mat<float>& to) {
  const MemoryScope scope(ctx_.device);
  const auto n = static_cast<int>(rows.size());
  to.resize(n, from.cols);
  if (n == 0) return;
  if (rows.back() - rows.front() == n - 1) {  // they ascend
    copy_rows(ctx_, from.sub_rows(rows.front(), n), to.view());
    return;
  }
  picked_index_.resize(1, n);
  upload<std::int32_t>(rows, picked_index_);
  gather_rows(ctx_, {from, picked_index_.span(), to.view()});
}

// Where the model writes logits, and how they come to the host.
MatView<float> Engine::logits_room(int rows) {
  const MemoryScope scope(ctx_.device);
  Mat<float>& room = ctx_.device != nullptr ? device_logits_ : logits_;
  room.resize(rows, model_.config().vocab_size);
  return room.view();
}
void Engine::fetch_logits() {
  if (ctx_.device == nullptr) return;
  logits_.resize(device_logits_.rows(), device_logits_.cols());
  download<float>(device_logits_, logits_.span());
}

std::span<const float> Engine::logits_row(int row) const {
  return {logits_.row(row), static_cast<std::size_t>(logits_.cols())};
}

// Prompt tokens of a pass: many, unless texts that generate wait for it.
int Engine::prompt_rows(int generating) const {
  if (generating == 0) return config_.prefill_chunk;
  if (seconds_per_prompt_row_ <= 0) return std::min(config_.prefill_chunk, kMostLag / 8);
  const double rows = config_.max_gap_seconds / seconds_per_prompt_row_;
  return static_cast<int>(std::clamp<double>(
      rows, std::min(kLeastPromptRows, config_.prefill_chunk), config_.prefill_chunk));
}

// Seniors first. Every text with one unread token takes part; those with more share the prompt
// rows evenly, and what a short one leaves goes to the others. But the most senior of them reads on
// in any case: where there are more texts than rows an even share is none, and who gets it next
// time depends on who comes.
std::vector<Engine::Slice> Engine::plan() {
  std::sort(running_.begin(), running_.end(),
            [](const StreamPtr& a, const StreamPtr& b) { return a->is_senior_to(*b); });
  std::vector<Slice> slices;
  std::vector<std::size_t> reading;
  int generating = 0;
  for (const StreamPtr& s : running_) {
    if (s->unread() == 1) {
      ++generating;
      const int most = s->drafts_are_certain ? CertainLimit::kMost : kMaxDrafts;
      slices.push_back(
          {s, 1, std::min(s->useful_drafts(most), static_cast<int>(s->drafts.size()))});
    } else {
      reading.push_back(slices.size());
      slices.push_back({s, s->unread(), 0});
    }
  }
  int left = prompt_rows(generating);
  if (!reading.empty()) {
    Slice& senior = slices[reading.front()];
    const int even = left / static_cast<int>(reading.size());
    senior.tokens = std::min({senior.tokens, left, std::max(even, kLeastPromptRows)});
    left -= senior.tokens;
    reading.erase(reading.begin());
  }
  std::stable_sort(reading.begin(), reading.end(), [&](std::size_t a, std::size_t b) {
    return slices[a].tokens < slices[b].tokens;
  });
  for (std::size_t i = 0; i < reading.size(); ++i) {
    const int share = left / static_cast<int>(reading.size() - i);
    Slice& slice = slices[reading[i]];
    slice.tokens = std::min(slice.tokens, share);
    left -= slice.tokens;
  }
  std::erase_if(slices, [](const Slice& s) { return s.tokens == 0; });
  return slices;
}

// Those that have pages for what they read, after others gave way where they had to.
std::vector<Engine::Slice> Engine::with_pages(std::vector<Slice> slices) {
  for (Slice& slice : slices) {
    if (!slice.stream->running) continue;  // gave way to a senior
    // A draft is not worth another text's pages.
    if (slice.drafts > 0 && !slice.stream->read.reserve(slice.rows(), mtp_)) slice.drafts = 0;
    reserve(*slice.stream, slice.rows());
  }
  std::erase_if(slices, [](const Slice& s) { return !s.stream->running || s.stream->done(); });
  return slices;
}

void Engine::pass(std::span<const Slice> slices) {
  const Clock::time_point begin = Clock::now();
  pass_ = stats_.passes;
  std::vector<std::vector<std::int32_t>> read;
  std::vector<model::Chunk> chunks;
  read.reserve(slices.size());
  int rows = 0, prompt_tokens = 0;
  for (const Slice& slice : slices) {
    ReadText& text = slice.stream->read;
    const auto first = text.tokens.begin() + text.length();
    std::vector<std::int32_t>& tokens = read.emplace_back(first, first + slice.tokens);
    const auto drafts = slice.stream->drafts.begin();
    tokens.insert(tokens.end(), drafts, drafts + slice.drafts);
    chunks.push_back({tokens, &text.cache});
    rows += slice.rows();
    prompt_tokens += slice.tokens > 1 ? slice.tokens : 0;
  }
  const MatView<const float> out = forward_.run(chunks);
  sample(slices, out);

  const double seconds = seconds_between(begin, Clock::now());
  ++stats_.passes;
  stats_.rows += rows;
  stats_.pass_seconds += seconds;
  stats_.longest_pass_seconds = std::max(stats_.longest_pass_seconds, seconds);
  if (prompt_tokens == 0) policy_.decode_pass(rows, seconds);
  if (prompt_tokens >= kLeastPromptRows) {
    const double each = seconds / rows;
    double& mean = seconds_per_prompt_row_;
    mean = mean > 0 ? mean + 0.3 * (each - mean) : each;
  }

  std::vector<StreamPtr> texts = std::move(forked_);
  forked_.clear();
  for (const Slice& slice : slices) texts.push_back(slice.stream);
  for (const StreamPtr& text : texts) {
    if (config_.draft_certain && !text->done() && text->unread() == 1) text->draft_certain();
  }
  if (mtp_) read_mtp(texts);
  for (const StreamPtr& text : texts) {
    if (text->done()) {
      finish(*text);
    } else if (text->unread() > 1 || text->choice().tokens.size() == 1 || text->fills_block()) {
      // Of a text that is being read, a prompt that has just been, or one that generates: its
      // tokens of this pass have been told, and the disk is written by a thread of the store.
      store_blocks(*text);
    }
  }
  stats_.draft_seconds += seconds_between(begin, Clock::now()) - seconds;
}

// Logits where a text was read to its end, and the tokens that follow from them.
void Engine::sample(std::span<const Slice> slices, MatView<const float> rows) {
  // Of `rows`, all that is needed first: another pass may follow before the last token is taken.
  std::vector<const Slice*> ready;
  std::vector<std::int32_t> wanted;
  int row = 0;
  for (const Slice& slice : slices) {
    Stream& s = *slice.stream;
    if (mtp_) s.read.lag.append(ctx_, rows.sub_rows(row, slice.rows()));
    row += slice.rows();
    if (s.read.length() - slice.drafts < s.size()) continue;  // more of it to read
    ready.push_back(&slice);
    for (int j = slice.drafts; j >= 0; --j) wanted.push_back(row - 1 - j);
  }
  pick(rows, wanted, last_rows_);
  int done = 0;
  for (auto next = ready.begin(); next != ready.end();) {
    auto end = next;
    int count = 0;
    while (end != ready.end() && (count == 0 || count + 1 + (*end)->drafts <= kLogitsRows)) {
      count += 1 + (*end++)->drafts;
    }
    forward_.logits(last_rows_.cview().sub_rows(done, count), logits_room(count));
    fetch_logits();
    done += count;
    for (int at = 0; next != end; ++next) {
      take_tokens(**next, at);
      at += 1 + (*next)->drafts;
    }
  }
}

static void count_drafts(MtpStats& mtp, int drafted, int right) {
  for (int j = 0; j < std::min(right + 1, drafted); ++j) {
    ++mtp.drafted_at[static_cast<std::size_t>(j)];
    mtp.accepted_at[static_cast<std::size_t>(j)] += j < right ? 1 : 0;
  }
  mtp.drafted += drafted;
  mtp.accepted += right;
}

void Engine::take_tokens(const Slice& slice, int first) {
  Stream& s = *slice.stream;
  if (s.done()) return;  // another choice of its request failed
  try {
    if (s.forks > 0) fork_choices(s, first);
    MtpStats& mtp = s.choice().mtp;
    if (!s.choice().tokens.empty()) ++mtp.passes;
    int right = 0;
    if (s.wanted() == 0) s.end(Finish::kLength);
    while (!s.done()) {
      const std::span<const float> logits = logits_row(first + right);
      const std::int32_t token = s.sample(logits);
      const auto at = static_cast<std::size_t>(right);
      const bool is_right = right < slice.drafts && token == s.drafts[at];
      right += is_right ? 1 : 0;
      if (!s.take(token, logits) || !is_right) break;
    }
    if (s.drafts_are_certain) {
      s.choice().certain.drafted += slice.drafts;
      s.choice().certain.accepted += right;
      s.certain_limit.observe(slice.drafts, right);
    } else {
      count_drafts(mtp, slice.drafts, right);
      policy_.observe(s.draft_state, slice.drafts, right);
    }
    // Rows of drafts that were wrong, and of the last token, which nobody has read.
    s.read.truncate(s.choice().tokens.empty() ? s.size() : s.size() - 1);
    s.drafts.clear();
    s.drafts_are_certain = false;
  } catch (...) {
    fail(s, std::current_exception());
  }
}

// The other choices of a request begin where its prompt ends, on the same pages.
void Engine::fork_choices(Stream& lead, int logits) {
  // Their MTP rows, too, but for the last, which differs with the token that follows.
  if (mtp_) catch_up(lead, lead.size() - 1);
  const int rows = lead.read.length();
  for (; lead.forks > 0; --lead.forks) {
    const int choice = lead.request().n - lead.forks;
    auto other = std::make_shared<Stream>(lead.shared_job(), choice, pool_, tokenizer_);
    other->read = lead.read.fork({rows, lead.read.cache.mtp_length()});
    other->stored_blocks = lead.stored_blocks;
    other->offered_blocks = lead.offered_blocks;
    other->running = true;
    running_.push_back(other);
    forked_.push_back(std::move(other));
  }
  for (const StreamPtr& other : forked_) {
    if (&other->job() != &lead.job()) continue;
    if (other->wanted() == 0) {
      other->end(Finish::kLength);
    } else {
      other->take(other->sample(logits_row(logits)), logits_row(logits));
    }
  }
}

// Rows of the MTP layer of the first `end` tokens, of one text.
void Engine::catch_up(Stream& s, int end) {
  ReadText& read = s.read;
  const int at = read.cache.mtp_length();
  const int rows = std::min(read.lag.rows(), end - at);
  if (rows <= 0 || !read.cache.reserve(at, read.length())) return;
  const auto tokens =
      std::span<const std::int32_t>(read.tokens)
          .subspan(static_cast<std::size_t>(at) + 1, static_cast<std::size_t>(rows));
  const model::Chunk chunk{tokens, &read.cache};
  forward_.run_mtp({&chunk, 1}, read.lag.view().sub_rows(0, rows));
  read.lag.drop_first(rows);
}

// Runs the MTP layer where a draft is wanted, and where too many rows wait for it.
void Engine::read_mtp(std::span<const StreamPtr> texts) {
  const auto generates = [](const Stream& s) { return !s.done() && s.unread() == 1; };
  const auto generating = static_cast<int>(
      std::count_if(texts.begin(), texts.end(), [&](const auto& s) { return generates(*s); }));
  std::vector<Drafting> drafting;
  std::vector<model::Chunk> chunks;
  int rows = 0, most = 0;
  for (const StreamPtr& each : texts) {
    Stream& s = *each;
    ReadText& read = s.read;
    const int at = read.cache.mtp_length();
    const int known = std::min(read.lag.rows(), s.size() - 1 - at);
    int drafts = generates(s) && s.drafts.empty()
                     ? std::min(policy_.choose(s.draft_state, generating), s.useful_drafts())
                     : 0;
    const bool for_store =
        config_.store != nullptr && (s.done() || s.choice().tokens.size() == 1 || s.fills_block());
    if (known <= 0 || (drafts == 0 && known < kMostLag && !for_store)) continue;
    // Drafts after the first leave rows of their own, for as long as it takes to make them.
    if (!read.cache.reserve(at, read.length() + std::max(0, drafts - 1))) {
      drafts = std::min(drafts, 1);
      if (!read.cache.reserve(at, read.length())) continue;
    }
    const std::span<const std::int32_t> tokens(read.tokens);
    chunks.push_back(
        {tokens.subspan(static_cast<std::size_t>(at) + 1, static_cast<std::size_t>(known)),
         &read.cache});
    rows += known;
    most = std::max(most, known);
    drafting.push_back({each, known, drafts});
  }
  if (rows == 0) return;
  const Clock::time_point begin = Clock::now();
  {
    const MemoryScope scope(ctx_.device);
    joined_.resize(rows, model_.config().hidden_size);
  }
  int row = 0;
  for (const Drafting& d : drafting) {
    const MatView<const float> lag = d.text->read.lag.view();
    copy_rows(ctx_, lag.sub_rows(0, d.rows), joined_.view().sub_rows(row, d.rows));
    d.text->read.lag.drop_first(d.rows);
    row += d.rows;
  }
  const MatView<const float> out = forward_.run_mtp(chunks, joined_.cview());
  // Of each text only its last row says what is not known yet.
  std::vector<std::int32_t> wanted;
  row = 0;
  for (const Drafting& d : drafting) {
    row += d.rows;
    if (d.drafts > 0) wanted.push_back(row - 1);
  }
  std::erase_if(drafting, [](const Drafting& d) { return d.drafts == 0; });
  if (drafting.empty()) return;
  const auto kept = static_cast<int>(wanted.size());
  pick(out, wanted, joined_);
  guess(drafting, joined_.cview(), 0);
  // A run that caught up on many rows says nothing of what a draft costs.
  if (most <= 1 + kMaxDrafts) policy_.first_draft(kept, seconds_between(begin, Clock::now()));
  draft_further(drafting);
}

// One more draft for each text, from its row of the MTP layer; the normed rows become picked_. A
// text for which the layer's logits are no numbers gets no more of them: that costs it time, and
// nobody else anything.
void Engine::guess(std::span<Drafting> drafting, MatView<const float> rows, int ahead) {
  {
    const MemoryScope scope(ctx_.device);
    picked_.resize(rows.rows, rows.cols);
  }
  forward_.mtp_logits(rows, logits_room(rows.rows), picked_.view());
  fetch_logits();
  for (int i = 0; i < rows.rows; ++i) {
    Drafting& d = drafting[static_cast<std::size_t>(i)];
    try {
      const std::optional<std::int32_t> token = d.text->guess(logits_row(i), ahead);
      if (token) {
        d.text->drafts.push_back(*token);
      } else {
        d.drafts = ahead;
      }
    } catch (const Error&) {
      d.drafts = ahead;
    }
  }
}

// Drafts after the first: the MTP layer reads its own guess, joined with its own last row in the
// place of the main model's. Its rows of these are forgotten; the true ones come when the main
// model has read the tokens.
void Engine::draft_further(std::span<Drafting> drafting) {
  std::vector<Drafting> more(drafting.begin(), drafting.end());
  for (int j = 1; j < kMaxDrafts; ++j) {
    std::int32_t row = 0;
    std::vector<std::int32_t> wanted;
    std::vector<model::Chunk> chunks;
    for (const Drafting& d : more) {
      if (d.drafts > j) wanted.push_back(row);
      ++row;
    }
    std::erase_if(more, [j](const Drafting& d) { return d.drafts <= j; });
    if (more.empty()) break;
    const Clock::time_point begin = Clock::now();
    for (const Drafting& d : more) {
      chunks.push_back(
          {std::span<const std::int32_t>(&d.text->drafts.back(), 1), &d.text->read.cache});
    }
    pick(picked_.cview(), wanted, joined_);
    const MatView<const float> out = forward_.run_mtp(chunks, joined_.cview());
    guess(more, out, j);
    policy_.further_draft(static_cast<int>(wanted.size()), seconds_between(begin, Clock::now()));
  }
  for (const Drafting& d : drafting) d.text->read.cache.set_mtp_length(d.text->size() - 1);
}

}  // namespace cachalot::infer
