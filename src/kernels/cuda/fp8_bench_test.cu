// What quantising reaches of the memory's bandwidth, at the sizes of training.
#include "kernels/cuda/bench_test.h"
#include "kernels/cuda/fp8.cuh"
#include "kernels/cuda/fp8_case_test.h"
#include "kernels/cuda/ops.h"

namespace cachalot::cuda {
namespace {

using numeric::ScaleKind;
using testing::bench;
using testing::Codes;
using testing::Fp8CudaTest;
using testing::transposed;

class CudaFp8Bench : public Fp8CudaTest {
 protected:
  // Normal values repeated: what matters is that they are ordinary.
  Mat<float> filled(int rows, int cols) {
    const Mat<float> some = up(testing::random_mat(1, 1 << 20, 1));
    const MemoryScope scope(device_.get());
    Mat<float> out;
    out.resize(rows, cols);
    for (std::size_t i = 0; i < out.size(); i += some.size()) {
      device_->copy(out.data() + i, some.data(),
                    std::min(some.size(), out.size() - i) * sizeof(float));
    }
    return out;
  }
  Codes quantized(const Mat<float>& x, ScaleTile tile) {
    Codes c = empty(x.rows(), x.cols(), tile);
    const QuantizeFp8 job{x.cview(), ScaleKind::kPow2, c.out()};
    cuda::quantize_fp8(ctx, std::span(&job, 1));
    return c;
  }
  Codes empty(int rows, int cols, ScaleTile tile) {
    const MemoryScope scope(device_.get());
    Codes c;
    c.codes.resize(rows, cols);
    c.scales.resize(scale_rows(tile, rows), scale_cols(tile, cols));
    c.rows = rows;
    c.cols = cols;
    c.tile = tile;
    return c;
  }
};

constexpr int kRowsAll = 32768, kWidth = 2048, kGroups = 64, kGroupRows = 2048, kHidden = 1408;
const char* kind_name(ScaleKind kind) { return is_pow2(kind) ? "pow2" : "plain"; }

TEST_F(CudaFp8Bench, Quantize) {
  const Mat<float> x = filled(kRowsAll, kWidth);
  const double n = static_cast<double>(x.size());
  Codes row = empty(kRowsAll, kWidth, ScaleTile::kRow),
        column = empty(kRowsAll, kWidth, ScaleTile::kColumn);
  Mat<std::uint8_t> turned = room<std::uint8_t>(kWidth, kRowsAll);
  for (const ScaleKind kind : {ScaleKind::kPow2, ScaleKind::kPlain}) {
    const std::string name = std::string("quantize [32768, 2048] ") + kind_name(kind);
    bench(ctx, name + " row", n * (5 + 4 / 128.0), [&] {
      const QuantizeFp8 job{x.cview(), kind, row.out()};
      cuda::quantize_fp8(ctx, std::span(&job, 1));
    });
    bench(ctx, name + " column", n * (5 + 4 / 128.0), [&] {
      const QuantizeFp8 job{x.cview(), kind, column.out()};
      cuda::quantize_fp8(ctx, std::span(&job, 1));
    });
    bench(ctx, name + " row + column", n * (6 + 8 / 128.0), [&] {
      const QuantizeFp8 job{x.cview(), kind, row.out(), column.out()};
      cuda::quantize_fp8(ctx, std::span(&job, 1));
    });
    bench(ctx, name + " row + transposed", n * (6 + 8 / 128.0), [&] {
      const QuantizeFp8 job{x.cview(), kind, row.out(), transposed(column.out(), turned)};
      cuda::quantize_fp8(ctx, std::span(&job, 1));
    });
  }
  bench(ctx, "requantize row -> column [32768, 2048]", n * (2 + 8 / 128.0), [&] {
    const RequantizeFp8 job{row.view(), ScaleKind::kPow2, column.out()};
    cuda::requantize_fp8(ctx, std::span(&job, 1));
  });
  bench(ctx, "requantize row -> transposed [32768, 2048]", n * (2 + 8 / 128.0), [&] {
    const RequantizeFp8 job{row.view(), ScaleKind::kPow2, transposed(column.out(), turned)};
    cuda::requantize_fp8(ctx, std::span(&job, 1));
  });
  Mat<float> out = filled(kRowsAll, kWidth);
  bench(ctx, "copy", 8 * n, [&] { device_->copy(out.data(), x.data(), x.size() * 4); });
  Mat<Bf16> half = room<Bf16>(kRowsAll, kWidth);
  bench(ctx, "dequantize [32768, 2048] f32", n * (5 + 4 / 128.0), [&] {
    cuda::dequantize_fp8(ctx, {row.view(), out.view(), {}});
  });
  bench(ctx, "dequantize [32768, 2048] bf16", n * (3 + 4 / 128.0), [&] {
    cuda::dequantize_fp8(ctx, {row.view(), {}, half.view()});
  });
  bench(ctx, "quantize bf16 [32768, 2048] row + column", n * (4 + 8 / 128.0), [&] {
    const QuantizeFp8 job{half.cview(), ScaleKind::kPow2, row.out(), column.out()};
    cuda::quantize_fp8(ctx, std::span(&job, 1));
  });
  const int gathered = 4 * kRowsAll;
  Mat<std::int32_t> rows(1, gathered);
  for (int i = 0; i < gathered; ++i) {
    rows.data()[i] = static_cast<int>(static_cast<unsigned>(i) * 2654435761u % kRowsAll);
  }
  const Mat<std::int32_t> drows = up(rows);
  Codes to = empty(gathered, kWidth, ScaleTile::kRow);
  bench(ctx, "gather 131072 rows of 2048", 2 * 4 * n * (1 + 4 / 128.0), [&] {
    cuda::gather_codes(ctx, {row.view(), drows.span(), to.out()});
  });
  const Mat<float> weight = up(testing::random_mat(1, kWidth, 3));
  Mat<float> rstd = room<float>(1, kRowsAll);
  bench(ctx, "rms_norm_fp8 [32768, 2048]", n * (5 + 4 / 128.0), [&] {
    cuda::rms_norm_fp8(
        ctx, {{x.cview(), weight.span(), 1e-6f, {}, rstd.span()}, ScaleKind::kPow2, row.out()});
  });
  bench(ctx, "rms_norm_fp8 [32768, 2048] and y", n * (9 + 4 / 128.0), [&] {
    cuda::rms_norm_fp8(
        ctx,
        {{x.cview(), weight.span(), 1e-6f, out.view(), rstd.span()}, ScaleKind::kPow2, row.out()});
  });
}

TEST_F(CudaFp8Bench, LongNorm) {
  const int rows = 8192, cols = 7168;
  const Mat<float> x = filled(rows, cols), weight = up(testing::random_mat(1, cols, 3));
  Codes row = empty(rows, cols, ScaleTile::kRow);
  bench(ctx, "rms_norm_fp8 [8192, 7168]", static_cast<double>(x.size()) * (5 + 4 / 128.0), [&] {
    cuda::rms_norm_fp8(ctx,
                       {{x.cview(), weight.span(), 1e-6f, {}, {}}, ScaleKind::kPow2, row.out()});
  });
}

TEST_F(CudaFp8Bench, Weights) {
  const Mat<float> x = filled(kGroups * kHidden, kWidth);
  Mat<Bf16> half = room<Bf16>(kGroups * kHidden, kWidth);
  std::vector<Codes> codes;
  std::vector<QuantizeFp8> jobs, halves;
  for (int g = 0; g < kGroups; ++g) codes.push_back(empty(kHidden, kWidth, ScaleTile::kBlock));
  for (int g = 0; g < kGroups; ++g) {
    const auto at = static_cast<std::size_t>(g);
    jobs.push_back({x.cview().sub_rows(g * kHidden, kHidden), ScaleKind::kPow2, codes[at].out()});
    halves.push_back(
        {half.cview().sub_rows(g * kHidden, kHidden), ScaleKind::kPow2, codes[at].out()});
  }
  const double n = static_cast<double>(x.size());
  bench(ctx, "quantize blocks of 64 x [1408, 2048]", 5 * n, [&] { cuda::quantize_fp8(ctx, jobs); });
  bench(ctx, "quantize blocks of 64 x [1408, 2048] bf16", 3 * n,
        [&] { cuda::quantize_fp8(ctx, halves); });
}

TEST_F(CudaFp8Bench, Swiglu) {
  const int rows = kGroups * kGroupRows;
  const Mat<float> gate = filled(rows, kHidden), up_ = filled(rows, kHidden);
  const double n = static_cast<double>(gate.size());
  Codes kept_gate = quantized(gate, ScaleTile::kRow), kept_up = quantized(up_, ScaleTile::kRow),
        hidden = empty(rows, kHidden, ScaleTile::kRow),
        dgate = empty(rows, kHidden, ScaleTile::kRow), dup = empty(rows, kHidden, ScaleTile::kRow);
  bench(ctx, "swiglu_fp8 [131072, 1408] keeping", n * 11 * (1 + 4 / 128.0 * 3 / 11), [&] {
    SwigluFp8 a{gate.cview(), up_.cview(), {}, {}, ScaleKind::kPow2, hidden.out()};
    a.keep_gate = kept_gate.out();
    a.keep_up = kept_up.out();
    cuda::swiglu_fp8(ctx, std::span(&a, 1));
  });
  bench(ctx, "swiglu_fp8 [131072, 1408] of codes to columns", n * 3 * (1 + 4 / 128.0), [&] {
    std::vector<SwigluFp8> jobs;
    for (int g = 0; g < kGroups; ++g) {
      Fp8Out out = dgate.out();
      out.tile = ScaleTile::kColumn;
      out.codes += static_cast<std::ptrdiff_t>(g) * kGroupRows * kHidden;
      out.rows = kGroupRows;
      out.scale_stride = kHidden;
      out.scales += static_cast<std::ptrdiff_t>(g) * kGroupRows / 128 * kHidden;
      jobs.push_back({{},
                      {},
                      kept_gate.view().sub_rows(g * kGroupRows, kGroupRows),
                      kept_up.view().sub_rows(g * kGroupRows, kGroupRows),
                      ScaleKind::kPow2,
                      out});
    }
    cuda::swiglu_fp8(ctx, jobs);
  });
  std::vector<Codes> columns;
  for (int i = 0; i < 3 * kGroups; ++i) {
    columns.push_back(empty(kGroupRows, kHidden, ScaleTile::kColumn));
  }
  const Mat<float> weight = up(testing::random_mat(1, rows, 3));
  Mat<float> dweight = room<float>(1, rows);
  for (const ScaleKind kind : {ScaleKind::kPow2, ScaleKind::kPlain}) {
    std::vector<SwigluBackwardFp8> jobs;
    std::vector<SwigluBackwardFp8> turned;
    for (int g = 0; g < kGroups; ++g) {
      const auto at = static_cast<std::size_t>(3 * g),
                 first = static_cast<std::size_t>(kGroupRows * g);
      jobs.push_back({kept_gate.view().sub_rows(g * kGroupRows, kGroupRows),
                      kept_up.view().sub_rows(g * kGroupRows, kGroupRows),
                      gate.cview().sub_rows(g * kGroupRows, kGroupRows),
                      weight.span().subspan(first, kGroupRows),
                      dweight.span().subspan(first, kGroupRows), kind,
                      dgate.out().sub_rows(g * kGroupRows, kGroupRows),
                      dup.out().sub_rows(g * kGroupRows, kGroupRows), columns[at].out(),
                      columns[at + 1].out(), columns[at + 2].out()});
      turned.push_back(jobs.back());  // into the same memory
      for (Fp8Out* o : {&turned.back().dgate_columns, &turned.back().dup_columns,
                        &turned.back().hidden_columns}) {
        o->stride = kGroupRows;
        o->transposed = true;
      }
    }
    const std::string name =
        std::string("swiglu_backward_fp8 64 x [2048, 1408] ") + kind_name(kind);
    const double bytes = n * (11 + 7 * 4 / 128.0);
    bench(ctx, name, bytes, [&] { cuda::swiglu_backward_fp8(ctx, jobs); });
    bench(ctx, name + " transp.", bytes, [&] { cuda::swiglu_backward_fp8(ctx, turned); });
  }
}

}  // namespace
}  // namespace cachalot::cuda
