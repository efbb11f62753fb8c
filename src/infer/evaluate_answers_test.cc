#include "infer/evaluate_answers.h"

#include <gtest/gtest.h>

#include "infer/engine_case_test.h"
#include "infer/evaluate.h"

namespace cachalot::infer {
namespace {

// Adds a sample; `learnt` says which of its tokens are.
void add(text::SampleTokens& samples, const std::vector<std::int32_t>& tokens,
         const std::vector<std::uint8_t>& learnt) {
  samples.tokens.insert(samples.tokens.end(), tokens.begin(), tokens.end());
  samples.learnt.insert(samples.learnt.end(), learnt.begin(), learnt.end());
  samples.lengths.push_back(static_cast<std::int32_t>(tokens.size()));
}

std::vector<std::uint8_t> all_but_first(std::size_t n) {
  std::vector<std::uint8_t> learnt(n, 1);
  learnt[0] = 0;
  return learnt;
}

TEST(EvaluateAnswers, ScoresAsATextOfItsOwnEach) {
  const Fixture f;
  text::SampleTokens samples;
  double nats = 0;
  std::int64_t drafts = 0, accepted = 0, tokens = 0;
  // Together several passes; one sample alone is longer than a pass where the context allows it.
  const int longest = std::min(f.context, 700);
  std::vector<int> lengths = {2, 3, 20, longest, 5};
  for (int i = 0; i < 50; ++i) lengths.push_back(2 + i);
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    const auto text = random_tokens(std::min(lengths[i], f.context), f.vocab, i + 1);
    add(samples, text, all_but_first(text.size()));
    const Evaluation alone = evaluate(f.rt.context(), f.model, text, {.context = f.context});
    nats += alone.nats;
    drafts += alone.drafts;
    accepted += alone.accepted;
    tokens += alone.tokens;
  }
  const AnswersEvaluation got =
      evaluate_answers(f.rt.context(), f.model, samples, {.context = f.context});
  EXPECT_EQ(got.samples, std::ssize(lengths));
  EXPECT_EQ(got.answers, std::ssize(lengths));
  EXPECT_EQ(got.tokens, tokens);
  EXPECT_NEAR(got.nats, nats, 1e-9 * nats);
  EXPECT_EQ(got.drafts, drafts);
  EXPECT_EQ(got.accepted, accepted);
  EXPECT_EQ(got.cut, 0);
}

TEST(EvaluateAnswers, CountsLearntTokensAlone) {
  const Fixture f;
  const auto text = random_tokens(24, f.vocab, 7);
  std::vector<std::uint8_t> learnt(text.size(), 0);
  for (const std::size_t i : {4, 5, 6, 11, 23}) learnt[i] = 1;  // three answers
  text::SampleTokens samples;
  add(samples, text, learnt);
  // What a token adds to the score of the text up to it is its own loss.
  const auto nats_up_to = [&](std::size_t n) {
    return n < 2
               ? 0.0
               : evaluate(f.rt.context(), f.model, std::span(text).first(n), {.context = f.context})
                     .nats;
  };
  double nats = 0;
  for (std::size_t i = 0; i < learnt.size(); ++i) {
    if (learnt[i] != 0) nats += nats_up_to(i + 1) - nats_up_to(i);
  }
  const AnswersEvaluation got =
      evaluate_answers(f.rt.context(), f.model, samples, {.context = f.context});
  EXPECT_EQ(got.tokens, 5);
  EXPECT_EQ(got.answers, 3);
  EXPECT_NEAR(got.nats, nats, 1e-6 * nats);
}

TEST(EvaluateAnswers, WhatGreedyDecodingWritesIsWhole) {
  const runtime::Runtime rt(anywhere());
  for (const auto& folder : model_folders()) {
    const auto model = load_for(rt, folder, Precision::kF32);
    const Golden golden = load_golden(folder);
    text::SampleTokens right, wrong;
    std::int64_t tokens = 0;
    for (std::size_t i = 0; i < golden.prompts.size(); ++i) {
      std::vector<std::int32_t> text = golden.prompts[i];
      std::vector<std::uint8_t> learnt(text.size(), 0);
      text.insert(text.end(), golden.greedy[i].begin(), golden.greedy[i].end());
      learnt.resize(text.size(), 1);
      add(right, text, learnt);
      tokens += std::ssize(golden.greedy[i]);
      text.back() = (text.back() + 1) % model.config().vocab_size;
      add(wrong, text, learnt);
    }
    const int context = model.config().max_position_embeddings;
    const AnswersEvaluation got =
        evaluate_answers(rt.context(), model, right, {.context = context});
    EXPECT_EQ(got.answers, std::ssize(golden.prompts)) << folder;
    EXPECT_EQ(got.whole, got.answers) << folder;
    EXPECT_EQ(got.correct, tokens) << folder;
    const AnswersEvaluation other =
        evaluate_answers(rt.context(), model, wrong, {.context = context});
    EXPECT_EQ(other.whole, 0) << folder;
    EXPECT_EQ(other.correct, tokens - other.answers) << folder;
  }
}

TEST(EvaluateAnswers, CutsAtTheContextAndRefusesWhatItCannotScore) {
  const Fixture f;
  text::SampleTokens samples;
  const auto text = random_tokens(30, f.vocab, 3);
  add(samples, text, all_but_first(text.size()));
  const AnswersEvaluation cut = evaluate_answers(f.rt.context(), f.model, samples, {.context = 10});
  EXPECT_EQ(cut.cut, 1);
  EXPECT_EQ(cut.tokens, 9);
  EXPECT_EQ(cut.answers, 1);
  EXPECT_THROW(evaluate_answers(f.rt.context(), f.model, samples, {.context = 1}), Error);
  EXPECT_THROW(evaluate_answers(f.rt.context(), f.model, {}, {}), Error);
  samples.tokens[3] = f.vocab;
  EXPECT_THROW(evaluate_answers(f.rt.context(), f.model, samples, {}), Error);
}

}  // namespace
}  // namespace cachalot::infer
