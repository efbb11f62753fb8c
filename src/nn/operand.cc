#include "nn/operand.h"

#include "kernels/bf16_ops.h"
#include "kernels/elementwise.h"
#include "kernels/permute.h"
#include "kernels/profile.h"

namespace cachalot::nn {

void Operand::set_groups(std::span<const std::int32_t> groups, int rows) {
  if (groups.empty()) {
    begin_.assign({0, rows});
  } else {
    begin_.assign(groups.begin(), groups.end());
  }
}

void Operand::make_room_for_columns(const Context& ctx) {
  along_columns_.resize(begin_, cols_, ScaleTile::kColumn, /*transposed=*/ctx.device != nullptr);
}

void Operand::quantize(const Context& ctx, const Numerics& num, Use use) {
  const PartScope part(ctx, Part::kQuantize);
  const bool one_serves_both = tile_ != ScaleTile::kRow;
  const bool rows = use != Use::kColumns || one_serves_both;
  const bool columns = use != Use::kRows && !one_serves_both;
  if (rows) along_rows_.resize(begin_, cols_, tile_);
  if (columns) make_room_for_columns(ctx);
  jobs_.clear();
  jobs_.reserve(groups());
  for (std::size_t g = 0; g < groups(); ++g) {
    if (group_rows(g) == 0) continue;
    QuantizeFp8 job{plain(g), num.scale, {}, {}};
    if (rows) job.out = along_rows_.out(g);
    if (columns) (rows ? job.also : job.out) = along_columns_.out(g);
    jobs_.push_back(job);
  }
  quantize_fp8(ctx, jobs_);
}

void Operand::set(const Context& ctx, const Numerics& num, MatRef x, ScaleTile tile, Use use,
                  std::span<const std::int32_t> groups) {
  x_ = x;
  rows_ = x.rows;
  cols_ = x.cols;
  tile_ = tile;
  codes_ = num.fp8;
  set_groups(groups, x.rows);
  if (codes_) quantize(ctx, num, use);
}

void Operand::begin_codes(const Context& ctx, int rows, int cols, Use use,
                          std::span<const std::int32_t> groups, MatRef x) {
  x_ = x;
  rows_ = rows;
  cols_ = cols;
  tile_ = ScaleTile::kRow;
  codes_ = true;
  set_groups(groups, rows);
  if (use != Use::kColumns) along_rows_.resize(begin_, cols_, ScaleTile::kRow);
  if (use != Use::kRows) make_room_for_columns(ctx);
}

void Operand::gather(const Context& ctx, const Numerics& num, const Operand& from,
                     std::span<const std::int32_t> rows, std::span<const std::int32_t> groups) {
  const PartScope part(ctx, Part::kRouting);
  rows_ = static_cast<int>(rows.size());
  cols_ = from.cols_;
  tile_ = from.tile_;
  codes_ = from.codes_;
  set_groups(groups, rows_);
  if (!codes_ && from.rows_ == 1 && ctx.device == nullptr) {  // one token: the same row for all
    x_ = MatRef(from.x_.data, from.x_.dtype, rows_, cols_, 0);
    return;
  }
  if (!codes_ && num.bf16_operands) {
    gathered_bf16_.resize(rows_, cols_);
    gather_rows_bf16(ctx, {from.x_.as<float>(), rows, gathered_bf16_.view()});
    x_ = gathered_bf16_.cview();
    return;
  }
  if (!codes_ || tile_ != ScaleTile::kRow) {
    gathered_.resize(rows_, cols_);
    gather_rows(ctx, {from.x_.as<float>(), rows, gathered_.view()});
    x_ = gathered_.cview();
    if (codes_) quantize(ctx, num, Use::kRows);
    return;
  }
  x_ = {};
  along_rows_.resize(begin_, cols_, tile_);
  // Groups of row tiles follow one another without a gap: one view holds all of them.
  gather_codes(ctx, {from.along_rows_.view(), rows, along_rows_.out_of_all()});
}

void Operand::add_columns(const Context& ctx, const Numerics& num) {
  if (!codes_ || tile_ != ScaleTile::kRow) return;
  const PartScope part(ctx, Part::kQuantize);
  make_room_for_columns(ctx);
  again_.clear();
  again_.reserve(groups());
  for (std::size_t g = 0; g < groups(); ++g) {
    if (group_rows(g) == 0) continue;
    again_.push_back({along_rows_.view(g), num.scale, along_columns_.out(g)});
  }
  requantize_fp8(ctx, again_);
}

MatRef Operand::plain(std::size_t group) const noexcept {
  return x_.sub_rows(begin_[group], group_rows(group));
}
Fp8View Operand::along_rows(std::size_t group) const noexcept { return along_rows_.view(group); }
Fp8View Operand::along_columns(std::size_t group) const noexcept {
  return tile_ == ScaleTile::kRow ? along_columns_.view(group) : along_rows_.view(group);
}

Gemm plain_linear(MatRef x, const WeightRef& w, MatView<float> y, bool add) {
  return w.packed != nullptr ? linear(x, *w.packed, y, add) : linear(x, MatRef(w), y, add);
}

void Products::reserve(std::size_t products) {
  zeroed_.reserve(products);
  plain_.reserve(products);
  fp8_.reserve(products);
}

// Neighbours in the list are often followed by the same.
void Products::read(const WeightRef& w) {
  if (w.read_next.empty() || w.read_next.data() == last_read_next_) return;
  last_read_next_ = w.read_next.data();
  read_next_.insert(read_next_.end(), w.read_next.begin(), w.read_next.end());
}

void Products::forward(const Operand& x, std::size_t group, const WeightRef& w, MatView<float> y,
                       bool add) {
  read(w);
  if (x.has_codes() && w.fp8.rows > 0) {
    fp8_.push_back({x.along_rows(group), w.fp8, y, false, true, add});
  } else if (w.quant.rows > 0) {
    quant_.push_back({x.plain(group), w.quant, y, add});
  } else {
    plain_.push_back(plain_linear(x.plain(group), w, y, add));
  }
}

// As a product reads them that sums over the rows.
static const Fp8View& codes_down(const WeightRef& w) {
  return w.fp8_turned.rows > 0 ? w.fp8_turned : w.fp8;
}

// The shape of a result in bf16, as a product asks for it.
static MatView<float> shape_of(MatView<Bf16> m) { return {nullptr, m.rows, m.cols, m.cols}; }

void Products::forward(const Operand& x, std::size_t group, const WeightRef& w, MatView<Bf16> y) {
  if (x.has_codes() && w.fp8.rows > 0) {
    fp8_.push_back({x.along_rows(group), w.fp8, shape_of(y), false, true, false, y});
  } else {
    plain_.push_back(linear(x.plain(group), MatRef(w), shape_of(y)));
    plain_.back().c_bf16 = y;
  }
}

void Products::input_gradient(const Operand& dy, std::size_t group, const WeightRef& w,
                              MatView<Bf16> dx) {
  if (dy.has_codes() && w.fp8.rows > 0) {
    fp8_.push_back({dy.along_rows(group), codes_down(w), shape_of(dx), false, false, false, dx});
  } else {
    plain_.push_back({dy.plain(group), MatRef(w), shape_of(dx)});
    plain_.back().c_bf16 = dx;
  }
}

void Products::input_gradient(const Operand& dy, std::size_t group, const WeightRef& w,
                              MatView<float> dx, bool add) {
  if (dy.has_codes() && w.fp8.rows > 0) {
    fp8_.push_back({dy.along_rows(group), codes_down(w), dx, false, false, add});
  } else {
    plain_.push_back({dy.plain(group), w, dx, false, false, add});
  }
}

void Products::weight_gradient(const Numerics& num, const Operand& dy, const Operand& x,
                               std::size_t group, MatView<float> dw) {
  const bool add = !num.fresh_gradients;
  if (dy.group_rows(group) == 0) {
    if (!add) zeroed_.push_back(dw);
    return;
  }
  if (dy.has_codes() && x.has_codes()) {
    fp8_.push_back({dy.along_columns(group), x.along_columns(group), dw, true, false, add});
  } else {
    plain_.push_back({dy.plain(group), x.plain(group), dw, true, false, add});
  }
}

void Products::run(const Context& ctx, const Numerics& num) {
  if (!read_next_.empty()) ctx.fetch_while_waiting(read_next_);
  read_next_.clear();
  last_read_next_ = nullptr;
  if (!plain_.empty()) gemm(ctx, num.products, plain_);
  if (!fp8_.empty()) gemm_fp8_hopper(ctx, num.accumulation, fp8_);
  if (!quant_.empty()) quant_linear(ctx, num.quant_activations, quant_);
  for (const MatView<float>& m : zeroed_) zero_rows(ctx, m);
  zeroed_.clear();
  plain_.clear();
  quant_.clear();
  fp8_.clear();
}

}  // namespace cachalot::nn
