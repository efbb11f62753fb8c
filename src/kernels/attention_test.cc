#include "kernels/attention.h"

#include <gmock/gmock.h>

#include <cstring>
#include <string>

#include "kernels/attention_case_test.h"
#include "kernels/cpu/level_test.h"
#include "kernels/saved.h"
#include "testing/finite_difference.h"

namespace cachalot {
namespace {

using testing::AttentionBatch;
using testing::AttentionShape;
using testing::expect_within;
using testing::NaiveAttention;
using testing::spans_of;

bool same_bits(const Mat<float>& a, const Mat<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Sizes below, at and past a vector, a row block, a key block and a query chunk; one head and many;
// one sequence and several; fewer queries than keys.
std::vector<AttentionShape> shapes() {
  return {
      {{1, 1, 0, 1}, spans_of({{1, 1}})},
      {{1, 0, 2, 1}, spans_of({{2, 3}})},
      {{2, 5, 3, 7}, spans_of({{15, 15}, {1, 1}, {17, 17}})},
      {{3, 16, 16, 16}, spans_of({{16, 16}, {63, 63}, {64, 64}, {65, 65}})},
      {{2, 33, 14, 31}, spans_of({{25, 25}, {129, 129}, {7, 100}})},
      {{2, 32, 16, 48}, spans_of({{1, 64}, {1, 65}, {48, 128}, {0, 0}, {23, 23}})},
      {{1, 24, 8, 80}, spans_of({{300, 300}, {257, 259}})},
      {{16, 8, 4, 12}, spans_of({{33, 33}})},
      {{1, 128, 64, 128}, spans_of({{70, 70}})},
      {{2, 32, 64, 32}, spans_of({{80, 80}, {3, 70}})},
  };
}

std::string label(const AttentionShape& s, Precision p) {
  std::string text = cat(p == Precision::kBF16 ? "bf16" : "f32", " H=", s.dims.heads,
                         " N=", s.dims.nope, " R=", s.dims.rope, " V=", s.dims.value);
  for (const auto& span : s.spans) text += cat(" ", span.q_rows, "/", span.kv_rows);
  return text;
}

class AttentionTest : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(AttentionTest);

TEST_P(AttentionTest, ForwardAgreesWithNaiveSoftmax) {
  for (const Precision precision : {Precision::kF32, Precision::kBF16}) {
    for (const AttentionShape& shape : shapes()) {
      SCOPED_TRACE(label(shape, precision));
      AttentionBatch<float> b(shape, 1);
      b.precision = precision;
      attention(context(), b.forward());
      const NaiveAttention want(b, /*backward=*/false);
      expect_within("out", b.out, want.out);
      expect_within("lse", b.lse, want.lse);
    }
  }
}

// Operands in bf16 are those floats: the same bits, whatever the precision of the products.
TEST_P(AttentionTest, OperandsInBf16) {
  for (const Precision precision : {Precision::kF32, Precision::kBF16}) {
    for (const AttentionShape& shape : shapes()) {
      SCOPED_TRACE(label(shape, precision));
      AttentionBatch<float> b(shape, 1), c(shape, 1);
      b.precision = c.precision = precision;
      Mat<Bf16> q(b.q.rows(), b.q.cols()), kv(b.kv.rows(), b.kv.cols());
      store_bf16_ref(Context{}, b.q.cview(), q.view());
      store_bf16_ref(Context{}, b.kv.cview(), kv.view());
      load_bf16_ref(Context{}, q.cview(), b.q.view());
      load_bf16_ref(Context{}, kv.cview(), b.kv.view());
      attention(context(), b.forward());
      attention_backward(context(), b.backward());
      Attention<float> forward = c.forward();
      AttentionBackward<float> backward = c.backward();
      forward.q_bf16 = backward.q_bf16 = q.cview();
      forward.kv_bf16 = backward.kv_bf16 = kv.cview();
      forward.q.data = backward.q.data = forward.kv.data = backward.kv.data = nullptr;
      attention(context(), forward);
      attention_backward(context(), backward);
      EXPECT_TRUE(same_bits(b.out, c.out));
      EXPECT_TRUE(same_bits(b.lse, c.lse));
      EXPECT_TRUE(same_bits(b.dq, c.dq));
      EXPECT_TRUE(same_bits(b.dkv, c.dkv));
      EXPECT_TRUE(same_bits(b.dk_rope, c.dk_rope));
    }
  }
}

TEST_P(AttentionTest, BackwardAgreesWithNaiveGradient) {
  for (const Precision precision : {Precision::kF32, Precision::kBF16}) {
    for (const AttentionShape& shape : shapes()) {
      SCOPED_TRACE(label(shape, precision));
      AttentionBatch<float> b(shape, 1);
      b.precision = precision;
      attention_ref(Context{}, b.forward());
      for (Mat<float>* m : {&b.dq, &b.dkv, &b.dk_rope}) {
        std::fill_n(m->data(), m->size(), 77.0f);  // what has to be overwritten
      }
      attention_backward(context(), b.backward());
      const NaiveAttention want(b, /*backward=*/true);
      expect_within("dq", b.dq, want.dq);
      expect_within("dkv", b.dkv, want.dkv);
      expect_within("dk_rope", b.dk_rope, want.dk_rope);
    }
  }
}

// exp of scores of some thousands would overflow anything; so would their lse if it were not kept
// as a logarithm.
TEST_P(AttentionTest, LargeScoresStayFinite) {
  AttentionBatch<float> b({{2, 16, 8, 16}, spans_of({{70, 70}})}, 5, /*size=*/40);
  attention(context(), b.forward());
  const NaiveAttention want(b, false);
  expect_within("out", b.out, want.out);
  expect_within("lse", b.lse, want.lse);
  attention_backward(context(), b.backward());
  for (const Mat<float>* m : {&b.dq, &b.dkv, &b.dk_rope}) {
    for (const float x : m->span()) ASSERT_TRUE(std::isfinite(x));
  }
}

TEST_P(AttentionTest, ThreadsDoNotChangeBits) {
  for (const Precision precision : {Precision::kF32, Precision::kBF16}) {
    const AttentionShape shape{{3, 20, 12, 36}, spans_of({{300, 300}, {40, 40}, {5, 77}})};
    AttentionBatch<float> alone(shape, 3);
    alone.precision = precision;
    attention(context(), alone.forward());
    attention_backward(context(), alone.backward());
    with_threads([&](const Context& ctx, int threads) {
      SCOPED_TRACE(threads);
      AttentionBatch<float> b(shape, 3);
      b.precision = precision;
      attention(ctx, b.forward());
      attention_backward(ctx, b.backward());
      EXPECT_TRUE(same_bits(b.out, alone.out));
      EXPECT_TRUE(same_bits(b.lse, alone.lse));
      EXPECT_TRUE(same_bits(b.dq, alone.dq));
      EXPECT_TRUE(same_bits(b.dkv, alone.dkv));
      EXPECT_TRUE(same_bits(b.dk_rope, alone.dk_rope));
    });
  }
}

TEST_P(AttentionTest, ChunkedPrefillGivesTheBitsOfTheWhole) {
  constexpr int kRows = 333;
  for (const Precision precision : {Precision::kF32, Precision::kBF16}) {
    AttentionBatch<float> whole({{2, 20, 12, 36}, spans_of({{kRows, kRows}})}, 7);
    whole.precision = precision;
    attention(context(), whole.forward());
    for (const int chunk : {1, 24, 50, 64, 100, 256}) {
      AttentionBatch<float> part({{2, 20, 12, 36}, spans_of({{kRows, kRows}})}, 7);
      part.precision = precision;
      for (int begin = 0; begin < kRows; begin += chunk) {
        const int end = std::min(kRows, begin + chunk);
        const AttentionSpan span{begin, end - begin, 0, end};
        Attention<float> a = part.forward();
        a.spans = {&span, 1};
        attention(context(), a);
      }
      EXPECT_TRUE(same_bits(part.out, whole.out)) << "chunks of " << chunk;
      EXPECT_TRUE(same_bits(part.lse, whole.lse)) << "chunks of " << chunk;
    }
  }
}

TEST_P(AttentionTest, AnotherSequenceInTheBatchChangesNoBit) {
  const AttentionShape shape{{2, 20, 12, 36}, spans_of({{100, 100}, {3, 3}, {70, 130}})};
  for (const Precision precision : {Precision::kF32, Precision::kBF16}) {
    AttentionBatch<float> batch(shape, 9), alone(shape, 9);
    batch.precision = alone.precision = precision;
    attention(context(), batch.forward());
    attention_backward(context(), batch.backward());
    for (const AttentionSpan& span : shape.spans) {
      Attention<float> a = alone.forward();
      a.spans = {&span, 1};
      attention(context(), a);
      AttentionBackward<float> g = alone.backward();
      g.spans = {&span, 1};
      attention_backward(context(), g);
    }
    EXPECT_TRUE(same_bits(alone.out, batch.out));
    EXPECT_TRUE(same_bits(alone.lse, batch.lse));
    EXPECT_TRUE(same_bits(alone.dq, batch.dq));
    EXPECT_TRUE(same_bits(alone.dkv, batch.dkv));
    EXPECT_TRUE(same_bits(alone.dk_rope, batch.dk_rope));
  }
}

TEST_P(AttentionTest, LaterKeysAreNotSeen) {
  AttentionBatch<float> b({{1, 16, 16, 16}, spans_of({{80, 80}})}, 11), other(b.shape, 11);
  for (int row = 40; row < 80; ++row) {
    std::fill_n(other.kv.row(row), other.kv.cols(), 1e30f);
    std::fill_n(other.k_rope.row(row), other.k_rope.cols(), 1e30f);
  }
  attention(context(), b.forward());
  attention(context(), other.forward());
  for (int row = 0; row < 40; ++row) {
    for (int c = 0; c < 16; ++c) ASSERT_EQ(b.out.at(row, c), other.out.at(row, c)) << row;
  }
  EXPECT_NE(b.out.at(40, 0), other.out.at(40, 0));
}

TEST_P(AttentionTest, LseIsOptionalAndViewsMayBeStrided) {
  const AttentionShape shape{{2, 5, 3, 7}, spans_of({{20, 20}})};
  AttentionBatch<float> b(shape, 13);
  attention(context(), b.forward());
  Mat<float> wide(20, 50);
  Attention<float> a = b.forward();
  a.lse = {};
  a.out = wide.view().sub_cols(3, 14);
  attention(context(), a);
  for (int row = 0; row < 20; ++row) {
    for (int c = 0; c < 50; ++c) {
      const bool inside = c >= 3 && c < 17;
      ASSERT_EQ(wide.at(row, c), inside ? b.out.at(row, c - 3) : 0.0f) << row << ", " << c;
    }
  }
}

TEST_P(AttentionTest, WrongShapesAreNamed) {
  const auto error = [&](auto&& change) -> std::string {
    AttentionBatch<float> b({{2, 4, 2, 3}, spans_of({{3, 3}, {2, 2}})}, 1);
    Attention<float> a = b.forward();
    std::vector<AttentionSpan> spans = b.shape.spans;
    change(a, spans);
    a.spans = spans;
    try {
      attention(context(), a);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kShape);
      return e.what();
    }
    return "";
  };
  using ::testing::HasSubstr;
  EXPECT_EQ(error([](auto&, auto&) {}), "");
  EXPECT_THAT(error([](auto& a, auto&) { a.q = a.q.sub_cols(0, 11); }),
              HasSubstr("q is [5, 11] but has to be [5, 12]"));
  EXPECT_THAT(error([](auto& a, auto&) { a.k_rope = a.k_rope.sub_rows(0, 4); }),
              HasSubstr("k_rope is [4, 2] but has to be [5, 2]"));
  EXPECT_THAT(error([](auto&, auto& s) { s[1].q_begin = 4; }), HasSubstr("span 1 has 2 queries"));
  EXPECT_THAT(error([](auto&, auto& s) { s[1].kv_begin = -1; }), HasSubstr("span 1 has 2 keys"));
  EXPECT_THAT(error([](auto&, auto& s) { s[1].kv_rows = 1; }), HasSubstr("at least as many keys"));
  EXPECT_THAT(error([](auto&, auto& s) { s[1].q_rows = 1, s[1].kv_begin = 2; }),
              HasSubstr("two spans share row 2"));
  EXPECT_THAT(error([](auto& a, auto&) { a.dims.value = 0; }), HasSubstr("have to be positive"));
  EXPECT_THAT(error([](auto& a, auto&) { a.scale = 0; }), HasSubstr("scale is 0"));
}

// The gradient in double, of sequences with as many and with more keys than queries.
TEST(AttentionGradientTest, FiniteDifferences) {
  const Context ctx;
  for (const AttentionShape& shape : std::vector<AttentionShape>{
           {{1, 1, 1, 1}, spans_of({{1, 1}})},
           {{2, 3, 2, 5}, spans_of({{4, 4}, {1, 1}, {6, 6}})},
           {{3, 4, 0, 2}, spans_of({{2, 5}, {3, 3}})},
           {{1, 0, 4, 3}, spans_of({{5, 5}})},
       }) {
    SCOPED_TRACE(label(shape, Precision::kF32));
    AttentionBatch<double> b(shape, 17);
    const auto loss = [&] {
      attention_ref(ctx, b.forward());
      return testing::dot<double>(b.out.span(), b.dout.span());
    };
    loss();
    attention_backward_ref(ctx, b.backward());
    testing::expect_gradient("dq", loss, b.q.span(), b.dq.span());
    testing::expect_gradient("dkv", loss, b.kv.span(), b.dkv.span());
    testing::expect_gradient("dk_rope", loss, b.k_rope.span(), b.dk_rope.span());
  }
}

}  // namespace
}  // namespace cachalot
