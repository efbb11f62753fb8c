// Rows of the embedding table, and their gradient: added up in the order of the tokens.
#include "kernels/cuda/counting_sort.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/row_ops.cuh"

namespace cachalot::cuda {

namespace {

template <int V, class T>
struct EmbeddingOp {
  MatView<const T> table;
  const std::int32_t* ids;
  MatView<float> out;
  __device__ void operator()(int row, int pack) const {
    store<V>(out.row(row) + V * pack, load<V>(table.row(ids[row]) + V * pack));
  }
};
template <class T>
void embedding_rows(const Context& ctx, MatView<const T> table, const std::int32_t* ids,
                    MatView<float> out) {
  if (in_packs<4>(table) && in_packs<4>(out)) {
    for_packs(ctx, "embedding", out.rows, out.cols / 4, EmbeddingOp<4, T>{table, ids, out});
  } else {
    for_packs(ctx, "embedding", out.rows, out.cols, EmbeddingOp<1, T>{table, ids, out});
  }
}

constexpr int kWarps = 8;

// A warp for each token in order of id and each 32 V columns; the warp of an id's first token adds
// up all of them, the others have nothing to do.
template <int V>
__global__ void __launch_bounds__(32 * kWarps)
    embedding_backward_kernel(const std::int32_t* ids, const std::int32_t* order,
                              MatView<const float> dout, MatView<float> dtable, int chunks) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t warp = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  const int tokens = dout.rows;
  if (warp >= std::int64_t{tokens} * chunks) return;
  const int first = static_cast<int>(warp / chunks), chunk = static_cast<int>(warp % chunks);
  const int id = ids[order[first]];
  if (first > 0 && ids[order[first - 1]] == id) return;
  const int column = (chunk * 32 + lane) * V;
  const bool live = column < dout.cols;
  float* to = dtable.row(id) + column;
  Floats<V> sum = live ? load<V>(to) : Floats<V>{};
  for (int at = first;; at += 32) {
    // The next 32 tokens, as far as they are this id's.
    const int mine = at + lane < tokens ? order[at + lane] : 0;
    const bool same = at + lane < tokens && ids[mine] == id;
    const unsigned others = ~__ballot_sync(0xFFFFFFFFU, same);
    const int count = others == 0 ? 32 : __ffs(static_cast<int>(others)) - 1;
    constexpr int kAhead = 8;
    for (int i = 0; i < count; i += kAhead) {
      Floats<V> next[kAhead];
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        const int token = __shfl_sync(0xFFFFFFFFU, mine, min(i + u, 31));
        next[u] = live && i + u < count ? load<V>(dout.row(token) + column) : Floats<V>{};
      }
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        if (i + u >= count) break;
#pragma unroll
        for (int v = 0; v < V; ++v) sum.v[v] += next[u].v[v];
      }
    }
    if (count < 32) break;
  }
  if (live) store<V>(to, sum);
}

}  // namespace

void embedding(const Context& ctx, const Embedding& a) {
  if (a.table.dtype == DType::kF32) {
    embedding_rows<float>(ctx, a.table.as<float>(), a.ids.data(), a.out);
  } else {
    embedding_rows<Bf16>(ctx, a.table.as<Bf16>(), a.ids.data(), a.out);
  }
}

void embedding_backward(const Context& ctx, const EmbeddingBackward<float>& a) {
  const int tokens = a.dout.rows;
  if (tokens == 0 || a.dout.cols == 0) return;
  auto* order = static_cast<std::int32_t*>(
      device_of(ctx).scratch(kScratchA, static_cast<std::size_t>(tokens) * 4));
  stable_order(ctx, {a.ids.data(), 1, tokens, tokens}, a.dtable.rows, order, nullptr);
  const bool packs = in_packs<4>(a.dout) && in_packs<4>(a.dtable);
  const auto kernel = packs ? embedding_backward_kernel<4> : embedding_backward_kernel<1>;
  const int chunks = ceil_div(a.dout.cols, packs ? 128 : 32);
  kernel<<<ceil_div(std::int64_t{tokens} * chunks, kWarps), 32 * kWarps, 0, stream_of(ctx)>>>(
      a.ids.data(), order, a.dout, a.dtable, chunks);
  check_launch("embedding_backward");
}

}  // namespace cachalot::cuda
