// Fused ops against the ops they are made of: bit by bit against this table's own quantising of the
// values in between, and within the values' own accuracy against the reference.
#include "kernels/cuda/fp8.cuh"
#include "kernels/cuda/fp8_case_test.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/swiglu.cuh"
#include "kernels/fp8_fused.h"

namespace cachalot::cuda {
namespace {

using numeric::ScaleKind;
using testing::Codes;
using testing::expect_same;
using testing::expect_transposed;
using testing::Fp8CudaTest;
using testing::random_mat;
using testing::transposed;

class CudaFp8FusedTest : public Fp8CudaTest {
 protected:
  Codes quantized(const Mat<float>& x, ScaleKind kind, ScaleTile tile) {
    Codes c = device_codes(x.rows(), x.cols(), tile);
    const QuantizeFp8 job{x.cview(), kind, c.out()};
    cuda::quantize_fp8(ctx, std::span(&job, 1));
    return c;
  }
  Codes downloaded(const Codes& c) {
    return {down(c.codes), down(c.scales), c.rows, c.cols, c.tile};
  }
  Mat<float> values(Codes& c) {  // on the host
    Mat<float> x = room<float>(c.rows, c.cols);
    cuda::dequantize_fp8(ctx, {c.view(), x.view(), {}});
    return down(x);
  }
  void expect_device_codes(const Codes& got, const Codes& want, const std::string& what) {
    expect_codes(got, downloaded(want), what);
  }
};

// E4M3 has 4 bits: half a step is 2^-4 of a value; a value next to a middle may take either code.
constexpr double kOneCode = 1.0 / 14;

// Dequantised values: equal to the reference's but for few that took the neighbouring code.
void expect_near(const Mat<float>& got, const Mat<float>& want, const std::string& what) {
  int other = 0;
  double largest = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    largest = std::max(largest, std::fabs(double{want.data()[i]}));
  }
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double g = got.data()[i], w = want.data()[i];
    if (g == w) continue;
    ++other;
    if (!(std::fabs(g - w) <= 2 * kOneCode * std::fabs(w) + largest * 0x1p-14)) {
      ADD_FAILURE() << what << " [" << want.rows() << ", " << want.cols() << "] at "
                    << i / static_cast<std::size_t>(want.cols()) << ", "
                    << i % static_cast<std::size_t>(want.cols()) << ": " << g << " instead of "
                    << w;
      return;
    }
  }
  EXPECT_LE(other, 3 + static_cast<int>(want.size() / 200)) << what;
}

TEST_F(CudaFp8FusedTest, NormOfEveryWidth) {
  for (const int cols : {1, 17, 127, 128, 129, 512, 700, 2048, 7168, 8200, 16500}) {
    const int rows = cols > 4000 ? 9 : 150;
    const Mat<float> x = random_mat(rows, cols, 1), weight = random_mat(1, cols, 2);
    const Mat<float> dx = up(x), dweight = up(weight);
    for (const ScaleKind kind : {ScaleKind::kPow2, ScaleKind::kPlain}) {
      Mat<float> y = room<float>(rows, cols), rstd = room<float>(1, rows);
      Codes got = device_codes(rows, cols, ScaleTile::kRow, 4),
            other = device_codes(rows, cols, ScaleTile::kRow);
      cuda::rms_norm_fp8(
          ctx, {{dx.cview(), dweight.span(), 1e-6f, y.view(), rstd.span()}, kind, got.out()});
      cuda::rms_norm_fp8(ctx, {{dx.cview(), dweight.span(), 1e-6f, {}, {}}, kind, other.out()});
      const std::string what = "norm of " + std::to_string(cols);
      Codes want = quantized(y, kind, ScaleTile::kRow);
      expect_device_codes(got, want, what + " with y");
      expect_device_codes(other, want, what);
      Mat<float> want_y(rows, cols), want_rstd(1, rows);
      rms_norm_ref<float>(host, {x.cview(), weight.span(), 1e-6f, want_y.view(), want_rstd.span()});
      const Mat<float> host_y = down(y), host_rstd = down(rstd);
      EXPECT_LE(testing::relative_error(host_rstd, want_rstd), 3e-7) << what;
      EXPECT_LE(testing::relative_error(host_y, want_y), 3e-7) << what;
      if (HasFailure()) return;
    }
  }
}

// The value in between, by the same device functions.
__global__ void gate_all(const float* gate, const float* up, float* out, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) out[i] = gated(gate[i], up[i]);
}
__global__ void gate_all_backward(const float* gate, const float* up, const float* dout,
                                  const float* weight, int cols, float* dgate, float* dup,
                                  float* hidden, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  const float w = weight != nullptr ? weight[i / cols] : 1.0f;
  const GatedBackward b = gated_backward(gate[i], up[i], __fmul_rn(dout[i], w));
  dgate[i] = b.dgate;
  dup[i] = b.dup;
  hidden[i] = __fmul_rn(b.hidden, w);
}

TEST_F(CudaFp8FusedTest, GatedIsAccurate) {
  Mat<float> gate(1, 4001), up_(1, 4001), want(1, 4001);
  for (int i = 0; i < 4001; ++i) {
    gate.data()[i] = static_cast<float>(i - 2000) * 0.05f;
    up_.data()[i] = 1 + static_cast<float>(i % 7);
  }
  swiglu_ref<float>(host, {gate.cview(), up_.cview(), want.view()});
  const Mat<float> dgate = up(gate), dup = up(up_);
  Mat<float> out = room<float>(1, 4001);
  gate_all<<<16, 256, 0, stream_of(ctx)>>>(dgate.data(), dup.data(), out.data(), 4001);
  const Mat<float> got = down(out);
  for (int i = 0; i < 4001; ++i) {
    const double w = want.data()[i],
                 bound = (6e-7 + std::fabs(gate.data()[i]) * 0x1p-24) * std::fabs(w) + 1e-35;
    ASSERT_NEAR(got.data()[i], w, bound) << "gate " << gate.data()[i];
  }
}

TEST_F(CudaFp8FusedTest, SwigluOfFloats) {
  const std::pair<int, int> shapes[] = {{1, 1}, {3, 17}, {128, 128}, {150, 300}, {260, 700}};
  for (const auto& [rows, cols] : shapes) {
    const Mat<float> gate = random_mat(rows, cols, 3, 2), up_ = random_mat(rows, cols, 4);
    const Mat<float> dgate = up(gate), dup = up(up_);
    Mat<float> hidden = room<float>(rows, cols);
    gate_all<<<ceil_div(rows * cols, 256), 256, 0, stream_of(ctx)>>>(dgate.data(), dup.data(),
                                                                     hidden.data(), rows * cols);
    for (const ScaleTile tile :
         {ScaleTile::kRow, ScaleTile::kColumn, ScaleTile::kBlock, ScaleTile::kTensor}) {
      const ScaleKind kind = rows == 3 ? ScaleKind::kPlain : ScaleKind::kPow2;
      Codes got = device_codes(rows, cols, tile),
            also = device_codes(rows, cols, ScaleTile::kColumn);
      const SwigluFp8 a{dgate.cview(), dup.cview(), {}, {}, kind, got.out(), also.out()};
      cuda::swiglu_fp8(ctx, std::span(&a, 1));
      expect_device_codes(got, quantized(hidden, kind, tile), "swiglu");
      expect_device_codes(also, quantized(hidden, kind, ScaleTile::kColumn), "swiglu also");
      Codes want = host_codes(rows, cols, tile);
      const SwigluFp8 ref{gate.cview(), up_.cview(), {}, {}, kind, want.out()};
      swiglu_fp8_ref(host, std::span(&ref, 1));
      Mat<float> want_values(rows, cols);
      dequantize_fp8_ref(host, {want.view(), want_values.view(), {}});
      if (kind == ScaleKind::kPow2) expect_near(values(got), want_values, "swiglu, reference");
    }
    for (const ScaleKind keep : {ScaleKind::kPow2, ScaleKind::kPlain}) {
      Codes got = device_codes(rows, cols, ScaleTile::kRow),
            keep_gate = device_codes(rows, cols, ScaleTile::kRow),
            keep_up = device_codes(rows, cols, ScaleTile::kRow);
      SwigluFp8 a{dgate.cview(), dup.cview(), {}, {}, ScaleKind::kPow2, got.out()};
      a.keep_gate = keep_gate.out();
      a.keep_up = keep_up.out();
      a.keep_kind = keep;
      cuda::swiglu_fp8(ctx, std::span(&a, 1));
      expect_device_codes(got, quantized(hidden, ScaleKind::kPow2, ScaleTile::kRow), "keeping");
      expect_device_codes(keep_gate, quantized(dgate, keep, ScaleTile::kRow), "kept gate");
      expect_device_codes(keep_up, quantized(dup, keep, ScaleTile::kRow), "kept up");
    }
    if (HasFailure()) return;
  }
}

TEST_F(CudaFp8FusedTest, SwigluOfCodes) {
  const std::pair<int, int> shapes[] = {{1, 1}, {3, 17}, {150, 300}};
  for (const auto& [rows, cols] : shapes) {
    Codes gate = quantized(up(random_mat(rows, cols, 3, 2)), ScaleKind::kPow2, ScaleTile::kRow),
          up_ = quantized(up(random_mat(rows, cols, 4)), ScaleKind::kPlain, ScaleTile::kRow);
    Mat<float> g = room<float>(rows, cols), u = room<float>(rows, cols),
               hidden = room<float>(rows, cols);
    cuda::dequantize_fp8(ctx, {gate.view(), g.view(), {}});
    cuda::dequantize_fp8(ctx, {up_.view(), u.view(), {}});
    gate_all<<<ceil_div(rows * cols, 256), 256, 0, stream_of(ctx)>>>(g.data(), u.data(),
                                                                     hidden.data(), rows * cols);
    for (const ScaleTile tile : {ScaleTile::kRow, ScaleTile::kColumn, ScaleTile::kTensor}) {
      Codes got = device_codes(rows, cols, tile);
      const SwigluFp8 a{{}, {}, gate.view(), up_.view(), ScaleKind::kPow2, got.out()};
      cuda::swiglu_fp8(ctx, std::span(&a, 1));
      expect_device_codes(got, quantized(hidden, ScaleKind::kPow2, tile), "swiglu of codes");
    }
    if (HasFailure()) return;
  }
}

// bf16 give what the same numbers as floats give.
TEST_F(CudaFp8FusedTest, Bf16Operands) {
  const std::pair<int, int> shapes[] = {{1, 1}, {3, 17}, {128, 128}, {150, 304}, {260, 700}};
  for (const auto& [rows, cols] : shapes) {
    // Gate and up side by side, as one product writes them.
    const Mat<float> both = random_mat(rows, 2 * cols, 3, 2), dout = random_mat(rows, cols, 7);
    Mat<Bf16> both_bf16 = room<Bf16>(rows, 2 * cols), dout_bf16 = room<Bf16>(rows, cols);
    Mat<float> values = up(both), dvalues = up(dout);
    cuda::store_bf16(ctx, values.cview(), both_bf16.view());
    cuda::store_bf16(ctx, dvalues.cview(), dout_bf16.view());
    cuda::load_bf16(ctx, both_bf16.cview(), values.view());
    cuda::load_bf16(ctx, dout_bf16.cview(), dvalues.view());
    Codes got[2][3], back[2][5];
    Mat<float> dweight[2];
    const Mat<float> weight = up(random_mat(1, rows, 8));
    for (int turn = 0; turn < 2; ++turn) {
      for (Codes& c : got[turn]) c = device_codes(rows, cols, ScaleTile::kRow);
      for (int e = 0; e < 5; ++e) {
        back[turn][e] = device_codes(rows, cols, e < 2 ? ScaleTile::kRow : ScaleTile::kColumn);
      }
      dweight[turn] = room<float>(1, rows);
      SwigluFp8 a{values.cview().sub_cols(0, cols),
                  values.cview().sub_cols(cols, cols),
                  {},
                  {},
                  ScaleKind::kPow2,
                  got[turn][0].out()};
      a.keep_gate = got[turn][1].out();
      a.keep_up = got[turn][2].out();
      SwigluBackwardFp8 b{got[0][1].view(),    got[0][2].view(),     dvalues.cview(),
                          weight.span(),       dweight[turn].span(), ScaleKind::kPow2,
                          back[turn][0].out(), back[turn][1].out(),  back[turn][2].out(),
                          back[turn][3].out(), back[turn][4].out()};
      if (turn == 1) {
        a.gate.data = a.up.data = b.dout.data = nullptr;
        a.gate_bf16 = both_bf16.cview().sub_cols(0, cols);
        a.up_bf16 = both_bf16.cview().sub_cols(cols, cols);
        b.dout_bf16 = dout_bf16.cview();
      }
      cuda::swiglu_fp8(ctx, std::span(&a, 1));
      cuda::swiglu_backward_fp8(ctx, std::span(&b, 1));
      if (turn == 0) continue;
      Mat<std::uint8_t> t[3];
      for (auto& m : t) m = room<std::uint8_t>(cols, (rows + 15) / 16 * 16);
      b.dgate_columns = transposed(b.dgate_columns, t[0]);
      b.dup_columns = transposed(b.dup_columns, t[1]);
      b.hidden_columns = transposed(b.hidden_columns, t[2]);
      cuda::swiglu_backward_fp8(ctx, std::span(&b, 1));
      for (int e = 0; e < 3; ++e) {
        expect_transposed(down(t[e]), downloaded(back[0][2 + e]), "bf16 transposed");
      }
    }
    for (int e = 0; e < 3; ++e) expect_device_codes(got[1][e], got[0][e], "bf16 forward");
    for (int e = 0; e < 5; ++e) expect_device_codes(back[1][e], back[0][e], "bf16 backward");
    expect_same(down(dweight[1]), down(dweight[0]), 1, rows, "dweight");
    if (HasFailure()) return;
  }
}

TEST_F(CudaFp8FusedTest, SwigluBackward) {
  const std::pair<int, int> shapes[] = {{1, 1}, {3, 17}, {128, 128}, {150, 300}, {260, 700}};
  for (const auto& [rows, cols] : shapes) {
    for (const bool weighted : {false, true}) {
      for (const ScaleKind kind : {ScaleKind::kPow2, ScaleKind::kPlain}) {
        const Mat<float> dout = random_mat(rows, cols, 7), weight = random_mat(1, rows, 8);
        const Mat<float> ddout = up(dout), dw = up(weight);
        Codes gate = quantized(up(random_mat(rows, cols, 3, 2)), ScaleKind::kPow2, ScaleTile::kRow),
              up_ = quantized(up(random_mat(rows, cols, 4)), ScaleKind::kPow2, ScaleTile::kRow);
        Mat<float> g = room<float>(rows, cols), u = room<float>(rows, cols);
        cuda::dequantize_fp8(ctx, {gate.view(), g.view(), {}});
        cuda::dequantize_fp8(ctx, {up_.view(), u.view(), {}});
        Mat<float> dgate = room<float>(rows, cols), dup = room<float>(rows, cols),
                   hidden = room<float>(rows, cols);
        gate_all_backward<<<ceil_div(rows * cols, 256), 256, 0, stream_of(ctx)>>>(
            g.data(), u.data(), ddout.data(), weighted ? dw.data() : nullptr, cols, dgate.data(),
            dup.data(), hidden.data(), rows * cols);

        Mat<float> dweight = room<float>(1, rows);
        Codes row_gate = device_codes(rows, cols, ScaleTile::kRow),
              row_up = device_codes(rows, cols, ScaleTile::kRow),
              col_gate = device_codes(rows, cols, ScaleTile::kColumn),
              col_up = device_codes(rows, cols, ScaleTile::kColumn),
              col_hidden = device_codes(rows, cols, ScaleTile::kColumn);
        SwigluBackwardFp8 a;
        a.gate = gate.view();
        a.up = up_.view();
        a.dout = ddout.cview();
        if (weighted) a.weight = dw.span();
        if (weighted) a.dweight = dweight.span();
        a.kind = kind;
        a.dgate = row_gate.out();
        a.dup = row_up.out();
        a.dgate_columns = col_gate.out();
        a.dup_columns = col_up.out();
        a.hidden_columns = col_hidden.out();
        cuda::swiglu_backward_fp8(ctx, std::span(&a, 1));
        expect_device_codes(row_gate, quantized(dgate, kind, ScaleTile::kRow), "dgate");
        expect_device_codes(row_up, quantized(dup, kind, ScaleTile::kRow), "dup");
        expect_device_codes(col_gate, quantized(dgate, kind, ScaleTile::kColumn), "dgate columns");
        expect_device_codes(col_up, quantized(dup, kind, ScaleTile::kColumn), "dup columns");
        expect_device_codes(col_hidden, quantized(hidden, kind, ScaleTile::kColumn), "hidden");

        Mat<float> want_dgate(rows, cols), want_dup(rows, cols), want_hidden(rows, cols),
            want_dweight(1, rows);
        const Mat<float> hg = down(g), hu = down(u);
        SwigluBackward<float> ref{hg.cview(), hu.cview(), dout.cview(), want_dgate.view(),
                                  want_dup.view()};
        if (weighted) ref.weight = weight.span();
        ref.dweight = want_dweight.span();
        ref.hidden = want_hidden.view();
        swiglu_backward_ref(host, ref);
        EXPECT_LE(testing::relative_error(down(dgate), want_dgate), 1e-6);
        EXPECT_LE(testing::relative_error(down(dup), want_dup), 1e-6);
        EXPECT_LE(testing::relative_error(down(hidden), want_hidden), 1e-6);
        if (weighted) EXPECT_LE(testing::relative_error(down(dweight), want_dweight), 2e-6);

        const int padded = (rows + 15) / 16 * 16;
        Mat<std::uint8_t> t[3] = {room<std::uint8_t>(cols, padded),
                                  room<std::uint8_t>(cols, padded),
                                  room<std::uint8_t>(cols, padded)};
        const Codes want_col[3] = {downloaded(col_gate), downloaded(col_up),
                                   downloaded(col_hidden)};
        for (Codes* c : {&col_gate, &col_up, &col_hidden}) {
          c->scales = room<float>(c->scales.rows(), c->scales.cols());
        }
        a.dgate_columns = transposed(col_gate.out(), t[0]);
        a.dup_columns = transposed(col_up.out(), t[1]);
        a.hidden_columns = transposed(col_hidden.out(), t[2]);
        cuda::swiglu_backward_fp8(ctx, std::span(&a, 1));
        for (int e = 0; e < 3; ++e) {
          const std::string what = "transposed " + std::to_string(e);
          expect_transposed(down(t[e]), want_col[e], what);
          const Codes& c = e == 0 ? col_gate : e == 1 ? col_up : col_hidden;
          expect_same(down(c.scales), want_col[e].scales, c.scales.rows(), c.scales.cols(), what);
        }
        if (HasFailure()) return;
      }
    }
  }
}

// Many groups at once give what each gives alone.
TEST_F(CudaFp8FusedTest, SwigluOfGroups) {
  const int groups = 40, cols = 200;
  std::vector<int> begin = {0};
  for (int g = 0; g < groups; ++g) begin.push_back(begin.back() + (g % 6 == 0 ? 0 : 37 * g % 300));
  const int rows = begin.back();
  Codes gate = quantized(up(random_mat(rows, cols, 3)), ScaleKind::kPow2, ScaleTile::kRow),
        up_ = quantized(up(random_mat(rows, cols, 4)), ScaleKind::kPow2, ScaleTile::kRow);
  const Mat<float> dout = up(random_mat(rows, cols, 5)), weight = up(random_mat(1, rows, 6));
  std::vector<std::vector<Codes>> all(2);
  Mat<float> dweight[2] = {room<float>(1, rows), room<float>(1, rows)};
  for (int turn = 0; turn < 2; ++turn) {
    std::vector<SwigluBackwardFp8> jobs;
    all[turn].reserve(static_cast<std::size_t>(groups) * 5);
    for (int g = 0; g < groups; ++g) {
      const int n = begin[g + 1] - begin[g];
      for (int e = 0; e < 5; ++e) {
        all[turn].push_back(device_codes(n, cols, e < 2 ? ScaleTile::kRow : ScaleTile::kColumn));
      }
      Codes* c = &all[turn][static_cast<std::size_t>(g) * 5];
      const auto first = static_cast<std::size_t>(begin[g]), count = static_cast<std::size_t>(n);
      SwigluBackwardFp8 a{gate.view().sub_rows(begin[g], n),
                          up_.view().sub_rows(begin[g], n),
                          dout.cview().sub_rows(begin[g], n),
                          weight.span().subspan(first, count),
                          dweight[turn].span().subspan(first, count),
                          ScaleKind::kPow2,
                          c[0].out(),
                          c[1].out(),
                          c[2].out(),
                          c[3].out(),
                          c[4].out()};
      jobs.push_back(a);
      if (turn == 1) cuda::swiglu_backward_fp8(ctx, std::span(&jobs.back(), 1));
    }
    if (turn == 0) cuda::swiglu_backward_fp8(ctx, jobs);
  }
  for (std::size_t i = 0; i < all[0].size() && !HasFailure(); ++i) {
    if (all[0][i].rows > 0)
      expect_device_codes(all[0][i], all[1][i], "group " + std::to_string(i / 5));
  }
  expect_same(down(dweight[0]), down(dweight[1]), 1, rows, "dweight");
}

}  // namespace
}  // namespace cachalot::cuda
