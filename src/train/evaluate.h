// The loss on held-out tokens while a model is in training.
//
// A window of data.seq_len tokens slides by run.eval_stride (half a window unless the recipe says
// otherwise); the first is scored whole, each other one only where the one before did not reach. So
// every token but the file's first is predicted exactly once, and apart from the beginning from
// seq_len - stride tokens or more. These are the windows of infer/evaluate.h, which `cachalot eval`
// uses, for the same context.
//
// Of conversations each sample is read once, from its beginning, up to data.seq_len tokens; losses
// are of the answers' tokens, and bits per byte of the answers' text.
//
// Errors: those of reading the file.
#pragma once

#include "model/train_graph.h"
#include "train/recipe.h"
#include "train/run_data.h"
#include "train/trainer.h"

namespace cachalot::train {

// One window: rows [begin, end) are read, the tokens behind rows [scored, end) are predicted.
struct EvalWindow {
  std::int64_t begin = 0, end = 0, scored = 0;
};
// Over a file of `tokens` tokens; at most `most` windows.
std::vector<EvalWindow> eval_windows(std::int64_t tokens, std::int64_t seq_len, std::int64_t stride,
                                     std::int64_t most);

// `step` is for the report; at most `in_a_pass` windows are computed at a time, one at least.
EvalReport evaluate(model::TrainGraph& graph, model::Parameters& parameters, const Recipe& recipe,
                    const RunData& data, std::int64_t step, int in_a_pass);

}  // namespace cachalot::train
