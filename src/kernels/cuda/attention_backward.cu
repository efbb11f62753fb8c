// Backward attention: what both kernels need is prepared here (delta = rowsum(dout * out), dout as
// bf16 in rows padded per span), then they run one behind the other.
#include "kernels/cuda/attention_backward.cuh"

#include <cstdint>

#include "kernels/cuda/attention_slow.cuh"
#include "kernels/cuda/ops.h"

namespace cachalot::cuda {

namespace attn {
namespace {

struct RowBlock {  // 64 rows of a span
  int span, block;
};

struct PrepareArgs {
  const RowBlock* blocks;
  const AttentionSpan* spans;
  const int* padded_begin;
  std::int64_t padded_rows;
  MatView<const float> out, dout, lse;
  int value;
  bool vectors;  // rows of out and dout are aligned
  float *lse2, *delta;
  __nv_bfloat16* dout_bf16;  // [padded rows, H * kValue]
};

// One warp per row and head.
template <int kValue>
__global__ void prepare_kernel(const PrepareArgs a) {
  constexpr int kEach = kValue / 32;
  const RowBlock block = a.blocks[blockIdx.x];
  const AttentionSpan span = a.spans[block.span];
  const int lane = threadIdx.x % 32, head = blockIdx.y, heads = gridDim.y;
  for (int i = threadIdx.x / 32; i < kGradQueries; i += blockDim.x / 32) {
    const int row = block.block * kGradQueries + i;
    const std::int64_t padded = a.padded_begin[block.span] + row;
    float x[kEach] = {}, y[kEach] = {};
    if (row < span.q_rows) {
      const float* out = a.out.row(span.q_begin + row) + head * a.value + lane * kEach;
      const float* dout = a.dout.row(span.q_begin + row) + head * a.value + lane * kEach;
      if (a.vectors) {
        using Vector = std::conditional_t<kEach == 4, float4, float2>;
        *reinterpret_cast<Vector*>(x) = *reinterpret_cast<const Vector*>(out);
        *reinterpret_cast<Vector*>(y) = *reinterpret_cast<const Vector*>(dout);
      } else {
#pragma unroll
        for (int c = 0; c < kEach; ++c) {
          if (lane * kEach + c >= a.value) continue;
          x[c] = out[c];
          y[c] = dout[c];
        }
      }
    }
    float sum = 0;
#pragma unroll
    for (int c = 0; c < kEach; ++c) sum = fmaf(x[c], y[c], sum);
#pragma unroll
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
    auto* to = reinterpret_cast<__nv_bfloat162*>(
        a.dout_bf16 + (padded * heads + head) * kValue + lane * kEach);
#pragma unroll
    for (int c = 0; c < kEach; c += 2) to[c / 2] = __floats2bfloat162_rn(y[c], y[c + 1]);
    if (lane == 0) {
      a.delta[head * a.padded_rows + padded] = sum;
      a.lse2[head * a.padded_rows + padded] =
          row < span.q_rows ? a.lse.row(span.q_begin + row)[head] * 1.4426950408889634f : INFINITY;
    }
  }
}

bool aligned(MatView<const float> m, int floats) {
  return reinterpret_cast<std::uintptr_t>(m.data) % (floats * sizeof(float)) == 0 &&
         m.stride % floats == 0;
}

template <class W>
void backward_tiled(const Context& ctx, const AttentionBackward<float>& a) {
  const AttentionDims& d = a.dims;
  const Inputs inputs = inputs_of(a);
  thread_local std::vector<int> padded_begin;
  thread_local std::vector<RowBlock> row_blocks;
  thread_local std::vector<Tile> key_tiles, query_tiles;
  padded_begin.clear();
  row_blocks.clear();
  int padded = 0;
  for (int s = 0; s < static_cast<int>(a.spans.size()); ++s) {
    const int blocks = ceil_div(a.spans[s].q_rows, kGradQueries);
    padded_begin.push_back(padded);
    for (int b = 0; b < blocks; ++b) row_blocks.push_back({s, b});
    padded += blocks * kGradQueries;
  }
  order_tiles(
      a.spans, d.heads, (W::kKey + W::kValue) * sizeof(Bf16),
      [](const AttentionSpan& s) { return ceil_div(s.kv_rows, kGradKeyTile); },
      [](const AttentionSpan& s, int block) {  // blocks of queries that see the first key
        const int before = s.kv_rows - s.q_rows;
        return ceil_div(s.q_rows, kGradQueries) -
               std::max(0, block * kGradKeyTile - before) / kGradQueries;
      },
      key_tiles);
  order_tiles(
      a.spans, d.heads, (W::kKey + W::kValue) * sizeof(Bf16),
      [](const AttentionSpan& s) { return ceil_div(s.q_rows, kGradQueryTile); },
      [](const AttentionSpan& s, int block) {
        return ceil_div(
            s.kv_rows - s.q_rows + std::min((block + 1) * kGradQueryTile, s.q_rows), kGradKeys);
      },
      query_tiles);
  if (key_tiles.empty()) return;

  Room room;
  PackedInputs packed(inputs, W::kNope, W::kRope, W::kValue, room);
  const auto heads = static_cast<std::size_t>(d.heads);
  const auto padded_rows = static_cast<std::size_t>(std::max(padded, kGradQueries));
  const std::size_t lse2 = room.take(sizeof(float) * heads * padded_rows);
  const std::size_t delta = room.take(sizeof(float) * heads * padded_rows);
  const std::size_t dout = room.take(sizeof(Bf16) * heads * padded_rows * W::kValue);
  const std::size_t parts =
      room.take(sizeof(float) * heads * static_cast<std::size_t>(a.kv.rows) * W::kRope);
  auto* scratch = static_cast<std::byte*>(device_of(ctx).scratch(kScratchAttention, room.bytes()));
  packed.pack(ctx, scratch);

  const AttentionSpan* spans = stage(ctx, a.spans);
  const int* begins = stage(ctx, std::span<const int>(padded_begin));
  auto* dout_bf16 = reinterpret_cast<Bf16*>(scratch + dout);
  const BackwardArgs args{
      .tiles = stage(ctx, std::span<const Tile>(key_tiles)),
      .spans = spans,
      .padded_begin = begins,
      .heads = d.heads,
      .padded_rows = static_cast<std::int64_t>(padded_rows),
      .lse2 = reinterpret_cast<const float*>(scratch + lse2),
      .delta = reinterpret_cast<const float*>(scratch + delta),
      .scale = a.scale,
      .scale_log2 = a.scale * 1.4426950408889634f,
      .dims = d,
      .dq = a.dq.data,
      .dq_stride = a.dq.stride,
      .dq_pairs = takes_pairs(a.dq) && d.nope % 2 == 0 && d.rope % 2 == 0,
      .dkv = a.dkv.data,
      .dkv_stride = a.dkv.stride,
      .dkv_pairs = takes_pairs(a.dkv) && d.nope % 2 == 0 && d.value % 2 == 0,
      .rope_parts = reinterpret_cast<float*>(scratch + parts),
  };
  if (!row_blocks.empty()) {
    constexpr int kEach = W::kValue / 32;
    const PrepareArgs prepare{
        .blocks = stage(ctx, std::span<const RowBlock>(row_blocks)),
        .spans = spans,
        .padded_begin = begins,
        .padded_rows = args.padded_rows,
        .out = a.out,
        .dout = a.dout,
        .lse = a.lse,
        .value = d.value,
        .vectors = d.value == W::kValue && aligned(a.out, kEach) && aligned(a.dout, kEach),
        .lse2 = reinterpret_cast<float*>(scratch + lse2),
        .delta = reinterpret_cast<float*>(scratch + delta),
        .dout_bf16 = reinterpret_cast<__nv_bfloat16*>(dout_bf16),
    };
    const dim3 grid(static_cast<unsigned>(row_blocks.size()), static_cast<unsigned>(d.heads));
    prepare_kernel<W::kValue><<<grid, 256, 0, stream_of(ctx)>>>(prepare);
    check_launch("attention backward: prepare");
  }
  const int width = d.heads * W::kValue;
  const BackwardMaps maps{packed.q_map(), packed.kv_map(), packed.rope_map(),
                          tile_map(dout_bf16, args.padded_rows, width, width)};
  launch_key_gradients<W>(ctx, maps, args, static_cast<int>(key_tiles.size()));
  if (!query_tiles.empty()) {
    BackwardArgs of_queries = args;
    of_queries.tiles = stage(ctx, std::span<const Tile>(query_tiles));
    launch_query_gradients<W>(ctx, maps, of_queries, static_cast<int>(query_tiles.size()));
  }
  sum_over_heads(ctx, a, args.rope_parts, W::kRope);
}

}  // namespace
}  // namespace attn

void attention_backward(const Context& ctx, const AttentionBackward<float>& a) {
  switch (attn::head_kind(a.dims, a.precision)) {
    case attn::HeadKind::kWide:
      return attn::backward_tiled<attn::WideHeads>(ctx, a);
    case attn::HeadKind::kNarrow:
      return attn::backward_tiled<attn::NarrowHeads>(ctx, a);
    case attn::HeadKind::kOther:
      return attn::backward_slow(ctx, a);
  }
}

}  // namespace cachalot::cuda
