#include "kernels/permute.h"

#include "kernels/bf16_ops.h"
#include "kernels/cuda/memory_case_test.h"

namespace cachalot::cuda::testing {
namespace {

using CudaExpertOrderTest = MemoryTest;
using CudaPermuteTest = MemoryTest;
using CudaPermuteBench = MemoryTest;

// k different experts per token; `skew` makes the first ones busy and leaves some without any.
Mat<std::int32_t> choices_of(int tokens, int k, int experts, bool skew) {
  Mat<std::int32_t> index(tokens, k);
  const Rng rng(5, static_cast<std::uint64_t>(experts));
  for (int t = 0; t < tokens; ++t) {
    for (int j = 0; j < k; ++j) {
      for (std::uint64_t attempt = 0;; ++attempt) {
        const auto at =
            (static_cast<std::uint64_t>(t) * 64 + static_cast<std::uint64_t>(j)) * 512 + attempt;
        double u = rng.uniform(at);
        if (skew && attempt < 500) u *= u * u;
        const int e = static_cast<int>(u * experts);
        if (std::find(index.row(t), index.row(t) + j, e) != index.row(t) + j) continue;
        index.at(t, j) = e;
        break;
      }
    }
  }
  return index;
}

struct Shape {
  int tokens, k, experts;
};
constexpr Shape kShapes[] = {{1, 1, 1},     {5, 2, 3},     {100, 6, 64},    {1000, 8, 256},
                             {4097, 8, 64}, {777, 3, 600}, {300, 6, 70000}, {2049, 1, 2}};

TEST_F(CudaExpertOrderTest, IsTheReference) {
  for (const Shape s : kShapes) {
    for (const Layout l : kLayouts) {
      for (const bool skew : {false, true}) {
        auto index = twin(choices_of(s.tokens, s.k, s.experts, skew), l);
        ExpertOrder want, got;
        cachalot::expert_order(index.h(), s.experts, want);
        cuda::expert_order(ctx, index.d(), s.experts, got);
        const std::string what =
            cat("expert_order of ", s.tokens, " x ", s.k, " to ", s.experts, ", ", text(l));
        ASSERT_EQ(got.token.device(), device_.get()) << what;
        ASSERT_EQ(got.slot.device(), device_.get()) << what;
        EXPECT_EQ(got.begin, want.begin) << what;
        Twin<std::int32_t> token{std::move(want.token), std::move(got.token), 0, s.tokens * s.k};
        Twin<std::int32_t> slot{std::move(want.slot), std::move(got.slot), 0, s.k};
        expect_same(what + " token", token);
        expect_same(what + " slot", slot);
      }
    }
  }
}

TEST_F(CudaExpertOrderTest, NoTokens) {
  ExpertOrder got;
  cuda::expert_order(ctx, {nullptr, 0, 4, 4}, 3, got);
  EXPECT_EQ(got.begin, (std::vector<std::int32_t>{0, 0, 0, 0}));
}

struct Rows {
  int tokens, k, cols;
};
constexpr Rows kRows[] = {{1, 1, 1}, {7, 2, 24}, {33, 6, 37}, {20, 8, 2048}, {3, 19, 264}};

class CudaRowMovesTest : public MemoryTest {
 protected:
  void order(int tokens, int k, Layout l) {
    Mat<std::int32_t> index = choices_of(tokens, k, k + 5, false);
    ExpertOrder o;
    cachalot::expert_order(index.cview(), k + 5, o);
    slot = twin(o.slot, l);
    token = twin(o.token, {l.before, 0});
  }
  Twin<std::int32_t> slot, token;
};

TEST_F(CudaRowMovesTest, AreTheReferences) {
  for (const Rows s : kRows) {
    for (const Layout l : kLayouts) {
      order(s.tokens, s.k, l);
      const int n = s.tokens * s.k;
      auto x = twin(random_mat(s.tokens, s.cols, 1), l);
      auto y = twin(random_mat(n, s.cols, 2), l);
      auto y16 = twin(to_bf16(random_mat(n, s.cols, 2)), l);
      auto weight = twin(random_mat(s.tokens, s.k, 3), l);

      auto gathered = twin<float>(n, s.cols, l);
      gather_rows_ref(host, GatherRows<float>{x.h(), token.hs(), gathered.h()});
      cuda::gather_rows(ctx, {x.d(), token.ds(), gathered.d()});
      expect_same("gather_rows, " + text(l), gathered);
      auto gathered16 = twin<Bf16>(n, s.cols, l);
      gather_rows_bf16_ref(host, {x.h(), token.hs(), gathered16.h()});
      cuda::gather_rows_bf16(ctx, {x.d(), token.ds(), gathered16.d()});
      expect_same("gather_rows_bf16, " + text(l), gathered16);

      for (const bool weighted : {false, true}) {
        MatView<const float> wh, wd;
        if (weighted) wh = weight.h(), wd = weight.d();
        for (const bool accumulate : {false, true}) {
          auto out = twin(random_mat(s.tokens, s.cols, 4), l);
          combine_ref(host, Combine<float>{y.h(), slot.h(), wh, out.h(), accumulate});
          cuda::combine(ctx, {y.d(), slot.d(), wd, out.d(), accumulate});
          expect_same("combine, " + text(l), out, 1e-6, 2e-6);
          combine_bf16_ref(host, {y16.h(), slot.h(), wh, out.h(), accumulate});
          cuda::combine_bf16(ctx, {y16.d(), slot.d(), wd, out.d(), accumulate});
          expect_same("combine_bf16, " + text(l), out, 1e-6, 4e-6);
        }
        for (const bool wanted : {false, true}) {
          auto dy = twin(random_mat(n, s.cols, 2), l);  // is y
          auto dweight = twin<float>(s.tokens, s.k, l);
          CombineBackward<float> a{x.h(), dy.h(), slot.h(), wh, dy.h(), {}};
          CombineBackward<float> b{x.d(), dy.d(), slot.d(), wd, dy.d(), {}};
          if (wanted) a.dweight = dweight.h(), b.dweight = dweight.d();
          combine_backward_ref(host, a);
          cuda::combine_backward(ctx, b);
          expect_same("combine_backward dy, " + text(l), dy);
          expect_same("combine_backward dweight, " + text(l), dweight, 1e-6, 2e-5);
        }
      }
    }
  }
}

// Rows asked for many times each, some more often than a list holds, one not at all.
TEST_F(CudaRowMovesTest, MuchIsReadOnce) {
  const int from = 900, n = 9000, cols = 2048;
  Mat<std::int32_t> ask(1, n);
  for (int i = 0; i < n; ++i) {
    ask.data()[i] = i % 50 == 0 ? 17 : static_cast<int>(std::int64_t{i} * 7919 % (from - 1));
  }
  auto rows = twin(ask);
  auto x = twin(random_mat(from, cols, 1));
  auto out = twin<float>(n, cols);
  gather_rows_ref(host, GatherRows<float>{x.h(), rows.hs(), out.h()});
  cuda::gather_rows(ctx, {x.d(), rows.ds(), out.d()});
  expect_same("gather_rows of much", out);
  auto out16 = twin<Bf16>(n, cols);
  gather_rows_bf16_ref(host, {x.h(), rows.hs(), out16.h()});
  cuda::gather_rows_bf16(ctx, {x.d(), rows.ds(), out16.d()});
  expect_same("gather_rows_bf16 of much", out16);
}

TEST_F(CudaRowMovesTest, ChoicesAndAddedRows) {
  for (const Rows s : kRows) {
    for (const Layout l : kLayouts) {
      order(s.tokens, s.k, l);
      const int n = s.tokens * s.k;
      auto choices = twin(random_mat(s.tokens, s.k, 1), l);
      auto rows = twin<float>(1, n, l);
      choices_to_rows_ref(host, {choices.h(), slot.h(), rows.hs()});
      cuda::choices_to_rows(ctx, {choices.d(), slot.d(), rows.ds()});
      expect_same("choices_to_rows, " + text(l), rows);
      auto back = twin<float>(s.tokens, s.k, l);
      rows_to_choices_ref(host, {back.h(), slot.h(), rows.hs()});
      cuda::rows_to_choices(ctx, {back.d(), slot.d(), rows.ds()});
      expect_same("rows_to_choices, " + text(l), back);

      Mat<std::int32_t> place(1, s.tokens);
      for (int i = 0; i < s.tokens; ++i) place.data()[i] = 2 * (s.tokens - 1 - i);
      auto places = twin(place);
      auto x = twin(random_mat(s.tokens, s.cols, 2), l);
      auto out = twin(random_mat(2 * s.tokens, s.cols, 3), l);
      add_rows_ref(host, {x.h(), places.hs(), out.h()});
      cuda::add_rows(ctx, {x.d(), places.ds(), out.d()});
      expect_same("add_rows, " + text(l), out);
    }
  }
}

TEST_F(CudaPermuteBench, TrainingShapes) {
  for (const Shape s : {Shape{32768, 6, 64}, Shape{16384, 8, 256}}) {
    const int cols = 2048, n = s.tokens * s.k;
    const auto index = up(choices_of(s.tokens, s.k, s.experts, false));
    const std::string shape = cat(" [", s.tokens, " x ", s.k, " of ", s.experts, ", ", cols, "]");
    ExpertOrder o;
    bench("expert_order" + shape, 12.0 * n,
          [&] { cuda::expert_order(ctx, index.view(), s.experts, o); });
    const double wide = 4.0 * n * cols, token = 4.0 * s.tokens * cols;
    auto x = device_random(s.tokens, cols), weight = device_random(s.tokens, s.k);
    auto y = device_random(n, cols);
    auto y16 = device_random_bf16(n, cols);
    auto rows = device_room<float>(1, n);
    bench("gather_rows" + shape, wide + token, [&] {
      cuda::gather_rows(ctx, {x.view(), o.token.span(), y.view()});
    });
    bench("gather_rows_bf16" + shape, wide / 2 + token, [&] {
      cuda::gather_rows_bf16(ctx, {x.view(), o.token.span(), y16.view()});
    });
    bench("combine" + shape, wide + token, [&] {
      cuda::combine(ctx, {y.view(), o.slot.view(), weight.view(), x.view(), false});
    });
    bench("combine_bf16" + shape, wide / 2 + token, [&] {
      cuda::combine_bf16(ctx, {y16.view(), o.slot.view(), {}, x.view(), false});
    });
    bench("combine_bf16 added" + shape, wide / 2 + 2 * token, [&] {
      cuda::combine_bf16(ctx, {y16.view(), o.slot.view(), {}, x.view(), true});
    });
    auto dweight = device_room<float>(s.tokens, s.k);
    bench("combine_backward" + shape, 2 * wide + token, [&] {
      cuda::combine_backward(
          ctx, {x.view(), y.view(), o.slot.view(), weight.view(), y.view(), dweight.view()});
    });
    bench("choices_to_rows" + shape, 12.0 * n, [&] {
      cuda::choices_to_rows(ctx, {weight.view(), o.slot.view(), rows.span()});
    });
  }
}

}  // namespace
}  // namespace cachalot::cuda::testing
