// Texts that are held to a grammar: what comes out, that drafts change nothing, and how they end.
#include <gtest/gtest.h>

#include "base/error.h"
#include "grammar/accepts.h"
#include "infer/engine_case_test.h"
#include "text/byte_tokenizer.h"

namespace cachalot::infer {
namespace {

using grammar::Constraint;
using grammar::ExprId;
using grammar::Grammar;
using grammar::kUnbounded;

// Ids 0 to 255 are bytes, 256 ends a text; the model's logits have room for more.
struct Bytes : Fixture {
  text::Tokenizer tokenizer{text::byte_tokenizer(true), text::byte_tokenizer_config(true)};
  std::shared_ptr<const grammar::Vocabulary> vocabulary =
      std::make_shared<const grammar::Vocabulary>(tokenizer, vocab);

  Request held(const Grammar& g, std::uint64_t seed, int max_tokens = 60) const {
    Request r = request(5, max_tokens, seed);
    r.eos = {256};
    r.constraint = std::make_shared<const Constraint>(vocabulary, g);
    return r;
  }
  std::vector<Result> run(const EngineConfig& config, std::span<const Request> requests) const {
    return Engine(rt.context(), model, config, &tokenizer).run(requests);
  }
};

// [word, word, ...] with words of one to three letters, a record after it.
Grammar list_of_words() {
  Grammar g;
  const ExprId word = g.rule("word", g.repeat(g.chars({{'a', 'z'}}), 1, 3));
  const ExprId more = g.repeat(g.sequence({g.text(", "), word}), 0, 4);
  g.set_root(g.sequence({g.text("{\"words\": ["), word, more, g.text("], \"count\": "),
                         g.chars({{'1', '9'}}), g.text("}")}));
  return g;
}

TEST(EngineConstraint, TextsAreOnesThatTheGrammarLetsThrough) {
  const Bytes f;
  const Grammar g = list_of_words();
  const grammar::Automaton automaton = grammar::compile(g);
  std::vector<Request> requests;
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    requests.push_back(f.held(g, seed));
    requests.back().sampling.temperature = seed < 2 ? 0 : 1.5;
    requests.back().n = seed == 3 ? 3 : 1;
  }
  for (const Result& r : f.run({}, requests)) {
    for (const Choice& c : r.choices) {
      EXPECT_EQ(c.finish, Finish::kEos);
      EXPECT_TRUE(grammar::accepts(automaton, c.text)) << c.text;
      EXPECT_NE(c.tokens.back(), 256);  // nothing could follow, so nobody asked for the end
    }
  }
}

TEST(EngineConstraint, NoDraftChangesAText) {
  const Bytes f;
  const Grammar g = list_of_words();
  std::vector<Request> requests;
  for (std::uint64_t seed = 0; seed < 3; ++seed) requests.push_back(f.held(g, seed));
  requests[1].constraint = nullptr;  // among others
  requests[2].n = 2;
  std::vector<Result> want;
  for (const Request& r : requests) {
    want.push_back(f.alone(r, {.mtp = MtpMode::kOff, .draft_certain = false}));
  }
  for (const MtpMode mtp : {MtpMode::kOff, MtpMode::kOn, MtpMode::kAuto}) {
    for (const bool certain : {false, true}) {
      const auto got = f.run({.mtp = mtp, .draft_length = 3, .draft_certain = certain}, requests);
      for (std::size_t i = 0; i < want.size(); ++i) {
        for (std::size_t c = 0; c < want[i].choices.size(); ++c) {
          EXPECT_EQ(got[i].choices[c].tokens, want[i].choices[c].tokens);
          EXPECT_EQ(got[i].choices[c].finish, want[i].choices[c].finish);
        }
        const bool drafts = certain && requests[i].constraint != nullptr;
        EXPECT_EQ(got[i].certain().drafted > 0, drafts);
        // Each byte is a token here: there is no other way to cut it.
        EXPECT_EQ(got[i].certain().accepted, got[i].certain().drafted);
      }
    }
  }
}

TEST(EngineConstraint, CertainTextTakesFewPasses) {
  const Bytes f;
  Grammar g;
  g.set_root(g.text("{\"a long name that everyone knows\": \"and what it is\"}"));
  const Request r = f.held(g, 1);
  for (const bool certain : {false, true}) {
    Engine engine(f.rt.context(), f.model, {.mtp = MtpMode::kOff, .draft_certain = certain},
                  &f.tokenizer);
    const Result result = engine.run(r);
    EXPECT_EQ(engine.stats().certain.drafted, result.certain().drafted);
    EXPECT_EQ(engine.stats().certain.accepted, result.certain().accepted);
    EXPECT_EQ(result.choices.front().text,
              "{\"a long name that everyone knows\": \"and what it is\"}");
    const auto tokens = static_cast<std::int64_t>(result.tokens().size());
    // One pass reads the prompt and gives the first token; then each reads 16 more besides its own.
    EXPECT_EQ(engine.stats().passes, certain ? 1 + (tokens - 1 + 16) / 17 : tokens);
  }
}

TEST(EngineConstraint, TextsEndWhereTheyMayAndOnlyThere) {
  const Bytes f;
  Grammar g;
  const ExprId digit = g.chars({{'0', '9'}});
  g.set_root(g.sequence({g.repeat(digit, 4, 4), g.repeat(digit, 0, kUnbounded)}));
  int ended = 0;
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    Request r = f.held(g, seed, 25);
    r.sampling.temperature = 3;
    const Result result = f.run({}, {&r, 1}).front();
    if (result.finish() == Finish::kEos) {
      ++ended;
      EXPECT_EQ(result.tokens().back(), 256);
      EXPECT_GE(result.tokens().size(), 5u);
    } else {
      EXPECT_EQ(result.finish(), Finish::kLength);
    }
    EXPECT_EQ(result.choices.front().text.find_first_not_of("0123456789"), std::string::npos);
    r.eos.clear();  // nothing can end it now
    EXPECT_EQ(f.run({}, {&r, 1}).front().finish(), Finish::kLength);
  }
  EXPECT_GT(ended, 0);
}

TEST(EngineConstraint, HoldsFromItsBeginningOn) {
  const Bytes f;
  Grammar g;
  g.set_root(g.text("yes"));
  Request r = f.request(5, 12, 1);
  r.sampling = {};
  r.eos = {256};
  const std::vector<std::int32_t> free = f.alone(r).tokens();
  // A byte that it writes at some place, for the first time and not as the very first one.
  const auto mark = std::find_if(free.begin() + 1, free.end() - 1, [&](const std::int32_t& t) {
    return t < 128 && std::find(free.data(), &t, t) == &t;
  });
  ASSERT_LT(mark, free.end() - 1);
  const std::string begin(1, static_cast<char>(*mark));
  std::vector<std::int32_t> want(free.begin(), mark + 1);
  want.insert(want.end(), {'y', 'e', 's'});
  for (const bool must_begin : {false, true}) {
    r.max_tokens = 30;
    r.constraint = std::make_shared<const Constraint>(f.vocabulary, g, begin, must_begin);
    const Result result = f.run({.mtp = MtpMode::kOn, .draft_length = 2}, {&r, 1}).front();
    EXPECT_EQ(result.finish(), Finish::kEos);
    EXPECT_EQ(result.tokens(), want);
  }
  // Before it has begun, a text may end only where nothing has to come.
  r.eos = {free.front()};
  r.constraint = std::make_shared<const Constraint>(f.vocabulary, g, begin, false);
  EXPECT_EQ(f.alone(r).tokens(), std::vector<std::int32_t>(1, free.front()));
  r.constraint = std::make_shared<const Constraint>(f.vocabulary, g, begin, true);
  const std::vector<std::int32_t> other = f.alone(r).tokens();
  EXPECT_EQ(std::find(other.begin(), other.end(), free.front()), other.end());
}

TEST(EngineConstraint, SurvivesTheLossOfPages) {
  const Bytes f;
  const Grammar g = list_of_words();
  std::vector<Request> requests;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    requests.push_back(f.held(g, seed));
    requests.back().prompt = random_tokens(90, 256, seed);
  }
  Engine engine(f.rt.context(), f.model, {.cache_bytes = f.pages(5)}, &f.tokenizer);
  const auto got = engine.run(requests);
  EXPECT_GT(engine.stats().preemptions, 0);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(got[i].tokens(), f.alone(requests[i]).tokens());
  }
}

TEST(EngineConstraint, OfAnotherVocabularyIsRefused) {
  const Bytes f;
  Request r = f.request(5, 4, 1);
  const auto other = std::make_shared<const grammar::Vocabulary>(f.tokenizer, f.vocab - 1);
  r.constraint = std::make_shared<const Constraint>(other, list_of_words());
  EXPECT_THROW(f.alone(r), Error);
}

TEST(EngineConstraint, WhatNoTokenContinuesEndsItsRequestAlone) {
  const Bytes f;
  Grammar g;
  g.set_root(g.sequence({g.text("a"), g.text("\xFE")}));  // of no vocabulary
  const std::vector<Request> requests{f.held(g, 1), f.held(list_of_words(), 2)};
  std::vector<Result> results(2);
  std::vector<Request> watched = requests;
  for (std::size_t i = 0; i < 2; ++i) {
    watched[i].on_done = [&results, i](const Result& r) { results[i] = r; };
  }
  Engine engine(f.rt.context(), f.model, {}, &f.tokenizer);
  for (Request& r : watched) engine.submit(r);
  engine.run();
  EXPECT_EQ(results[0].finish(), Finish::kError);
  EXPECT_EQ(results[1].finish(), Finish::kEos);
}

}  // namespace
}  // namespace cachalot::infer
