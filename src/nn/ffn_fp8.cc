// SwiGLU of an FP8 step: codes are made while its numbers lie in a cache, and what it reads in the
// backward are the codes that were kept. The bits are those of the ops one after the other.
#include "kernels/profile.h"
#include "nn/ffn_groups.h"

namespace cachalot::nn {

bool in_fp8(const Numerics& num, std::span<const FfnPart> parts) {
  if (!num.codes_in_passing() || num.swiglu_input != Keep::kFp8 || !num.recompute_swiglu) {
    return false;
  }
  for (const FfnPart& p : parts) {
    if (p.saved == nullptr) return false;
    for (const MlpWeights& w : p.w) {
      if (w.gate.fp8.rows == 0 || w.up.fp8.rows == 0 || w.down.fp8.rows == 0) return false;
    }
  }
  return true;
}

// Of floats that are read in bf16 instead.
static MatView<const float> shape_alone(int rows, int cols) { return {nullptr, rows, cols, cols}; }

void swiglu_fp8_part(const Context& ctx, const Numerics& num, const FfnPart& p, bool joint) {
  const PartScope scope(ctx, Part::kQuantize);
  FfnActs& a = *p.acts;
  const int rows = p.x->rows(), width = width_of(p);
  a.hidden_operand.begin_codes(ctx, rows, width, Operand::Use::kRows, p.x->begins());
  SwigluFp8 op;
  if (joint) {
    op.gate = op.up = shape_alone(rows, width);
    op.gate_bf16 = a.gate_up_bf16.cview().sub_cols(0, width);
    op.up_bf16 = a.gate_up_bf16.cview().sub_cols(width, width);
  } else {
    op.gate = a.gate.cview();
    op.up = a.up.cview();
  }
  op.kind = num.scale;
  op.out = a.hidden_operand.rows_out_of_all();
  op.keep_gate = p.saved->gate.fp8(rows, width);
  op.keep_up = p.saved->up.fp8(rows, width);
  swiglu_fp8(ctx, op);
}

void swiglu_backward_fp8_part(const Context& ctx, const Numerics& num, const FfnPart& p,
                              bool joint) {
  using Use = Operand::Use;
  const PartScope scope(ctx, Part::kQuantize);
  FfnActs& a = *p.acts;
  const int rows = p.x->rows(), width = width_of(p);
  a.hidden_operand.begin_codes(ctx, rows, width, Use::kColumns, p.x->begins());
  a.dgate_operand.begin_codes(ctx, rows, joint ? 2 * width : width, Use::kBoth, p.x->begins());
  if (!joint) a.dup_operand.begin_codes(ctx, rows, width, Use::kBoth, p.x->begins());
  a.jobs.clear();
  a.jobs.reserve(p.x->groups());
  for (std::size_t g = 0; g < p.x->groups(); ++g) {
    const int begin = p.x->group_begin(g), count = p.x->group_rows(g);
    if (count == 0) continue;
    const auto first = static_cast<std::size_t>(begin), n = static_cast<std::size_t>(count);
    SwigluBackwardFp8 job;
    job.gate = p.saved->gate.fp8().sub_rows(begin, count);
    job.up = p.saved->up.fp8().sub_rows(begin, count);
    if (joint) {
      job.dout = shape_alone(count, width);
      job.dout_bf16 = a.hidden_bf16.cview().sub_rows(begin, count);
    } else {
      job.dout = a.gate.cview().sub_rows(begin, count);
    }
    if (!p.row_weight.empty()) job.weight = p.row_weight.subspan(first, n);
    if (!p.drow_weight.empty()) job.dweight = p.drow_weight.subspan(first, n);
    job.kind = num.scale;
    const Fp8Out dgate = a.dgate_operand.rows_out(g), columns = a.dgate_operand.columns_out(g);
    job.dgate = dgate.sub_cols(0, width);
    job.dgate_columns = columns.sub_cols(0, width);
    job.dup = joint ? dgate.sub_cols(width, width) : a.dup_operand.rows_out(g);
    job.dup_columns = joint ? columns.sub_cols(width, width) : a.dup_operand.columns_out(g);
    job.hidden_columns = a.hidden_operand.columns_out(g);
    a.jobs.push_back(job);
  }
  swiglu_backward_fp8(ctx, a.jobs);
}

}  // namespace cachalot::nn
