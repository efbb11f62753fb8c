#include "kernels/permute.h"

#include <algorithm>

#include "kernels/shape_check.h"
#include "kernels/table.h"

namespace cachalot {

// A counting sort: stable, so rows of one expert keep the order of the tokens.
void expert_order(MatView<const std::int32_t> index, int experts, ExpertOrder& out) {
  const int tokens = index.rows, k = index.cols;
  out.begin.assign(static_cast<std::size_t>(experts) + 1, 0);
  for (int t = 0; t < tokens; ++t) {
    const std::span<const std::int32_t> chosen(index.row(t), static_cast<std::size_t>(k));
    require_range("expert_order", "index", chosen, 0, experts);
    for (const std::int32_t e : chosen) ++out.begin[static_cast<std::size_t>(e) + 1];
  }
  for (std::size_t e = 1; e < out.begin.size(); ++e) out.begin[e] += out.begin[e - 1];
  out.token.resize(1, tokens * k);
  out.slot.resize(tokens, k);
  // Each expert's beginning moves to its end, which is the next one's beginning.
  for (int t = 0; t < tokens; ++t) {
    for (int j = 0; j < k; ++j) {
      const std::int32_t row = out.begin[static_cast<std::size_t>(index.at(t, j))]++;
      out.slot.at(t, j) = row;
      out.token.data()[row] = t;
    }
  }
  std::move_backward(out.begin.begin(), out.begin.end() - 1, out.begin.end());
  out.begin.front() = 0;
}

void expert_order_ref(const Context&, MatView<const std::int32_t> index, int experts,
                      ExpertOrder& out) {
  expert_order(index, experts, out);
}
void expert_order(const Context& ctx, MatView<const std::int32_t> index, int experts,
                  ExpertOrder& out) {
  ctx.ops().expert_order(ctx, index, experts, out);
}

void choices_to_rows_ref(const Context& ctx, const RowsOfChoices& a) {
  ctx.for_each(a.choices.rows, /*grain=*/256, [&](std::int64_t t) {
    for (int j = 0; j < a.choices.cols; ++j) {
      a.rows[static_cast<std::size_t>(a.slot.row(t)[j])] = a.choices.row(t)[j];
    }
  });
}
void rows_to_choices_ref(const Context& ctx, const RowsOfChoices& a) {
  ctx.for_each(a.choices.rows, /*grain=*/256, [&](std::int64_t t) {
    for (int j = 0; j < a.choices.cols; ++j) {
      a.choices.row(t)[j] = a.rows[static_cast<std::size_t>(a.slot.row(t)[j])];
    }
  });
}

void add_rows_ref(const Context& ctx, const AddRows& a) {
  ctx.for_each(a.x.rows, /*grain=*/32, [&](std::int64_t i) {
    float* to = a.out.row(a.rows[static_cast<std::size_t>(i)]);
    for (int j = 0; j < a.x.cols; ++j) to[j] += a.x.row(i)[j];
  });
}

template <class T>
void gather_rows_ref(const Context& ctx, const GatherRows<T>& a) {
  ctx.for_each(a.out.rows, /*grain=*/16, [&](std::int64_t r) {
    std::copy_n(a.x.row(a.rows[static_cast<std::size_t>(r)]), a.out.cols, a.out.row(r));
  });
}

template <class T>
void combine_ref(const Context& ctx, const Combine<T>& a) {
  ctx.for_each(a.out.rows, /*grain=*/4, [&](std::int64_t t) {
    const std::int32_t* slot = a.slot.row(t);
    T* out = a.out.row(t);
    for (int d = 0; d < a.out.cols; ++d) {
      double sum = 0;
      for (int j = 0; j < a.slot.cols; ++j) {
        const double w = a.weight.empty() ? 1.0 : double{a.weight.row(t)[j]};
        sum += w * double{a.y.row(slot[j])[d]};
      }
      out[d] = static_cast<T>(a.accumulate ? double{out[d]} + sum : sum);
    }
  });
}

template <class T>
void combine_backward_ref(const Context& ctx, const CombineBackward<T>& a) {
  ctx.for_each(a.dout.rows, /*grain=*/4, [&](std::int64_t t) {
    const T* dout = a.dout.row(t);
    for (int j = 0; j < a.slot.cols; ++j) {
      const std::int32_t row = a.slot.row(t)[j];
      const T* y = a.y.row(row);
      if (!a.dweight.empty()) {  // before dy: it may be y
        double dot = 0;
        for (int d = 0; d < a.dout.cols; ++d) dot += double{dout[d]} * double{y[d]};
        a.dweight.row(t)[j] = static_cast<T>(dot);
      }
      const double w = a.weight.empty() ? 1.0 : double{a.weight.row(t)[j]};
      T* dy = a.dy.row(row);
      for (int d = 0; d < a.dout.cols; ++d) dy[d] = static_cast<T>(w * double{dout[d]});
    }
  });
}

template void gather_rows_ref(const Context&, const GatherRows<float>&);
template void gather_rows_ref(const Context&, const GatherRows<double>&);
template void combine_ref(const Context&, const Combine<float>&);
template void combine_ref(const Context&, const Combine<double>&);
template void combine_backward_ref(const Context&, const CombineBackward<float>&);
template void combine_backward_ref(const Context&, const CombineBackward<double>&);

static void require_slots(std::string_view op, MatView<const std::int32_t> slot, int rows) {
  for (int t = 0; t < slot.rows; ++t) {
    require_range(op, "slot",
                  std::span<const std::int32_t>(slot.row(t), static_cast<std::size_t>(slot.cols)),
                  0, rows);
  }
}

void check_shapes(const GatherRows<float>& a) {
  require_size("gather_rows", "out", a.out, static_cast<int>(a.rows.size()), a.x.cols);
  require_range("gather_rows", "rows", a.rows, 0, a.x.rows);
}

void check_shapes(const Combine<float>& a) {
  constexpr std::string_view kOp = "combine";
  require_size(kOp, "out", a.out, a.slot.rows, a.y.cols);
  if (!a.weight.empty()) require_size(kOp, "weight", a.weight, a.slot.rows, a.slot.cols);
  require_slots(kOp, a.slot, a.y.rows);
}

void check_shapes(const CombineBackward<float>& a) {
  constexpr std::string_view kOp = "combine_backward";
  require_size(kOp, "dout", a.dout, a.slot.rows, a.dy.cols);
  if (!a.weight.empty()) require_size(kOp, "weight", a.weight, a.slot.rows, a.slot.cols);
  if (!a.dweight.empty()) {
    require_size(kOp, "dweight", a.dweight, a.slot.rows, a.slot.cols);
    require_size(kOp, "y", a.y, a.dy.rows, a.dy.cols);
  }
  require_slots(kOp, a.slot, a.dy.rows);
}

static void check_shapes(std::string_view op, const RowsOfChoices& a) {
  require_size(op, "slot", a.slot, a.choices.rows, a.choices.cols);
  const auto rows =
      static_cast<std::size_t>(a.choices.rows) * static_cast<std::size_t>(a.choices.cols);
  require_length(op, "rows", a.rows, rows);
  require_slots(op, a.slot, static_cast<int>(rows));
}
void choices_to_rows(const Context& ctx, const RowsOfChoices& a) {
  check_shapes("choices_to_rows", a);
  ctx.ops().choices_to_rows(ctx, a);
}
void rows_to_choices(const Context& ctx, const RowsOfChoices& a) {
  check_shapes("rows_to_choices", a);
  ctx.ops().rows_to_choices(ctx, a);
}
void add_rows(const Context& ctx, const AddRows& a) {
  require_length("add_rows", "rows", a.rows, static_cast<std::size_t>(a.x.rows));
  require_size("add_rows", "x", a.x, a.x.rows, a.out.cols);
  require_range("add_rows", "rows", a.rows, 0, a.out.rows);
  ctx.ops().add_rows(ctx, a);
}

void gather_rows(const Context& ctx, const GatherRows<float>& a) {
  check_shapes(a);
  ctx.ops().gather_rows(ctx, a);
}

void combine(const Context& ctx, const Combine<float>& a) {
  check_shapes(a);
  ctx.ops().combine(ctx, a);
}

void combine_backward(const Context& ctx, const CombineBackward<float>& a) {
  check_shapes(a);
  ctx.ops().combine_backward(ctx, a);
}

}  // namespace cachalot
