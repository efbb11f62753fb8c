// Training passes over sequences of several lengths, of which some tokens are learnt.
#include "model/sequences.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/rng.h"
#include "model/optimizer.h"
#include "model/tiny_config_test.h"
#include "model/train_graph.h"
#include "runtime/runtime.h"

namespace cachalot::model {
namespace {

constexpr int kVocab = 53;

struct Batch {
  std::vector<std::int32_t> tokens, lengths;
  std::vector<std::uint8_t> learnt;

  Batch(std::vector<std::int32_t> of, std::uint64_t seed) : lengths(std::move(of)) {
    const Rng rng(seed);
    const auto n = static_cast<std::size_t>(std::accumulate(lengths.begin(), lengths.end(), 0));
    for (std::size_t i = 0; i < n; ++i) {
      tokens.push_back(static_cast<std::int32_t>(rng.below(2 * i, kVocab)));
      learnt.push_back(rng.below(2 * i + 1, 3) > 0 ? 1 : 0);
    }
  }
  Sequences all() const { return {tokens, lengths, learnt}; }
  Sequences one(std::size_t s) const {
    const auto begin =
        static_cast<std::size_t>(std::accumulate(lengths.begin(), lengths.begin() + s, 0));
    const auto n = static_cast<std::size_t>(lengths[s]);
    return {std::span(tokens).subspan(begin, n), std::span(lengths).subspan(s, 1),
            std::span(learnt).subspan(begin, n)};
  }
};

struct Trained {
  explicit Trained(const nn::Numerics& numerics = nn::Numerics::f32(), int threads = 2)
      : runtime({threads, ""}), parameters(config), graph(runtime.context(), config, numerics) {
    parameters.initialise(0.15, 7);
    Optimizer::zero_gradients(parameters);
  }
  std::vector<float> gradients() const {
    std::vector<float> all;
    for (const Parameter& p : parameters.list()) {
      all.insert(all.end(), parameters.gradient(p).begin(), parameters.gradient(p).end());
    }
    return all;
  }

  Config config = tiny(true);
  runtime::Runtime runtime;
  mutable Parameters parameters;
  TrainGraph graph;
};

void expect_near(const std::vector<float>& want, const std::vector<float>& got) {
  ASSERT_EQ(want.size(), got.size());
  double squares = 0, differences = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    squares += static_cast<double>(want[i]) * want[i];
    const double d = static_cast<double>(want[i]) - got[i];
    differences += d * d;
  }
  // Sums of some dozens of floats in another order.
  EXPECT_LT(std::sqrt(differences), 1e-5 * std::sqrt(squares));
}

TEST(Sequences, TogetherTheyAreWhatEachIsAlone) {
  const Batch batch({7, 2, 19, 3, 70, 4}, 11);
  const LossRows step = loss_rows(batch.all(), true);
  LossOptions options;
  options.mtp_lambda = 0.5F;
  options.balance_alpha = 0.1F;
  Trained together;
  const Losses whole = together.graph.forward_backward(together.parameters, batch.all(), options);
  EXPECT_EQ(whole.main_rows, step.main);
  EXPECT_EQ(whole.mtp_rows, step.mtp);

  Trained alone;
  double main = 0, mtp = 0;
  std::int64_t correct = 0, accepted = 0;
  std::vector<std::vector<std::int64_t>> load;
  for (std::size_t s = 0; s < batch.lengths.size(); ++s) {
    const LossRows own = loss_rows(batch.one(s), true);
    options.share = LossShare::of(own, step);
    const Losses part = alone.graph.forward_backward(alone.parameters, batch.one(s), options);
    main += part.main * static_cast<double>(own.main);
    mtp += part.mtp * static_cast<double>(own.mtp);
    correct += part.main_correct;
    accepted += part.mtp_accepted;
    load.resize(std::max(load.size(), part.expert_load.size()));
    for (std::size_t l = 0; l < part.expert_load.size(); ++l) {
      load[l].resize(part.expert_load[l].size());
      for (std::size_t e = 0; e < load[l].size(); ++e) load[l][e] += part.expert_load[l][e];
    }
  }
  EXPECT_NEAR(whole.main, main / static_cast<double>(step.main), 1e-5);
  EXPECT_NEAR(whole.mtp, mtp / static_cast<double>(step.mtp), 1e-5);
  EXPECT_EQ(whole.main_correct, correct);
  EXPECT_EQ(whole.mtp_accepted, accepted);
  EXPECT_EQ(whole.expert_load, load);
  expect_near(together.gradients(), alone.gradients());
}

TEST(Sequences, TheBalanceLossIsTheirMeanByRows) {
  const Batch batch({9, 30, 4}, 5);
  LossOptions options;
  Trained t;
  const std::vector<double> whole =
      t.graph.evaluate(t.parameters, batch.all(), options).balance_per_layer;
  std::vector<double> sum(whole.size());
  const std::vector<double> rows = {8, 29, 3};  // the MTP layer, the last, has one less of each
  for (std::size_t s = 0; s < rows.size(); ++s) {
    const auto part = t.graph.evaluate(t.parameters, batch.one(s), options).balance_per_layer;
    ASSERT_EQ(part.size(), whole.size());
    for (std::size_t l = 0; l < sum.size(); ++l) {
      const bool mtp = l + 1 == sum.size();
      sum[l] += part[l] * (mtp ? (rows[s] - 1) / 37 : rows[s] / 40);
    }
  }
  for (std::size_t l = 0; l < sum.size(); ++l) EXPECT_NEAR(whole[l], sum[l], 1e-5) << l;
}

TEST(Sequences, AnotherSequenceIsNotSeen) {
  Batch batch({12, 25}, 3);
  LossOptions options;
  options.balance_alpha = 0;
  for (std::size_t i = 12; i < batch.learnt.size(); ++i) batch.learnt[i] = 0;
  Trained alone;
  const Losses want = alone.graph.forward_backward(alone.parameters, batch.one(0), options);
  for (const int shift : {0, 1}) {
    for (std::size_t i = 12; i < batch.tokens.size(); ++i) {
      batch.tokens[i] = (batch.tokens[i] + shift) % kVocab;
    }
    Trained beside;
    const Losses got = beside.graph.forward_backward(beside.parameters, batch.all(), options);
    EXPECT_NEAR(want.main, got.main, 1e-6);
    EXPECT_NEAR(want.mtp, got.mtp, 1e-6);
    expect_near(alone.gradients(), beside.gradients());
  }
}

TEST(Sequences, OfOneLengthAreTheWindowsTheyWere) {
  Batch batch({21, 21, 21}, 8);
  std::fill(batch.learnt.begin(), batch.learnt.end(), std::uint8_t{1});
  const MatView<const std::int32_t> rows{batch.tokens.data(), 3, 21, 21};
  for (const auto& numerics :
       {nn::Numerics::f32(), nn::Numerics::bf16(), nn::Numerics::report_fp8()}) {
    Trained a(numerics), b(numerics, 1);
    LossOptions options;
    options.dropout = 0.1;
    options.first_sequence = 6;
    const double windows = a.graph.forward_backward(a.parameters, rows, options).total;
    options.rows_per_sequence = 20;
    EXPECT_EQ(windows, b.graph.forward_backward(b.parameters, batch.all(), options).total);
    EXPECT_EQ(a.gradients(), b.gradients());
  }
}

// Passes of other lengths before, longer and shorter, leave nothing behind.
TEST(Sequences, APassDoesNotDependOnThoseBefore) {
  const Batch longer({40, 3, 8}, 1), shorter({5, 6}, 2), equal({8, 8}, 4);
  for (const auto& numerics : {nn::Numerics::f32(), nn::Numerics::report_fp8()}) {
    for (const Batch* last : {&longer, &shorter, &equal}) {
      Trained fresh(numerics), used(numerics);
      const double want = fresh.graph.forward_backward(fresh.parameters, last->all(), {}).total;
      for (const Batch* first : {&equal, &longer, &shorter, &longer}) {
        used.graph.forward_backward(used.parameters, first->all(), {});
      }
      Optimizer::zero_gradients(used.parameters);
      EXPECT_EQ(want, used.graph.forward_backward(used.parameters, last->all(), {}).total);
      EXPECT_EQ(fresh.gradients(), used.gradients());
    }
  }
}

TEST(Sequences, AtTheEdges) {
  Trained t;
  LossOptions options;
  const Losses pairs = t.graph.forward_backward(t.parameters, Batch({2, 2, 2}, 6).all(), options);
  EXPECT_EQ(pairs.mtp_rows, 0);  // nothing stands behind the next token
  EXPECT_EQ(pairs.mtp, 0);
  ASSERT_EQ(pairs.expert_load.size(), 2U);  // of the MTP layer too, which read nothing
  EXPECT_EQ(pairs.expert_load[1], std::vector<std::int64_t>(6, 0));
  const Losses mixed = t.graph.evaluate(t.parameters, Batch({2, 3, 2}, 6).all(), options);
  EXPECT_LE(mixed.mtp_rows, 1);
  EXPECT_TRUE(std::isfinite(mixed.total));

  Batch read({9, 6}, 7);
  std::fill(read.learnt.begin(), read.learnt.end(), std::uint8_t{0});
  options.balance_alpha = 0;
  Optimizer::zero_gradients(t.parameters);
  const Losses none = t.graph.forward_backward(t.parameters, read.all(), options);
  EXPECT_EQ(none.main_rows, 0);
  EXPECT_EQ(none.total, 0);
  for (const float g : t.gradients()) EXPECT_EQ(g, 0);
  // Nor is what a step before left behind taken for gradients of this one.
  t.graph.forward_backward(t.parameters, Batch({9, 6}, 8).all(), options);
  options.fresh_gradients = true;
  t.graph.forward_backward(t.parameters, read.all(), options);
  for (const float g : t.gradients()) EXPECT_EQ(g, 0);
}

TEST(Sequences, ThatCannotBeAreRefused) {
  Trained t;
  const Batch batch({5, 4}, 1);
  const auto refused = [&](const Sequences& s, LossOptions options = {}) {
    EXPECT_THROW(t.graph.forward_backward(t.parameters, s, options), Error);
  };
  refused({});
  const std::vector<std::int32_t> one = {8, 1}, more = {5, 5}, negative = {10, -1};
  refused({batch.tokens, one, batch.learnt});
  refused({batch.tokens, more, batch.learnt});
  refused({batch.tokens, negative, batch.learnt});
  refused({batch.tokens, batch.lengths, std::span(batch.learnt).first(3)});
  Batch strange = batch;
  strange.tokens[2] = kVocab;
  refused(strange.all());
  LossOptions dropout;
  dropout.dropout = 0.1;
  refused(batch.all(), dropout);  // of how many rows a number stands for nothing is said
  LossOptions late;
  late.score_from = 3;
  refused(batch.all(), late);  // past the rows of the second
  LossOptions twice;
  twice.score_from = 1;
  refused(batch.all(), twice);  // which tokens are learnt is said already
  const Losses behind = t.graph.evaluate(t.parameters, {batch.tokens, batch.lengths}, twice);
  EXPECT_EQ(behind.main_rows, 3 + 2);
  EXPECT_EQ(behind.mtp_rows, 3 + 2);  // the MTP layer's rows from the one before on
}

TEST(Sequences, SharesOfAStep) {
  const LossRows part{3, 2, 10, 6}, step{12, 8, 20, 16};
  const LossShare share = LossShare::of(part, step);
  EXPECT_EQ(share.main, 0.25F);
  EXPECT_EQ(share.mtp, 0.25F);
  EXPECT_EQ(share.balance, 0.5F);
  EXPECT_EQ(share.mtp_balance, 0.375F);
  EXPECT_EQ(LossShare::of({}, {}).main, 0);
  // Of a first token that is marked nothing is learnt; the MTP layer begins at the third.
  const std::vector<std::int32_t> tokens = {1, 2, 3, 4, 5}, lengths = {3, 2};
  const std::vector<std::uint8_t> learnt = {1, 1, 1, 1, 0};
  const LossRows rows = loss_rows({tokens, lengths, learnt}, true);
  EXPECT_EQ(rows.main, 2);
  EXPECT_EQ(rows.mtp, 1);
  EXPECT_EQ(rows.all, 3);
  EXPECT_EQ(rows.mtp_all, 1);
  EXPECT_EQ(loss_rows({tokens, lengths, {}}, false).mtp, 0);
}

}  // namespace
}  // namespace cachalot::model
