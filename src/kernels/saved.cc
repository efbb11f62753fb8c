#include "kernels/saved.h"

#include "kernels/shape_check.h"
#include "kernels/table.h"
#include "numeric/e5m6.h"

namespace cachalot {

namespace {

template <class T>
std::span<T> row_span(T* row, int cols) {
  return {row, static_cast<std::size_t>(cols)};
}

void require_e5m6(const char* op, const char* operand, const E5m6Mat& m, int rows, int cols) {
  require_shape(m.rows() == rows && m.cols() == cols, op, ": ", operand, " is [", m.rows(), ", ",
                m.cols(), "] but has to be [", rows, ", ", cols, "]; resize it first");
}

}  // namespace

void store_bf16_ref(const Context& ctx, MatView<const float> x, MatView<Bf16> out) {
  ctx.for_each(x.rows, /*grain=*/16, [&](std::int64_t i) {
    for (int j = 0; j < x.cols; ++j) out.row(i)[j] = to_bf16(x.row(i)[j]);
  });
}

void load_bf16_ref(const Context& ctx, MatView<const Bf16> x, MatView<float> out) {
  ctx.for_each(x.rows, /*grain=*/16, [&](std::int64_t i) {
    for (int j = 0; j < x.cols; ++j) out.row(i)[j] = to_float(x.row(i)[j]);
  });
}

void store_e5m6_ref(const Context& ctx, MatView<const float> x, E5m6Mat& out) {
  ctx.for_each(x.rows, /*grain=*/4, [&](std::int64_t i) {
    numeric::encode_e5m6_row(row_span(x.row(i), x.cols),
                             row_span(out.row(i), e5m6_row_bytes(x.cols)),
                             row_span(out.scale_row(i), e5m6_tiles(x.cols)));
  });
}

void load_e5m6_ref(const Context& ctx, const E5m6Mat& x, MatView<float> out) {
  ctx.for_each(out.rows, /*grain=*/4, [&](std::int64_t i) {
    numeric::decode_e5m6_row(row_span(x.row(i), e5m6_row_bytes(out.cols)),
                             row_span(x.scale_row(i), e5m6_tiles(out.cols)),
                             row_span(out.row(i), out.cols));
  });
}

void payload_round_trip_ref(const Context& ctx, numeric::Payload payload, MatView<float> x) {
  ctx.for_each(x.rows, /*grain=*/1, [&](std::int64_t i) {
    numeric::round_trip(payload, x.sub_rows(static_cast<int>(i), 1));
  });
}

void store_bf16(const Context& ctx, MatView<const float> x, MatView<Bf16> out) {
  require_size("store_bf16", "x", x, x.rows, x.cols);
  require_size("store_bf16", "out", out, x.rows, x.cols);
  ctx.ops().store_bf16(ctx, x, out);
}

void load_bf16(const Context& ctx, MatView<const Bf16> x, MatView<float> out) {
  require_size("load_bf16", "x", x, x.rows, x.cols);
  require_size("load_bf16", "out", out, x.rows, x.cols);
  ctx.ops().load_bf16(ctx, x, out);
}

void store_e5m6(const Context& ctx, MatView<const float> x, E5m6Mat& out) {
  require_size("store_e5m6", "x", x, x.rows, x.cols);
  require_e5m6("store_e5m6", "out", out, x.rows, x.cols);
  ctx.ops().store_e5m6(ctx, x, out);
}

void load_e5m6(const Context& ctx, const E5m6Mat& x, MatView<float> out) {
  require_size("load_e5m6", "out", out, out.rows, out.cols);
  require_e5m6("load_e5m6", "x", x, out.rows, out.cols);
  ctx.ops().load_e5m6(ctx, x, out);
}

void payload_round_trip(const Context& ctx, numeric::Payload payload, MatView<float> x) {
  require_size("payload_round_trip", "x", x, x.rows, x.cols);
  ctx.ops().payload_round_trip(ctx, payload, x);
}

}  // namespace cachalot
