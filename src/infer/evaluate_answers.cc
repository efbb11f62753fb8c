#include "infer/evaluate_answers.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "base/error.h"
#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"
#include "kernels/permute.h"
#include "tensor/host_copy.h"

namespace cachalot::infer {

namespace {

constexpr int kPassRows = 512;
constexpr int kPassSamples = 32;  // each has a page of the cache at least
constexpr int kLogitRows = 64;    // logits are made for so many rows at once
constexpr std::int32_t kNoGuess = -1;

// A sample that is being read.
struct Reading {
  std::span<const std::int32_t> tokens;
  std::span<const std::uint8_t> learnt;
  std::unique_ptr<model::LatentCache> cache;
  int read = 0;                   // rows
  std::int32_t guess = kNoGuess;  // of the MTP layer's last row, for what the next row predicts
  bool in_answer = false;
  bool all_correct = false;  // of the answer so far

  int rows() const noexcept { return static_cast<int>(tokens.size()) - 1; }
};

// So many rows of a sample in this pass, which are rows `first` and on of it.
struct Piece {
  Reading* sample = nullptr;
  int begin = 0, rows = 0, first = 0;

  bool scored(int i) const { return sample->learnt[static_cast<std::size_t>(begin + i) + 1] != 0; }
  // Row i of the MTP layer guesses the token after next.
  bool guessed(int i) const { return begin + i + 1 < sample->rows() && scored(i + 1); }
};

class AnswersEvaluator {
 public:
  AnswersEvaluator(const Context& ctx, const model::Model& model, int longest,
                   const AnswersOptions& options)
      : ctx_(ctx),
        model_(model),
        pool_(model.config(), format(model, options),
              cache_bytes(model.config(), format(model, options), longest), ctx.device),
        forward_(ctx, model, options.attention),
        mtp_(options.mtp && model.has_mtp()) {}

  std::unique_ptr<model::LatentCache> cache() {
    return std::make_unique<model::LatentCache>(pool_);
  }

  void pass(std::span<const Piece> pieces, AnswersEvaluation& sum) {
    const MemoryScope scope(ctx_.device);
    std::vector<model::Chunk> chunks, next;
    for (const Piece& p : pieces) {
      const auto begin = static_cast<std::size_t>(p.begin);
      const auto rows = static_cast<std::size_t>(p.rows);
      chunks.push_back({p.sample->tokens.subspan(begin, rows), p.sample->cache.get()});
      next.push_back({p.sample->tokens.subspan(begin + 1, rows), p.sample->cache.get()});
    }
    const MatView<const float> out = forward_.run(chunks);
    score_rows(pieces, out);
    if (mtp_) {
      hidden_.resize(out.rows, out.cols);
      copy_rows(ctx_, out, hidden_.view());
      guess_rows(pieces, forward_.run_mtp(next, hidden_.cview()));
    }
    count(pieces, sum);
  }

 private:
  static LatentFormat format(const model::Model& model, const AnswersOptions& options) {
    return options.cache.value_or(model::default_cache_format(model.precision()));
  }

  // One sample is read on from the pass before, the others begin in this one; each may leave a page
  // unfilled.
  static std::size_t cache_bytes(const model::Config& config, LatentFormat format, int longest) {
    using model::CachePool;
    return CachePool::bytes_for(config, format, longest) +
           CachePool::bytes_for(config, format, kPassRows) +
           CachePool::bytes_for(config, format, 1, kPassSamples + 1);
  }

  // rows_: those of the pass that `wanted` says.
  template <class Wanted>
  void list_rows(std::span<const Piece> pieces, const Wanted& wanted) {
    rows_.clear();
    targets_.clear();
    for (const Piece& p : pieces) {
      for (int i = 0; i < p.rows; ++i) {
        if (!wanted(p, i)) continue;
        rows_.push_back(p.first + i);
        targets_.push_back(p.sample->tokens[static_cast<std::size_t>(p.begin + i) + 1]);
      }
    }
  }

  // Loss and first choice of each listed row, whose logits `make` makes of gathered rows.
  template <class Make>
  void choose(MatView<const float> from, const Make& make, std::vector<double>* loss,
              std::vector<std::int32_t>& best) {
    best.resize(rows_.size());
    if (loss != nullptr) loss->resize(rows_.size());
    for (std::size_t at = 0; at < rows_.size(); at += kLogitRows) {
      const std::size_t n = std::min<std::size_t>(kLogitRows, rows_.size() - at);
      const auto rows = static_cast<int>(n);
      for (Mat<std::int32_t>* m : {&op_rows_, &op_targets_, &op_best_}) m->resize(1, rows);
      op_loss_.resize(1, rows);
      gathered_.resize(rows, from.cols);
      logits_.resize(rows, model_.config().vocab_size);
      upload<std::int32_t>(std::span(rows_).subspan(at, n), op_rows_);
      upload<std::int32_t>(std::span(targets_).subspan(at, n), op_targets_);
      gather_rows(ctx_, {from, op_rows_.span(), gathered_.view()});
      make(gathered_.cview(), logits_.view());
      cross_entropy(ctx_, {logits_.view(), op_targets_.span(), op_loss_.span(), op_best_.span()});
      download<std::int32_t>(op_best_, std::span(best).subspan(at, n));
      if (loss != nullptr) download<double>(op_loss_, std::span(*loss).subspan(at, n));
    }
  }

  void score_rows(std::span<const Piece> pieces, MatView<const float> out) {
    list_rows(pieces, [](const Piece& p, int i) { return p.scored(i); });
    choose(
        out, [&](MatView<const float> x, MatView<float> y) { forward_.logits(x, y); }, &loss_,
        best_);
    main_targets_ = targets_;
  }

  void guess_rows(std::span<const Piece> pieces, MatView<const float> out) {
    list_rows(pieces, [](const Piece& p, int i) { return p.guessed(i); });
    choose(
        out, [&](MatView<const float> x, MatView<float> y) { forward_.mtp_logits(x, y); }, nullptr,
        guesses_);
  }

  void count(std::span<const Piece> pieces, AnswersEvaluation& sum) {
    std::size_t row = 0, guess = 0;
    for (const Piece& p : pieces) {
      Reading& s = *p.sample;
      for (int i = 0; i < p.rows; ++i) {
        if (p.scored(i)) {
          count_token(s, row, sum);
          ++row;
        } else if (s.in_answer) {
          end_answer(s, sum);
        }
        s.guess = mtp_ && p.guessed(i) ? guesses_[guess++] : kNoGuess;
      }
      s.read += p.rows;
      if (s.read == s.rows() && s.in_answer) end_answer(s, sum);
    }
  }

  void count_token(Reading& s, std::size_t row, AnswersEvaluation& sum) const {
    if (!std::isfinite(loss_[row])) {
      throw Error(Code::kNumeric,
                  cat("a token of sample ", sum.samples, " or before has no finite loss: the ",
                      "weights hold a NaN or an infinity, or the precision cannot hold what they ",
                      "make; try --precision f32"));
    }
    const bool correct = best_[row] == main_targets_[row];
    if (!s.in_answer) s.all_correct = true;
    s.in_answer = true;
    s.all_correct = s.all_correct && correct;
    sum.tokens += 1;
    sum.correct += correct ? 1 : 0;
    sum.nats += loss_[row];
    if (s.guess == kNoGuess) return;
    sum.drafts += 1;
    sum.accepted += s.guess == best_[row] ? 1 : 0;
  }

  static void end_answer(Reading& s, AnswersEvaluation& sum) {
    sum.answers += 1;
    sum.whole += s.all_correct ? 1 : 0;
    s.in_answer = false;
  }

  const Context& ctx_;
  const model::Model& model_;
  model::CachePool pool_;
  model::Forward forward_;
  bool mtp_ = false;
  Mat<float> hidden_, gathered_, logits_;  // these and what the ops read: where the model runs
  Mat<std::int32_t> op_rows_, op_targets_, op_best_;
  Mat<double> op_loss_;
  std::vector<std::int32_t> rows_, targets_, main_targets_, best_, guesses_;
  std::vector<double> loss_;
};

void check_tokens(const text::SampleTokens& samples, const model::Config& config, int context) {
  if (context < 2) {
    throw Error(Code::kUsage, cat("context is ", context, ", but it must be at least 2"));
  }
  if (samples.lengths.empty()) throw Error(Code::kUsage, "there is no sample to score");
  for (const std::int32_t id : samples.tokens) {
    if (id >= 0 && id < config.vocab_size) continue;
    throw Error(Code::kUsage,
                cat("a sample has token ", id, ", but the model's vocabulary has ids 0 to ",
                    config.vocab_size - 1, ": the tokenizer does not belong to this model"));
  }
}

}  // namespace

AnswersEvaluation evaluate_answers(const Context& ctx, const model::Model& model,
                                   const text::SampleTokens& samples,
                                   const AnswersOptions& options) {
  check_tokens(samples, model.config(), options.context);
  const auto context =
      static_cast<std::size_t>(std::min(options.context, model.config().max_position_embeddings));
  const auto longest =
      static_cast<std::size_t>(*std::max_element(samples.lengths.begin(), samples.lengths.end()));
  AnswersEvaluator evaluator(ctx, model, static_cast<int>(std::min(longest, context)), options);
  AnswersEvaluation sum;
  const auto total = static_cast<std::int64_t>(samples.tokens.size());
  std::vector<std::unique_ptr<Reading>> open;
  std::vector<Piece> pieces;
  std::size_t next = 0, at = 0;  // the next sample, and its first token
  while (next < samples.lengths.size() || !open.empty()) {
    pieces.clear();
    int rows = 0;
    const auto take = [&](Reading& s) {
      const int n = std::min(s.rows() - s.read, kPassRows - rows);
      pieces.push_back({&s, s.read, n, rows});
      rows += n;
    };
    for (const auto& s : open) take(*s);  // one at most: the last of the pass before
    while (rows < kPassRows && next < samples.lengths.size() && pieces.size() < kPassSamples) {
      const auto length = static_cast<std::size_t>(samples.lengths[next++]);
      const std::size_t kept = std::min(length, context);
      auto s = std::make_unique<Reading>();
      s->tokens = std::span(samples.tokens).subspan(at, kept);
      s->learnt = std::span(samples.learnt).subspan(at, kept);
      s->cache = evaluator.cache();
      at += length;
      sum.samples += 1;
      sum.cut += kept < length ? 1 : 0;
      if (s->rows() < 1) continue;
      open.push_back(std::move(s));
      take(*open.back());
    }
    if (!pieces.empty()) evaluator.pass(pieces, sum);
    std::erase_if(open, [](const auto& s) { return s->read == s->rows(); });
    if (options.progress) options.progress(static_cast<std::int64_t>(at), total);
  }
  return sum;
}

}  // namespace cachalot::infer
