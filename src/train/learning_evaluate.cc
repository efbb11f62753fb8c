#include "train/learning_evaluate.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "base/error.h"
#include "io/safetensors.h"
#include "model/optimizer.h"
#include "model/parameters.h"
#include "model/train_graph.h"
#include "model/weights.h"
#include "train/evaluate.h"

namespace cachalot::train {

namespace {

void check(const model::Config& config, std::span<const std::int32_t> tokens,
           const LearningOptions& o) {
  if (tokens.size() < 2) {
    throw Error(Code::kUsage, cat("the text has ", tokens.size(),
                                  " token(s), but at least two are needed: one to predict from and "
                                  "one to predict"));
  }
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= 0 && tokens[i] < config.vocab_size) continue;
    throw Error(Code::kUsage,
                cat("token ", i, " of the text is ", tokens[i],
                    ", but the model's vocabulary has ids 0 to ", config.vocab_size - 1,
                    ": the tokenizer does not belong to this model"));
  }
  if (o.context < 2 || o.context > config.max_position_embeddings) {
    throw Error(Code::kUsage,
                cat("the context is ", o.context, " tokens, but 2 to ",
                    config.max_position_embeddings, " are needed (the model's own context)"));
  }
  if (o.piece < 1 || o.piece > o.context) {
    throw Error(Code::kUsage, cat("a piece is ", o.piece, " tokens, but 1 to ", o.context,
                                  " are needed (the context)"));
  }
}

}  // namespace

LearningEvaluation evaluate_learning(const Context& ctx, const std::filesystem::path& folder,
                                     const nn::Numerics& numerics,
                                     std::span<const std::int32_t> tokens,
                                     const LearningOptions& options) {
  model::Config config = model::load_config(folder);
  check(config, tokens, options);
  const auto file = io::Safetensors::open(folder);
  model::drop_absent_mtp(config, file);
  model::Parameters parameters(config, ctx.device);
  parameters.load(file);
  model::TrainGraph graph(ctx, config, numerics);
  model::Optimizer optimizer(parameters);
  model::OptimizerStep step;
  step.adamw = {options.lr, options.beta1, options.beta2, 1e-8, 0};
  step.clip_norm = options.clip_norm;
  step.bias_gamma = 0;  // a window of one text says nothing of the load to come

  model::LossOptions loss;
  loss.mtp_lambda = options.mtp_lambda;
  loss.balance_alpha = 0;
  loss.fresh_gradients = true;
  const auto rows = static_cast<std::int64_t>(tokens.size()) - 1;
  LearningEvaluation sum;
  Mat<std::int32_t> window;
  for (const EvalWindow& w : eval_windows(rows + 1, options.context, options.piece,
                                          std::numeric_limits<std::int64_t>::max())) {
    const auto length = static_cast<int>(w.end - w.begin) + 1;
    window.resize(1, length);
    std::copy_n(tokens.data() + w.begin, length, window.row(0));
    loss.score_from = static_cast<int>(w.scored - w.begin);
    // The losses are those of the weights before the step, so one pass predicts and learns.
    const bool learns = w.end < rows && options.lr > 0;  // else nothing is left that it could help
    const model::Losses& read = learns ? graph.forward_backward(parameters, window.cview(), loss)
                                       : graph.evaluate(parameters, window.cview(), loss);
    sum.nats += read.main * static_cast<double>(read.main_rows);
    sum.tokens += read.main_rows;
    if (options.progress) options.progress(w.end, rows, sum.nats);
    if (!learns) continue;
    const auto report = optimizer.step(ctx, parameters, read.expert_load, step);
    if (report.skipped) {
      throw Error(Code::kNumeric, cat("the gradient at token ", w.end,
                                      " is not finite; learn with a smaller rate"));
    }
    ++sum.steps;
  }
  return sum;
}

}  // namespace cachalot::train
