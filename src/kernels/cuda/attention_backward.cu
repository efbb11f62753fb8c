// Backward attention: what both kernels need is prepared here (delta = rowsum(dout * out), dout as
// bf16 in rows padded per span), then they run one behind the other.
#include "kernels/cuda/attention_backward.cuh"

#include <cstdint>

#include "kernels/cuda/attention_slow.cuh"
#include "kernels/cuda/ops.h"

namespace cachalot::cuda {

namespace attn {
namespace {

struct PrepareArgs {
  const Tile* tiles;  // of queries
  int heads;
  std::int64_t padded_rows;
  MatView<const float> out, dout, lse;
  int value;
  bool vectors;  // rows of out and dout are aligned
  float* stats;
  __nv_bfloat16* dout_bf16;  // [padded rows, H * kValue]
};

// A block of threads for each tile of the second kernel, a warp for each of its rows.
template <int kValue>
__global__ void prepare_kernel(const PrepareArgs a) {
  constexpr int kEach = kValue / 32;
  const Tile tile = a.tiles[blockIdx.x];
  const AttentionSpan& span = tile.span;
  const int lane = threadIdx.x % 32, head = tile.head, heads = a.heads;
  const int begin = tile.block * kGradQueryTile;
  const int padded_end = (span.q_rows + kPaddedRows - 1) / kPaddedRows * kPaddedRows;
  const int end = min(begin + kGradQueryTile, padded_end);
  for (int row = begin + threadIdx.x / 32; row < end; row += blockDim.x / 32) {
    const std::int64_t padded = tile.padded_begin + row;
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
    auto* to = reinterpret_cast<__nv_bfloat162*>(a.dout_bf16 + (padded * heads + head) * kValue +
                                                 lane * kEach);
#pragma unroll
    for (int c = 0; c < kEach; c += 2) to[c / 2] = __floats2bfloat162_rn(y[c], y[c + 1]);
    if (lane == 0) {
      float* stats = a.stats + stats_index(a.padded_rows, head, padded);
      stats[kPaddedRows] = sum;
      stats[0] =
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
  int padded = 0;
  for (const AttentionSpan& s : a.spans) padded += ceil_div(s.q_rows, kPaddedRows) * kPaddedRows;
  thread_local TileLists lists;
  if (!lists.hold(a.spans, d.heads)) {
    constexpr int kBytes = (W::kKey + W::kValue) * sizeof(Bf16);
    lists.add(
        kBytes, [](const AttentionSpan& s) { return ceil_div(s.kv_rows, kGradKeyTile); },
        [](const AttentionSpan& s, int block) {  // blocks of queries that see the first key
          const int unseen = std::max(0, block * kGradKeyTile - (s.kv_rows - s.q_rows));
          return ceil_div(s.q_rows, kGradQueries) - unseen / kGradQueries;
        });
    lists.add(
        kBytes, [](const AttentionSpan& s) { return ceil_div(s.q_rows, kGradQueryTile); },
        [](const AttentionSpan& s, int block) {  // blocks of keys that the last query sees
          const int end = std::min((block + 1) * kGradQueryTile, s.q_rows);
          return ceil_div(s.kv_rows - s.q_rows + end, kGradKeys);
        });
  }
  if (lists.count(0) == 0) return;

  Room room;
  PackedInputs packed(inputs, W::kNope, W::kRope, W::kValue, room);
  const auto heads = static_cast<std::size_t>(d.heads);
  const auto padded_rows = static_cast<std::size_t>(std::max(padded, kGradQueries));
  const std::size_t stats = room.take(2 * sizeof(float) * heads * padded_rows);
  const std::size_t dout = room.take(sizeof(Bf16) * heads * padded_rows * W::kValue);
  const std::size_t parts =
      room.take(sizeof(float) * heads * static_cast<std::size_t>(a.kv.rows) * W::kRope);
  auto* scratch = static_cast<std::byte*>(device_of(ctx).scratch(kScratchAttention, room.bytes()));
  packed.pack(ctx, scratch);

  lists.upload(ctx);
  auto* dout_bf16 = reinterpret_cast<Bf16*>(scratch + dout);
  BackwardArgs args{
      .queue = lists.queue(0),
      .heads = d.heads,
      .padded_rows = static_cast<std::int64_t>(padded_rows),
      .stats = reinterpret_cast<const float*>(scratch + stats),
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
  const TileQueue queries = lists.queue(1);
  if (queries.count > 0) {
    constexpr int kEach = W::kValue / 32;
    const PrepareArgs prepare{
        .tiles = queries.tiles,
        .heads = d.heads,
        .padded_rows = args.padded_rows,
        .out = a.out,
        .dout = a.dout,
        .lse = a.lse,
        .value = d.value,
        .vectors = d.value == W::kValue && aligned(a.out, kEach) && aligned(a.dout, kEach),
        .stats = reinterpret_cast<float*>(scratch + stats),
        .dout_bf16 = reinterpret_cast<__nv_bfloat16*>(dout_bf16),
    };
    prepare_kernel<W::kValue><<<queries.count, 256, 0, stream_of(ctx)>>>(prepare);
    check_launch("attention backward: prepare");
  }
  const int width = d.heads * W::kValue;
  const BackwardMaps maps{packed.q_map(), packed.kv_map(), packed.rope_map(),
                          tile_map(dout_bf16, args.padded_rows, width, width)};
  launch_key_gradients<W>(ctx, maps, args);
  if (queries.count > 0) {
    args.queue = queries;
    launch_query_gradients<W>(ctx, maps, args);
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
