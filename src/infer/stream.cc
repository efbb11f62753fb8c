#include "infer/stream.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "kernels/elementwise.h"

namespace cachalot::infer {

void LagRows::append(const Context& ctx, MatView<const float> rows) {
  const int end = begin_ + rows_;
  if (end + rows.rows > data_.rows()) {
    // To the front of memory of twice the size, or of the same where what counts has left room.
    const bool grows = 2 * (rows_ + rows.rows) > data_.rows() || rows_ > begin_;
    const MatView<const float> old = view();
    const MemoryScope scope(ctx.device);
    Mat<float> more;
    if (grows) more.resize(2 * (rows_ + rows.rows), rows.cols);
    Mat<float>& to = grows ? more : data_;
    if (rows_ > 0) copy_rows(ctx, old, to.view().sub_rows(0, rows_));
    if (grows) data_ = std::move(more);
    begin_ = 0;
  }
  copy_rows(ctx, rows, data_.view().sub_rows(begin_ + rows_, rows.rows));
  rows_ += rows.rows;
}

LagRows LagRows::first(int rows) const {
  LagRows part;
  if (rows == 0) return part;
  Device* device = data_.device();
  const MemoryScope scope(device);
  part.data_.resize(rows, data_.cols());
  part.rows_ = rows;
  const std::size_t bytes = part.data_.size() * sizeof(float);
  if (device != nullptr) {
    device->copy(part.data_.data(), view().data, bytes);
  } else {
    std::memcpy(part.data_.data(), view().data, bytes);
  }
  return part;
}

bool ReadText::reserve(int rows, bool mtp) {
  const int begin = mtp ? std::min(length(), cache.mtp_length()) : length();
  return cache.reserve(begin, length() + rows);
}

void ReadText::truncate(int length) {
  cache.truncate(length);
  lag.keep_first(std::min(lag.rows(), std::max(0, length - cache.mtp_length())));
}

ReadText::Shared ReadText::shared_with(std::span<const std::int32_t> wanted, bool mtp) const {
  const auto common = static_cast<int>(
      std::mismatch(tokens.begin(), tokens.end(), wanted.begin(), wanted.end()).first -
      tokens.begin());
  // The last wanted token is read in any case: its row gives the logits.
  const int most = static_cast<int>(wanted.size()) - 1;
  const int rows = std::min({common, most, length()});
  if (!mtp) return {rows, 0};
  const int mtp_rows = std::min({cache.mtp_length(), std::max(0, common - 1), rows});
  // Further rows need those of the MTP layer, or what it makes them from.
  if (mtp_rows == cache.mtp_length()) return {rows, mtp_rows};
  return {mtp_rows, mtp_rows};
}

ReadText ReadText::fork(const Shared& shared) const {
  ReadText copy(cache.fork(shared.rows));
  copy.cache.set_mtp_length(shared.mtp_rows);
  copy.tokens.assign(tokens.begin(), tokens.begin() + shared.rows);
  copy.lag = lag.first(std::min(lag.rows(), shared.rows - shared.mtp_rows));
  return copy;
}

Stream::Stream(std::shared_ptr<Job> job, int choice, model::CachePool& pool,
               const text::Tokenizer* tokenizer)
    : read(pool),
      job_(std::move(job)),
      choice_(choice),
      sampler_(job_->request.sampling, job_->request.stream + static_cast<std::uint64_t>(choice)) {
  read.tokens = request().prompt;
  sampler_.observe_prompt(request().prompt);
  if (tokenizer != nullptr) text_.emplace(*tokenizer, request().stop);
  if (request().constraint) matcher_.emplace(request().constraint);
}

int Stream::useful_drafts(int most) const noexcept {
  return std::max(0, std::min({most, wanted() - 1, read.cache.capacity() - size()}));
}

bool Stream::is_senior_to(const Stream& other) const noexcept {
  if (request().priority != other.request().priority) {
    return request().priority > other.request().priority;
  }
  if (job_->id != other.job_->id) return job_->id < other.job_->id;
  return choice_ < other.choice_;
}

bool Stream::ends_text(std::int32_t token) const noexcept {
  return std::find(request().eos.begin(), request().eos.end(), token) != request().eos.end();
}

std::int32_t Stream::sample(std::span<const float> logits, int ahead, grammar::Matcher* matcher) {
  const std::size_t place = choice().tokens.size() + static_cast<std::size_t>(ahead);
  if (matcher == nullptr) return sampler_.sample(logits, place);
  const std::shared_ptr<const grammar::TokenMask> tokens = matcher->allowed();
  return sampler_.sample(
      logits, place,
      {.tokens = tokens.get(), .ends = request().eos, .may_end = matcher->may_end()});
}

std::int32_t Stream::sample(std::span<const float> logits) {
  return sample(logits, 0, matcher_ ? &*matcher_ : nullptr);
}

std::optional<std::int32_t> Stream::guess(std::span<const float> logits, int ahead) {
  if (!matcher_) return sample(logits, ahead, nullptr);
  if (ahead == 0) ahead_ = matcher_;
  if (!ahead_) return std::nullopt;
  const std::int32_t token = sample(logits, ahead, &*ahead_);
  if (ends_text(token) || !ahead_->accept(token) || ahead_->must_end()) ahead_.reset();
  return token;
}

void Stream::draft_certain() {
  if (!matcher_ || !drafts.empty()) return;
  const int most = useful_drafts(certain_limit.most());
  drafts = matcher_->forced(static_cast<std::size_t>(most));
  drafts_are_certain = !drafts.empty();
}

bool Stream::take(std::int32_t token, std::span<const float> logits) {
  Job& job = *job_;
  Choice& c = choice();
  const Clock::time_point now = Clock::now();
  if (!job.first_token) job.first_token = now;
  if (!c.tokens.empty()) {
    job.result.timings.longest_gap_seconds =
        std::max(job.result.timings.longest_gap_seconds, seconds_between(last_, now));
  }
  last_ = job.last_token = now;
  c.tokens.push_back(token);
  sampler_.accept(token);
  read.tokens.push_back(token);

  NewToken event{choice_, token, {}, nullptr};
  if (request().logprobs >= 0) {
    c.logprobs.push_back(logprobs_of(logits, token, request().logprobs));
    event.logprobs = &c.logprobs.back();
  }
  std::string piece;
  if (text_) piece = text_->push(token);
  bool is_eos = ends_text(token);
  if (matcher_ && !is_eos) {
    // Only what may follow is ever sampled, so accept() holds.
    is_eos = matcher_->accept(token) && matcher_->must_end();
  }
  const bool stopped = text_ && text_->stopped();
  const bool full = size() > read.cache.capacity();
  const bool slides = full && request().context_end == ContextEnd::kSlide;
  const bool last = is_eos || stopped || wanted() == 0 || (full && !slides);
  if (text_ && last && !stopped) piece += text_->finish();
  c.text += piece;
  c.told = c.text.size();
  event.text = piece;
  const bool more = request().on_token ? request().on_token(event) : true;
  if (is_eos) {
    end(Finish::kEos);
  } else if (stopped || !more) {
    end(Finish::kStopped);
  } else if (wanted() == 0) {
    end(Finish::kLength);
  } else if (full && !slides) {
    end(Finish::kContext);
  } else if (slides) {
    slide();
    return false;
  }
  return !done_;
}

void Stream::slide() {
  Choice& c = choice();
  const auto forget = static_cast<std::ptrdiff_t>(read.tokens.size() / 2);
  read.tokens.erase(read.tokens.begin(), read.tokens.begin() + forget);
  read.truncate(0);
  stored_blocks = offered_blocks = 0;
  drafts.clear();
  drafts_are_certain = false;
  ++c.slides;
  c.forgotten += forget;
}

void Stream::end(Finish finish) {
  done_ = true;
  choice().finish = finish;
  if (text_) choice().text += text_->finish();  // held back for a stop string that did not come
}

}  // namespace cachalot::infer
