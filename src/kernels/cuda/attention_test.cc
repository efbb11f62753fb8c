#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "kernels/attention_case_test.h"  // uses GoogleTest
#include "kernels/cuda/cuda_case_test.h"

namespace cachalot::cuda {
namespace {

using ::cachalot::testing::AttentionShape;
using ::cachalot::testing::spans_of;
using testing::CudaTest;
using testing::random_mat;
using testing::relative_error;

constexpr AttentionDims kWide{2, 128, 64, 128}, kNarrow{3, 64, 32, 64};

enum class From { kFloats, kBf16 };

struct Setting {
  Precision precision = Precision::kBF16;
  From from = From::kBf16;
  bool lse = true;
  int gap = 0;  // extra columns of every row: strides
};

// ||got - want|| <= bound ||want||, over rows and columns; says where it is worst otherwise.
void expect_close(const std::string& what, const Mat<float>& got, const Mat<float>& want,
                  int col_begin, int cols, double bound) {
  double difference = 0, size = 0, worst = -1;
  int row = 0, col = 0, first_row = -1, first_col = -1, wrong = 0;
  const double typical = [&] {
    double sum = 0;
    for (std::size_t i = 0; i < want.size(); ++i) sum += double{want.data()[i]} * want.data()[i];
    return std::sqrt(sum / std::max<double>(1, static_cast<double>(want.size())));
  }();
  for (int i = 0; i < want.rows(); ++i) {
    for (int j = col_begin; j < col_begin + cols; ++j) {
      const double d = double{got.at(i, j)} - double{want.at(i, j)};
      difference += d * d;
      size += double{want.at(i, j)} * double{want.at(i, j)};
      const double a = std::isnan(d) ? INFINITY : std::abs(d);
      if (a > 20 * bound * typical) {
        ++wrong;
        if (first_row < 0) first_row = i, first_col = j;
      }
      if (a > worst) worst = a, row = i, col = j;
    }
  }
  const double error = std::sqrt(difference) / std::max(std::sqrt(size), 1e-30);
  if (error <= bound) return;
  if (first_row < 0) first_row = row, first_col = col;
  ADD_FAILURE() << what << " [" << want.rows() << ", " << want.cols() << "] cols " << col_begin
                << "+" << cols << ": relative error " << error << " > " << bound << "; " << wrong
                << " far off, first (" << first_row << ", " << first_col << ") got "
                << got.at(first_row, first_col) << " want " << want.at(first_row, first_col)
                << "; worst (" << row << ", " << col << ") got " << got.at(row, col) << " want "
                << want.at(row, col);
}

Mat<Bf16> nans(int rows, int cols) {
  Mat<Bf16> m(rows, cols);
  for (std::size_t i = 0; i < m.size(); ++i) m.data()[i].bits = 0xFFFF;
  return m;
}

class CudaAttentionTest : public CudaTest {
 protected:
  // Operands on the host, and on the device inside wider matrices.
  struct Batch {
    AttentionShape shape;
    Setting setting;
    Mat<float> q, kv, k_rope, dout, out, lse;
    Mat<float> d_q, d_kv, d_k_rope, d_dout, d_out, d_lse;
    Mat<Bf16> q_bf16, kv_bf16, d_q_bf16, d_kv_bf16;
    float scale = 0;
  };

  template <class T>
  Mat<T> widened(const Mat<T>& m, int gap) {
    Mat<T> wide(m.rows(), m.cols() + gap);
    for (int i = 0; i < m.rows(); ++i) std::copy_n(m.row(i), m.cols(), wide.row(i));
    return up(wide);
  }
  template <class T>
  static MatView<T> narrow(Mat<T>& m, int cols) {
    return m.view().sub_cols(0, cols);
  }

  Batch batch(AttentionShape shape, Setting setting, std::uint64_t seed) {
    Batch b{
        std::move(shape), setting, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}};
    const AttentionDims& d = b.shape.dims;
    const int t = b.shape.q_rows(), s = b.shape.kv_rows();
    b.scale = 1.3f / std::sqrt(static_cast<float>(d.nope + d.rope));
    b.q = random_mat(t, d.heads * (d.nope + d.rope), seed);
    b.kv = random_mat(s, d.heads * (d.nope + d.value), seed + 1);
    b.k_rope = random_mat(s, d.rope, seed + 2);
    b.dout = random_mat(t, d.heads * d.value, seed + 3);
    b.d_k_rope = widened(b.k_rope, setting.gap + 4);
    b.d_dout = widened(b.dout, setting.gap);
    if (setting.from == From::kBf16) {
      b.q_bf16 = testing::to_bf16(b.q);
      b.kv_bf16 = testing::to_bf16(b.kv);
      b.d_q_bf16 = widened(b.q_bf16, setting.gap);
      b.d_kv_bf16 = widened(b.kv_bf16, setting.gap);
    } else {
      b.d_q = widened(b.q, setting.gap);
      b.d_kv = widened(b.kv, setting.gap);
    }
    return b;
  }

  static MatView<const float> shape_alone(const Mat<float>& m) {
    return {nullptr, m.rows(), m.cols(), m.cols()};
  }

  void run_forward(Batch& b, MatView<float> out, MatView<float> lse) {
    const bool bf16 = b.setting.from == From::kBf16;
    Attention<float> a{bf16 ? shape_alone(b.q) : narrow(b.d_q, b.q.cols()),
                       bf16 ? shape_alone(b.kv) : narrow(b.d_kv, b.kv.cols()),
                       narrow(b.d_k_rope, b.k_rope.cols()),
                       b.shape.spans,
                       b.shape.dims,
                       b.scale,
                       b.setting.precision,
                       out,
                       lse};
    if (bf16) a.q_bf16 = narrow(b.d_q_bf16, b.q.cols());
    if (bf16) a.kv_bf16 = narrow(b.d_kv_bf16, b.kv.cols());
    attention(ctx, a);
  }

  void reference(Batch& b) {
    b.out = Mat<float>(b.q.rows(), b.dout.cols());
    b.lse = Mat<float>(b.q.rows(), b.shape.dims.heads);
    Attention<float> a{b.q.cview(),         b.kv.cview(), b.k_rope.cview(),
                       b.shape.spans,       b.shape.dims, b.scale,
                       b.setting.precision, b.out.view(), b.lse.view()};
    if (b.setting.from == From::kBf16) {
      a.q_bf16 = b.q_bf16.cview();
      a.kv_bf16 = b.kv_bf16.cview();
    }
    attention_ref(host, a);
  }

  static double bound(const Batch& b) {
    return b.setting.precision == Precision::kBF16 ? 1e-2 : 1e-5;
  }

  void check_forward(const std::string& name, AttentionShape shape, Setting setting) {
    SCOPED_TRACE(name);
    Batch b = batch(std::move(shape), setting, 11);
    reference(b);
    Mat<float> out = room<float>(b.q.rows(), b.out.cols() + setting.gap);
    Mat<float> lse = room<float>(b.q.rows(), b.shape.dims.heads + setting.gap);
    run_forward(b, narrow(out, b.out.cols()),
                setting.lse ? narrow(lse, b.shape.dims.heads) : MatView<float>{});
    compare(name + ": out", down(out), b.out, 0, b.out.cols(), bound(b));
    if (setting.lse) compare(name + ": lse", down(lse), b.lse, 0, b.lse.cols(), bound(b) / 20);
  }

  // `got` may be wider than `want`.
  static void compare(const std::string& what, const Mat<float>& got, const Mat<float>& want,
                      int col_begin, int cols, double bound) {
    Mat<float> same(want.rows(), want.cols());
    for (int i = 0; i < want.rows(); ++i) std::copy_n(got.row(i), want.cols(), same.row(i));
    expect_close(what, same, want, col_begin, cols, bound);
  }

  struct Gradients {
    Mat<float> dq, dkv, dk_rope;
  };
  Gradients run_backward(Batch& b, const Mat<float>& out, const Mat<float>& lse) {
    const bool bf16 = b.setting.from == From::kBf16;
    const int gap = b.setting.gap;
    Mat<float> dq = room<float>(b.q.rows(), b.q.cols() + gap);
    Mat<float> dkv = room<float>(b.kv.rows(), b.kv.cols() + gap);
    Mat<float> dk_rope = room<float>(b.kv.rows(), b.k_rope.cols() + gap);
    AttentionBackward<float> a{bf16 ? shape_alone(b.q) : narrow(b.d_q, b.q.cols()),
                               bf16 ? shape_alone(b.kv) : narrow(b.d_kv, b.kv.cols()),
                               narrow(b.d_k_rope, b.k_rope.cols()),
                               b.shape.spans,
                               b.shape.dims,
                               b.scale,
                               b.setting.precision,
                               out.cview(),
                               lse.cview(),
                               narrow(b.d_dout, b.dout.cols()),
                               narrow(dq, b.q.cols()),
                               narrow(dkv, b.kv.cols()),
                               narrow(dk_rope, b.k_rope.cols())};
    if (bf16) a.q_bf16 = narrow(b.d_q_bf16, b.q.cols());
    if (bf16) a.kv_bf16 = narrow(b.d_kv_bf16, b.kv.cols());
    attention_backward(ctx, a);
    return {down(dq), down(dkv), down(dk_rope)};
  }

  void check_backward(const std::string& name, AttentionShape shape, Setting setting) {
    SCOPED_TRACE(name);
    Batch b = batch(std::move(shape), setting, 21);
    reference(b);
    const AttentionDims& d = b.shape.dims;
    Mat<float> dq(b.q.rows(), b.q.cols()), dkv(b.kv.rows(), b.kv.cols()),
        dk_rope(b.kv.rows(), b.k_rope.cols());
    AttentionBackward<float> a{
        b.q.cview(), b.kv.cview(),      b.k_rope.cview(), b.shape.spans, d,
        b.scale,     setting.precision, b.out.cview(),    b.lse.cview(), b.dout.cview(),
        dq.view(),   dkv.view(),        dk_rope.view()};
    if (setting.from == From::kBf16) {
      a.q_bf16 = b.q_bf16.cview();
      a.kv_bf16 = b.kv_bf16.cview();
    }
    attention_backward_ref(host, a);
    const Gradients g = run_backward(b, up(b.out), up(b.lse));
    const double limit = setting.precision == Precision::kBF16 ? 1e-2 : 2e-5;
    compare(name + ": dq", g.dq, dq, 0, dq.cols(), limit);
    for (int h = 0; h < d.heads; ++h) {
      const int at = h * (d.nope + d.value);
      compare(name + ": dk nope", g.dkv, dkv, at, d.nope, limit);
      compare(name + ": dv", g.dkv, dkv, at + d.nope, d.value, limit);
    }
    compare(name + ": dk rope", g.dk_rope, dk_rope, 0, dk_rope.cols(), limit);
  }

  void compare_precisions(const AttentionShape& shape) {
    const AttentionDims& d = shape.dims;
    Batch b = batch(shape, {}, 31), slow = batch(shape, {Precision::kF32}, 31);
    const int rows = b.q.rows(), width = b.dout.cols();
    Mat<float> out = room<float>(rows, width), lse = room<float>(rows, d.heads);
    Mat<float> out_slow = room<float>(rows, width), lse_slow = room<float>(rows, d.heads);
    run_forward(b, out.view(), lse.view());
    run_forward(slow, out_slow.view(), lse_slow.view());
    expect_close("out", down(out), down(out_slow), 0, width, 1e-2);
    expect_close("lse", down(lse), down(lse_slow), 0, d.heads, 1e-3);
    const Gradients g = run_backward(b, out, lse), g_slow = run_backward(slow, out_slow, lse_slow);
    expect_close("dq", g.dq, g_slow.dq, 0, g.dq.cols(), 2e-2);
    for (int h = 0; h < d.heads; ++h) {
      const int at = h * (d.nope + d.value);
      expect_close("dk", g.dkv, g_slow.dkv, at, d.nope, 2e-2);
      expect_close("dv", g.dkv, g_slow.dkv, at + d.nope, d.value, 2e-2);
    }
    expect_close("dk_rope", g.dk_rope, g_slow.dk_rope, 0, d.rope, 2e-2);
  }

  void check_both(const std::string& name, const AttentionShape& shape, Setting setting) {
    check_forward(name, shape, setting);
    check_backward(name, shape, setting);
  }
};

TEST_F(CudaAttentionTest, OneTile) {
  check_forward("64", {kWide, spans_of({{64, 64}})}, {});
  check_forward("128", {kWide, spans_of({{128, 128}})}, {});
}

TEST_F(CudaAttentionTest, ForwardWide) {
  check_forward("1", {kWide, spans_of({{1, 1}})}, {});
  check_forward("129", {kWide, spans_of({{129, 129}})}, {});
  check_forward("256", {kWide, spans_of({{256, 256}})}, {});
  check_forward("ragged", {kWide, spans_of({{200, 333}, {1, 5}, {127, 127}, {0, 40}, {65, 192}})},
                {});
  check_forward("floats", {kWide, spans_of({{100, 300}})}, {Precision::kBF16, From::kFloats});
  check_forward("no lse", {kWide, spans_of({{140, 140}})}, {Precision::kBF16, From::kBf16, false});
  check_forward("odd strides", {kWide, spans_of({{70, 170}})},
                {Precision::kBF16, From::kBf16, true, 3});
  check_forward("even strides", {kWide, spans_of({{70, 170}})},
                {Precision::kBF16, From::kBf16, true, 8});
}

TEST_F(CudaAttentionTest, ForwardNarrowAndPadded) {
  check_forward("narrow", {kNarrow, spans_of({{300, 300}, {50, 200}})}, {});
  check_forward("small", {{2, 16, 8, 16}, spans_of({{130, 260}})}, {});
  check_forward("small floats", {{2, 16, 8, 24}, spans_of({{130, 260}})},
                {Precision::kBF16, From::kFloats});
  check_forward("odd", {{3, 13, 6, 7}, spans_of({{33, 140}, {5, 5}})},
                {Precision::kBF16, From::kFloats});
  check_forward("between", {{2, 96, 64, 80}, spans_of({{150, 150}})}, {});
}

TEST_F(CudaAttentionTest, ForwardOther) {
  check_forward("f32", {kWide, spans_of({{60, 100}, {33, 33}})}, {Precision::kF32, From::kFloats});
  check_forward("f32 bf16", {kNarrow, spans_of({{60, 100}})}, {Precision::kF32, From::kBf16});
  check_forward("f32 odd", {{3, 5, 2, 3}, spans_of({{60, 100}, {7, 7}})},
                {Precision::kF32, From::kFloats, true, 1});
  check_forward("no rope", {{2, 24, 0, 16}, spans_of({{60, 100}})},
                {Precision::kF32, From::kFloats});
  check_forward("large heads", {{1, 200, 64, 130}, spans_of({{60, 100}})}, {});
}

TEST_F(CudaAttentionTest, BackwardWide) {
  check_backward("64", {kWide, spans_of({{64, 64}})}, {});
  check_backward("128", {kWide, spans_of({{128, 128}})}, {});
  check_backward("1", {kWide, spans_of({{1, 1}})}, {});
  check_backward("256", {kWide, spans_of({{256, 256}})}, {});
  check_backward("ragged", {kWide, spans_of({{200, 333}, {1, 5}, {127, 127}, {0, 40}, {65, 192}})},
                 {});
  check_backward("floats", {kWide, spans_of({{100, 230}})}, {Precision::kBF16, From::kFloats});
  check_backward("odd strides", {kWide, spans_of({{70, 170}})},
                 {Precision::kBF16, From::kBf16, true, 3});
  check_backward("even strides", {kWide, spans_of({{70, 170}})},
                 {Precision::kBF16, From::kBf16, true, 8});
}

TEST_F(CudaAttentionTest, BackwardNarrowAndPadded) {
  check_backward("narrow", {kNarrow, spans_of({{300, 300}, {50, 200}})}, {});
  check_backward("small", {{2, 16, 8, 16}, spans_of({{130, 260}})}, {});
  check_backward("odd", {{3, 13, 6, 7}, spans_of({{33, 140}, {5, 5}})},
                 {Precision::kBF16, From::kFloats});
  check_backward("between", {{2, 96, 64, 80}, spans_of({{150, 150}})}, {});
}

TEST_F(CudaAttentionTest, BackwardOther) {
  check_backward("f32", {kWide, spans_of({{60, 100}, {33, 33}})}, {Precision::kF32, From::kFloats});
  check_backward("f32 odd", {{3, 5, 2, 3}, spans_of({{60, 100}, {0, 9}, {7, 7}})},
                 {Precision::kF32, From::kFloats, true, 1});
  check_backward("no rope", {{2, 24, 0, 16}, spans_of({{60, 100}})},
                 {Precision::kF32, From::kFloats});
  check_backward("large heads", {{1, 200, 64, 130}, spans_of({{60, 100}})}, {});
}

// The larger problems: many tiles per sequence, many per processor. Both precisions of this device
// against each other.
TEST_F(CudaAttentionTest, LongSequences) {
  compare_precisions({{2, 128, 64, 128}, spans_of({{1500, 1500}, {300, 1111}})});
}

TEST_F(CudaAttentionTest, ManySequences) {
  std::vector<std::pair<int, int>> sizes;
  for (int i = 0; i < 60; ++i) {
    const int q = i % 9 == 4 ? 0 : i * 37 % 200 + 1;
    sizes.emplace_back(q, q + i * 53 % 150);
  }
  compare_precisions({{3, 128, 64, 128}, spans_of(sizes)});
  compare_precisions({{3, 64, 32, 64}, spans_of(sizes)});
}

// A prompt cut into chunks, and what lies around a sequence, change no bit of a row's result.
TEST_F(CudaAttentionTest, ChunksAreTheWhole) {
  for (const AttentionDims& d : {kWide, kNarrow}) {
    Batch b = batch({d, spans_of({{333, 333}})}, {}, 41);
    Mat<float> whole = room<float>(333, b.dout.cols()), lse = room<float>(333, d.heads);
    run_forward(b, whole.view(), lse.view());
    for (const auto& [begin, rows] : {std::pair{0, 100}, {100, 1}, {101, 200}, {301, 32}}) {
      Batch part = batch({d, spans_of({{333, 333}})}, {}, 41);
      part.shape.spans = {{begin, rows, 0, begin + rows}};
      const Mat<Bf16> poison = nans(333 - begin - rows, b.kv.cols());
      if (poison.rows() > 0) {  // keys of nobody behind this sequence's
        device_->upload(part.d_kv_bf16.row(begin + rows), poison.data(),
                        poison.size() * sizeof(Bf16));
      }
      Mat<float> out = room<float>(333, b.dout.cols()), part_lse = room<float>(333, d.heads);
      run_forward(part, out.view(), part_lse.view());
      const Mat<float> got = down(out), want = down(whole), got_lse = down(part_lse),
                       want_lse = down(lse);
      int different = 0, lse_different = 0, touched = 0;
      for (int i = 0; i < 333; ++i) {
        const bool inside = i >= begin && i < begin + rows;
        for (int c = 0; c < got.cols(); ++c) {
          if (inside) different += std::memcmp(&got.at(i, c), &want.at(i, c), 4) != 0;
          if (!inside) touched += !std::isnan(got.at(i, c));
        }
        for (int c = 0; c < d.heads && inside; ++c) {
          lse_different += got_lse.at(i, c) != want_lse.at(i, c);
        }
      }
      EXPECT_EQ(different, 0) << "chunk at " << begin << " of " << rows;
      EXPECT_EQ(lse_different, 0) << "chunk at " << begin << " of " << rows;
      EXPECT_EQ(touched, 0) << "rows of no span, chunk at " << begin << " of " << rows;
    }
  }
}

// Rows of no span around the spans are neither read into results nor written; twice is the same.
TEST_F(CudaAttentionTest, GapsAndRepeats) {
  for (const AttentionDims& d : {kWide, kNarrow}) {
    AttentionShape shape{d, {{3, 70, 9, 150}, {90, 130, 201, 130}}};
    Batch clean = batch(shape, {}, 51);
    reference(clean);
    Batch b = batch(shape, {}, 51);
    const auto in_span = [&](int row, bool keys) {
      for (const AttentionSpan& s : shape.spans) {
        const int begin = keys ? s.kv_begin : s.q_begin, rows = keys ? s.kv_rows : s.q_rows;
        if (row >= begin && row < begin + rows) return true;
      }
      return false;
    };
    const Mat<Bf16> bad_q = nans(1, b.q.cols()), bad_kv = nans(1, b.kv.cols());
    for (int i = 0; i < b.q.rows(); ++i) {
      if (in_span(i, false)) continue;
      device_->upload(b.d_q_bf16.row(i), bad_q.data(), bad_q.size() * sizeof(Bf16));
      for (int c = 0; c < b.out.cols(); ++c) clean.out.at(i, c) = NAN;
    }
    for (int i = 0; i < b.kv.rows(); ++i) {
      if (in_span(i, true)) continue;
      device_->upload(b.d_kv_bf16.row(i), bad_kv.data(), bad_kv.size() * sizeof(Bf16));
    }
    Mat<float> out = up(clean.out), lse = up(clean.lse);
    const Gradients first = run_backward(b, out, lse), second = run_backward(b, out, lse);
    const auto look = [&](const char* what, const Mat<float>& x, const Mat<float>& y, bool keys) {
      int bad = 0, touched = 0, different = 0, at = -1;
      for (int i = 0; i < x.rows(); ++i) {
        for (int c = 0; c < x.cols(); ++c) {
          const bool inside = in_span(i, keys);
          if (inside && !std::isfinite(x.at(i, c)) && ++bad == 1) at = i * x.cols() + c;
          touched += !inside && !std::isnan(x.at(i, c));
          different += std::memcmp(&x.at(i, c), &y.at(i, c), 4) != 0;
        }
      }
      EXPECT_EQ(bad, 0) << what << " not finite, first at " << at << " of " << x.cols();
      EXPECT_EQ(touched, 0) << what << ": rows of no span";
      EXPECT_EQ(different, 0) << what << " is not the same twice";
    };
    look("dq", first.dq, second.dq, false);
    look("dkv", first.dkv, second.dkv, true);
    look("dk_rope", first.dk_rope, second.dk_rope, true);
  }
}

TEST_F(CudaAttentionTest, Nothing) {
  check_both("no spans", {kWide, {}}, {});
  check_both("no rows", {kWide, {{0, 0, 0, 0}}}, {});
  check_forward("keys alone", {kWide, {{0, 0, 0, 30}}}, {});
}

}  // namespace
}  // namespace cachalot::cuda
