// How well a model predicts a text: the negative log likelihood of every token, in windows.
//
// A window of `context` tokens slides by half its length, and only its second half is scored (the
// first window is scored whole): apart from the beginning, every token is predicted from at least
// half a context.
//
// Threads: one caller.
// Errors:  kUsage (fewer than two tokens, a token past the vocabulary, a context out of range).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "model/forward.h"

namespace cachalot::infer {

struct EvaluateOptions {
  int context = 4096;  // cut to the model's and to the text
  bool mtp = true;     // where the model has the layer
  model::AttentionMode attention = model::AttentionMode::kAbsorbed;
  std::optional<LatentFormat> cache = {};  // none: what the model's precision asks for
  std::function<void(std::int64_t done, std::int64_t total)> progress = nullptr;
  // Where set: the experts that layer `routing_layer` (an MoE layer) chose for the text's tokens
  // but the last, each once and in order; chosen is [n, k].
  std::function<void(MatView<const std::int32_t> chosen)> on_routing = nullptr;
  int routing_layer = 0;
};

struct Evaluation {
  std::int64_t tokens = 0;  // scored: all but the first
  double nats = 0;          // their sum
  int context = 0;
  // Of the tokens, how often the MTP layer's best guess two positions earlier was the main model's
  // own best guess: the share of drafts a greedy decoder would accept on this text.
  std::int64_t drafts = 0;
  std::int64_t accepted = 0;
};

Evaluation evaluate(const Context& ctx, const model::Model& model,
                    std::span<const std::int32_t> tokens, const EvaluateOptions& options);

}  // namespace cachalot::infer
