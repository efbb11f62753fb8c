// One matrix as products read it: floats or bf16 where it lies, or its FP8 tiles, made once and
// used by every product that needs them. On a device the codes of tiles along columns are laid out
// as the product of a weight gradient reads them.
//
// A Linear y = x W^T has three products: y (x with tiles along its rows), dx = dy W (dy likewise)
// and dW = dy^T x (both with tiles along their columns, "128 x 1"). Rows may come in groups (those
// of one expert); no tile crosses the beginning of a group.
//
// Owns:    the codes; views the matrix it was made from, which has to outlive its use.
// Threads: one caller; the conversions use the context's threads.
// Paper:   DeepSeek-V3 report, sections 3.3.2 and 3.5.2.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/fp8.h"
#include "kernels/gemm.h"
#include "kernels/quant_linear.h"
#include "nn/numerics.h"
#include "nn/params.h"

namespace cachalot::nn {

class Operand {
 public:
  enum class Use : std::uint8_t { kRows, kColumns, kBoth };

  // x [R, C]. With FP8, codes for `use`; `tile` as an activation or a gradient has it.
  void set(const Context& ctx, const Numerics& num, MatRef x, ScaleTile tile, Use use,
           std::span<const std::int32_t> groups = {});
  // Rows `rows` of `from`, grouped: its codes are copied, not made again; floats are rounded where
  // operands are bf16.
  void gather(const Context& ctx, const Numerics& num, const Operand& from,
              std::span<const std::int32_t> rows, std::span<const std::int32_t> groups);
  // Room for codes that an op writes while it computes x [R, C]: the same tiles that `set` would
  // make of it where tiles are 1 x 128. `x` are its floats, where anyone has them.
  void begin_codes(const Context& ctx, int rows, int cols, Use use,
                   std::span<const std::int32_t> groups = {}, MatRef x = {});
  Fp8Out rows_out(std::size_t group) noexcept { return along_rows_.out(group); }
  Fp8Out columns_out(std::size_t group) noexcept { return along_columns_.out(group); }
  Fp8Out rows_out_of_all() noexcept { return along_rows_.out_of_all(); }
  // Adds tiles along columns, out of those along rows: multiplied out and quantised again.
  void add_columns(const Context& ctx, const Numerics& num);

  int rows() const noexcept { return rows_; }
  int cols() const noexcept { return cols_; }
  std::size_t groups() const noexcept { return begin_.size() - 1; }
  int group_rows(std::size_t g) const noexcept { return begin_[g + 1] - begin_[g]; }
  std::int32_t group_begin(std::size_t g) const noexcept { return begin_[g]; }
  // First row of each group, then the number of rows: what `set` takes.
  std::span<const std::int32_t> begins() const noexcept { return begin_; }

  MatRef plain(std::size_t group) const noexcept;
  Fp8View along_rows(std::size_t group) const noexcept;
  Fp8View along_columns(std::size_t group) const noexcept;
  bool has_codes() const noexcept { return codes_; }

 private:
  void set_groups(std::span<const std::int32_t> groups, int rows);
  void make_room_for_columns(const Context& ctx);
  void quantize(const Context& ctx, const Numerics& num, Use use);

  MatRef x_;
  int rows_ = 0;
  int cols_ = 0;
  bool codes_ = false;
  ScaleTile tile_ = ScaleTile::kRow;
  std::vector<std::int32_t> begin_{0, 0};  // [groups + 1]
  Mat<float> gathered_;
  Mat<Bf16> gathered_bf16_;
  Fp8Mat along_rows_;     // tiles kRow; or kBlock / kTensor, which serve both ways
  Fp8Mat along_columns_;  // kColumn
  std::vector<QuantizeFp8> jobs_;
  std::vector<RequantizeFp8> again_;
};

// y (+)= x W^T with weights as floats, bf16 or packed.
Gemm plain_linear(MatRef x, const WeightRef& w, MatView<float> y, bool add = false);

// Products of several Linears, to be run together.
class Products {
 public:
  // Room for as many, so that adding them allocates nothing.
  void reserve(std::size_t products);
  // y (+)= x W^T
  void forward(const Operand& x, std::size_t group, const WeightRef& w, MatView<float> y,
               bool add = false);
  // y = x W^T and dx = dy W into bf16; weights as floats, bf16 or, on a device, codes.
  void forward(const Operand& x, std::size_t group, const WeightRef& w, MatView<Bf16> y);
  void input_gradient(const Operand& dy, std::size_t group, const WeightRef& w, MatView<Bf16> dx);
  // dx (+)= dy W
  void input_gradient(const Operand& dy, std::size_t group, const WeightRef& w, MatView<float> dx,
                      bool add = false);
  // dW += dy^T x; dW = it where gradients are fresh
  void weight_gradient(const Numerics& num, const Operand& dy, const Operand& x, std::size_t group,
                       MatView<float> dw);
  // All of them, in one batch per precision; then it is empty again.
  void run(const Context& ctx, const Numerics& num);

 private:
  void read(const WeightRef& w);

  std::vector<Gemm> plain_;
  std::vector<Fp8Gemm> fp8_;
  std::vector<QuantLinear> quant_;
  std::vector<MatView<float>> zeroed_;  // products of no rows
  std::vector<MemoryPiece> read_next_;  // after these
  const MemoryPiece* last_read_next_ = nullptr;
};

}  // namespace cachalot::nn
