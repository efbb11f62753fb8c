#include "infer/evaluate.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"
#include "tensor/host_copy.h"

namespace cachalot::infer {

namespace {

constexpr int kLogitRows = 64;      // logits are made for so many rows at once
constexpr int kPrefillChunk = 512;  // tokens per pass

LatentFormat cache_format(const model::Model& model, const EvaluateOptions& options) {
  return options.cache.value_or(model::default_cache_format(model.precision()));
}

int window_tokens(const model::Model& model, std::span<const std::int32_t> tokens,
                  const EvaluateOptions& options) {
  const int context = std::min(options.context, model.config().max_position_embeddings);
  return static_cast<int>(std::min<std::size_t>(tokens.size(), static_cast<std::size_t>(context)));
}

class Evaluator {
 public:
  Evaluator(const Context& ctx, const model::Model& model, std::span<const std::int32_t> tokens,
            const EvaluateOptions& options)
      : ctx_(ctx),
        model_(model),
        tokens_(tokens),
        pool_(model.config(), cache_format(model, options),
              model::CachePool::bytes_for(model.config(), cache_format(model, options),
                                          window_tokens(model, tokens, options)),
              ctx.device),
        forward_(ctx, model, options.attention) {
    mtp_ = options.mtp && model.has_mtp();
    if (!options.on_routing) return;
    const auto hear = [this, &options](int, MatView<const std::int32_t> chosen) {
      const int fresh = chosen.rows - known_;
      if (fresh > 0) options.on_routing(chosen.sub_rows(known_, fresh));
    };
    forward_.tap_routing({hear, options.routing_layer});
  }

  // Rows [begin, end) predict tokens [begin + 1, end + 1); those from `scored` on count.
  void window(std::int64_t begin, std::int64_t end, std::int64_t scored, Evaluation& sum) {
    const int rows = static_cast<int>(end - begin);
    const int first = static_cast<int>(scored - begin);
    const MemoryScope scope(ctx_.device);
    hidden_.resize(rows, model_.config().hidden_size);
    mtp_hidden_.resize(mtp_ ? rows : 0, model_.config().hidden_size);
    model::LatentCache cache(pool_);
    for (int at = 0; at < rows;) {
      const int n = std::min(kPrefillChunk, rows - at);
      const model::Chunk chunk{
          tokens_.subspan(static_cast<std::size_t>(begin + at), static_cast<std::size_t>(n)),
          &cache};
      known_ = std::max(first - at, 0);
      const MatView<const float> out = forward_.run({&chunk, 1});
      copy_rows(ctx_, out, hidden_.view().sub_rows(at, n));
      if (mtp_) {
        const model::Chunk next{
            tokens_.subspan(static_cast<std::size_t>(begin + at) + 1, static_cast<std::size_t>(n)),
            &cache};
        copy_rows(ctx_, forward_.run_mtp({&next, 1}, hidden_.cview().sub_rows(at, n)),
                  mtp_hidden_.view().sub_rows(at, n));
      }
      at += n;
    }
    for (int at = first; at < rows; at += kLogitRows) {
      score(begin, at, std::min(kLogitRows, rows - at), sum);
    }
  }

 private:
  void score(std::int64_t begin, int at, int n, Evaluation& sum) {
    const auto rows = static_cast<std::size_t>(n);
    logits_.resize(n, model_.config().vocab_size);
    forward_.logits(hidden_.cview().sub_rows(at, n), logits_.view());
    for (Mat<std::int32_t>* m : {&op_targets_, &op_best_}) m->resize(1, n);
    op_loss_.resize(1, n);
    upload(tokens_.subspan(static_cast<std::size_t>(begin + at) + 1, rows), op_targets_);
    cross_entropy(ctx_, {logits_.view(), op_targets_.span(), op_loss_.span(), op_best_.span()});
    loss_.resize(rows);
    best_.resize(rows);
    download<double>(op_loss_, loss_);
    download<std::int32_t>(op_best_, best_);
    for (std::size_t i = 0; i < rows; ++i) {
      if (!std::isfinite(loss_[i])) {
        throw Error(Code::kNumeric,
                    cat("token ", begin + at + static_cast<std::int64_t>(i) + 1,
                        " has no finite loss: the weights hold a NaN or an infinity, or the "
                        "precision cannot hold what they make; try --precision f32"));
      }
      sum.nats += loss_[i];
    }
    sum.tokens += n;
    if (!mtp_) return;
    // MTP row i guesses what main row i + 1 guesses; the first row of a window has no row before.
    const int skip = at == 0 ? 1 : 0;
    if (n - skip <= 0) return;
    const int m = n - skip;
    logits_.resize(m, model_.config().vocab_size);
    forward_.mtp_logits(mtp_hidden_.cview().sub_rows(at + skip - 1, m), logits_.view());
    const Mat<float> copy =
        ctx_.device != nullptr ? host_copy(logits_.cview(), ctx_.device) : Mat<float>();
    const Mat<float>& logits = ctx_.device != nullptr ? copy : logits_;
    for (int i = 0; i < m; ++i) {
      const float* row = logits.row(i);
      const auto guess = std::max_element(row, row + logits.cols()) - row;
      if (guess == best_[static_cast<std::size_t>(i + skip)]) ++sum.accepted;
    }
    sum.drafts += m;
  }

  const Context& ctx_;
  const model::Model& model_;
  std::span<const std::int32_t> tokens_;
  model::CachePool pool_;
  model::Forward forward_;
  bool mtp_ = false;
  int known_ = 0;                            // rows of a pass that the window before has read
  Mat<float> hidden_, mtp_hidden_, logits_;  // these and what the ops read: where the model runs
  Mat<std::int32_t> op_targets_, op_best_;
  Mat<double> op_loss_;
  std::vector<double> loss_;
  std::vector<std::int32_t> best_;
};

}  // namespace

Evaluation evaluate(const Context& ctx, const model::Model& model,
                    std::span<const std::int32_t> tokens, const EvaluateOptions& options) {
  if (tokens.size() < 2) {
    throw Error(Code::kUsage, cat("the text has ", tokens.size(),
                                  " token(s), but at least two are needed: one to predict from and "
                                  "one to predict"));
  }
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= model.config().vocab_size) {
      throw Error(Code::kUsage,
                  cat("token ", i, " of the text is ", tokens[i],
                      ", but the model's vocabulary has ids 0 to ", model.config().vocab_size - 1,
                      ": the tokenizer does not belong to this model"));
    }
  }
  if (options.context < 2) {
    throw Error(Code::kUsage, cat("context is ", options.context, ", but it must be at least 2"));
  }
  const std::int64_t rows = static_cast<std::int64_t>(tokens.size()) - 1;
  Evaluation sum;
  sum.context = std::min(options.context, model.config().max_position_embeddings);
  const std::int64_t stride = sum.context - sum.context / 2;
  Evaluator evaluator(ctx, model, tokens, options);
  for (std::int64_t begin = 0, scored = 0; scored < rows; begin += stride) {
    const std::int64_t end = std::min<std::int64_t>(rows, begin + sum.context);
    evaluator.window(begin, end, scored, sum);
    scored = end;
    if (options.progress) options.progress(scored, rows);
  }
  return sum;
}

}  // namespace cachalot::infer
