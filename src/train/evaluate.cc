#include "train/evaluate.h"

#include <algorithm>
#include <numbers>

#include "text/packed_samples.h"
#include "text/token_file.h"
#include "train/schedule.h"

namespace cachalot::train {

namespace {

// Sums over all windows so far.
struct Sums {
  double main = 0, mtp = 0;
  std::int64_t main_rows = 0, mtp_rows = 0, accepted = 0, correct = 0;

  void add(const model::Losses& l) {
    main += l.main * static_cast<double>(l.main_rows);
    mtp += l.mtp * static_cast<double>(l.mtp_rows);
    main_rows += l.main_rows;
    mtp_rows += l.mtp_rows;
    accepted += l.mtp_accepted;
    correct += l.main_correct;
  }
};

bool same_form(const EvalWindow& a, const EvalWindow& b) {
  return a.end - a.begin == b.end - b.begin && a.scored - a.begin == b.scored - b.begin;
}

// At most so many windows of a validation.
std::int64_t most_windows(const Recipe& recipe) {
  const int batch = std::max(1, micro_batch_size(recipe, recipe.schedule.steps - 1));
  return std::int64_t{recipe.run.eval_batches} * batch;
}

// `tokens` stand for `bytes` of text.
EvalReport report(const Sums& sums, std::int64_t step, std::uint64_t tokens, std::uint64_t bytes) {
  EvalReport e;
  e.step = step;
  e.tokens = sums.main_rows;
  const auto scored = static_cast<double>(std::max<std::int64_t>(1, e.tokens));
  e.loss = sums.main / scored;
  e.first_choice = static_cast<double>(sums.correct) / scored;
  if (sums.mtp_rows > 0) {
    e.mtp_loss = sums.mtp / static_cast<double>(sums.mtp_rows);
    e.mtp_acceptance = static_cast<double>(sums.accepted) / static_cast<double>(sums.mtp_rows);
  }
  if (bytes > 0) {
    e.bits_per_byte =
        e.loss / std::numbers::ln2 * static_cast<double>(tokens) / static_cast<double>(bytes);
  }
  return e;
}

EvalReport evaluate_conversations(model::TrainGraph& graph, model::Parameters& parameters,
                                  const Recipe& recipe, const RunData& data, std::int64_t step,
                                  int in_a_pass) {
  const text::PackedSamples samples(data.validation, data.validation_samples,
                                    {.seq_len = recipe.data.seq_len, .shuffle = false});
  const std::int64_t windows = std::min(samples.windows(), most_windows(recipe));
  Sums sums;
  text::SampleTokens read;
  model::LossOptions options;
  options.balance_alpha = static_cast<float>(recipe.loss.balance_alpha);
  for (std::int64_t at = 0; at < windows; at += in_a_pass) {
    read.clear();
    for (std::int64_t w = at; w < std::min(windows, at + in_a_pass); ++w) samples.append(w, read);
    sums.add(graph.evaluate(parameters, {read.tokens, read.lengths, read.learnt}, options));
  }
  const text::SampleTable& table = samples.table();
  return report(sums, step, table.learnt_tokens(), table.learnt_bytes());
}

}  // namespace

std::vector<EvalWindow> eval_windows(std::int64_t tokens, std::int64_t seq_len, std::int64_t stride,
                                     std::int64_t most) {
  const std::int64_t rows = tokens - 1;  // the last token is only predicted
  std::vector<EvalWindow> windows;
  std::int64_t scored = 0;
  for (std::int64_t begin = 0; scored < rows && std::ssize(windows) < most; begin += stride) {
    const std::int64_t end = std::min(rows, begin + seq_len);
    windows.push_back({begin, end, scored});
    scored = end;
  }
  return windows;
}

EvalReport evaluate(model::TrainGraph& graph, model::Parameters& parameters, const Recipe& recipe,
                    const RunData& data, std::int64_t step, int in_a_pass) {
  if (!data.validation_samples.empty()) {
    return evaluate_conversations(graph, parameters, recipe, data, step, in_a_pass);
  }
  const text::TokenFile file(data.validation);
  const std::int64_t seq_len = recipe.data.seq_len;
  const std::int64_t stride =
      recipe.run.eval_stride > 0 ? recipe.run.eval_stride : seq_len - seq_len / 2;
  const auto windows = eval_windows(static_cast<std::int64_t>(file.info().tokens), seq_len, stride,
                                    most_windows(recipe));
  Sums sums;
  Mat<std::int32_t> tokens;
  for (std::size_t at = 0; at < windows.size();) {
    const EvalWindow& first = windows[at];
    int n = 1;
    while (n < in_a_pass && at + n < windows.size() && same_form(first, windows[at + n])) ++n;
    const auto length = static_cast<int>(first.end - first.begin) + 1;
    tokens.resize(n, length);
    for (int i = 0; i < n; ++i) {
      file.read(static_cast<std::uint64_t>(windows[at + i].begin),
                {tokens.row(i), static_cast<std::size_t>(length)});
    }
    model::LossOptions options;
    options.balance_alpha = static_cast<float>(recipe.loss.balance_alpha);
    options.score_from = static_cast<int>(first.scored - first.begin);
    sums.add(graph.evaluate(parameters, tokens.cview(), options));
    at += static_cast<std::size_t>(n);
  }
  const auto& info = file.info();
  return report(sums, step, info.tokens, info.text_bytes);
}

}  // namespace cachalot::train
