#include "train/evaluate.h"

#include <algorithm>
#include <numbers>

#include "text/token_file.h"
#include "train/schedule.h"

namespace cachalot::train {

namespace {

// Sums over all windows so far.
struct Sums {
  double main = 0, mtp = 0;
  std::int64_t main_rows = 0, mtp_rows = 0, accepted = 0;

  void add(const model::Losses& l) {
    main += l.main * static_cast<double>(l.main_rows);
    mtp += l.mtp * static_cast<double>(l.mtp_rows);
    main_rows += l.main_rows;
    mtp_rows += l.mtp_rows;
    accepted += l.mtp_accepted;
  }
};

bool same_form(const EvalWindow& a, const EvalWindow& b) {
  return a.end - a.begin == b.end - b.begin && a.scored - a.begin == b.scored - b.begin;
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
                    const std::filesystem::path& token_file, std::int64_t step, int in_a_pass) {
  const text::TokenFile file(token_file);
  const std::int64_t seq_len = recipe.data.seq_len;
  const std::int64_t stride =
      recipe.run.eval_stride > 0 ? recipe.run.eval_stride : seq_len - seq_len / 2;
  const int batch = std::max(1, micro_batch_size(recipe, recipe.schedule.steps - 1));
  const auto windows = eval_windows(static_cast<std::int64_t>(file.info().tokens), seq_len, stride,
                                    std::int64_t{recipe.run.eval_batches} * batch);
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
  EvalReport e;
  e.step = step;
  e.tokens = sums.main_rows;
  e.loss = sums.main / static_cast<double>(std::max<std::int64_t>(1, e.tokens));
  if (sums.mtp_rows > 0) {
    e.mtp_loss = sums.mtp / static_cast<double>(sums.mtp_rows);
    e.mtp_acceptance = static_cast<double>(sums.accepted) / static_cast<double>(sums.mtp_rows);
  }
  const auto& info = file.info();
  if (info.text_bytes > 0) {
    e.bits_per_byte = e.loss / std::numbers::ln2 * static_cast<double>(info.tokens) /
                      static_cast<double>(info.text_bytes);
  }
  return e;
}

}  // namespace cachalot::train
