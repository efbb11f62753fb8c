// Rows from token order to expert order and back.
#include "kernels/cuda/counting_sort.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/row_ops.cuh"

namespace cachalot::cuda {

namespace {

// From the numbers of the choices in order of expert: each row's token and each expert's first row.
__global__ void __launch_bounds__(256)
    finish_order_kernel(MatView<const std::int32_t> index, int experts, const std::int32_t* order,
                        std::int32_t* token, std::int32_t* begin) {
  const int n = index.rows * index.cols, k = index.cols;
  const int row = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (row > n) return;
  const auto expert_of = [&](int r) { return index.row(order[r] / k)[order[r] % k]; };
  if (row < n) token[row] = order[row] / k;
  const int before = row == 0 ? -1 : expert_of(row - 1), here = row == n ? experts : expert_of(row);
  for (int e = before + 1; e <= here; ++e) begin[e] = row;
}

// The same of few choices, from the choices themselves: a row is how many come before, each thread
// looks at all of them.
constexpr int kFewChoices = 1024, kFewThreads = 128;
__global__ void __launch_bounds__(kFewThreads)
    order_few_kernel(MatView<const std::int32_t> index, int experts, std::int32_t* token,
                     std::int32_t* slot, std::int32_t* begin) {
  __shared__ std::int32_t chosen[kFewChoices];
  const int n = index.rows * index.cols, k = index.cols;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kFewThreads) {
    chosen[i] = index.row(i / k)[i % k];
  }
  __syncthreads();
  const int i = static_cast<int>(blockIdx.x * kFewThreads + threadIdx.x);
  if (i < n) {
    const int mine = chosen[i];
    int row = 0;
    for (int j = 0; j < n; ++j) row += chosen[j] < mine || (chosen[j] == mine && j < i) ? 1 : 0;
    slot[i] = row;
    token[row] = i / k;
    return;
  }
  const int expert = i - n;
  if (expert > experts) return;
  int before = 0;
  for (int j = 0; j < n; ++j) before += chosen[j] < expert ? 1 : 0;
  begin[expert] = before;
}

template <bool ToRows>
__global__ void __launch_bounds__(256)
    choices_kernel(MatView<float> choices, MatView<const std::int32_t> slot, float* rows) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= slot.rows * slot.cols) return;
  const int t = i / slot.cols, j = i % slot.cols;
  if constexpr (ToRows) {
    rows[slot.row(t)[j]] = choices.row(t)[j];
  } else {
    choices.row(t)[j] = rows[slot.row(t)[j]];
  }
}
template <bool ToRows>
void move_choices(const Context& ctx, const RowsOfChoices& a) {
  const int n = a.slot.rows * a.slot.cols;
  if (n == 0) return;
  choices_kernel<ToRows>
      <<<ceil_div(n, 256), 256, 0, stream_of(ctx)>>>(a.choices, a.slot, a.rows.data());
  check_launch("choices_to_rows");
}

template <int V>
struct AddRowsOp {
  AddRows a;
  __device__ void operator()(int row, int pack) const {
    float* to = a.out.row(a.rows[static_cast<std::size_t>(row)]) + V * pack;
    const auto x = load<V>(a.x.row(row) + V * pack);
    auto sum = load<V>(to);
#pragma unroll
    for (int i = 0; i < V; ++i) sum.v[i] += x.v[i];
    store<V>(to, sum);
  }
};

template <int V, class T>
struct GatherOp {
  MatView<const float> x;
  const std::int32_t* rows;
  MatView<T> out;
  __device__ void operator()(int row, int pack) const {
    store<V>(out.row(row) + V * pack, load<V>(x.row(rows[row]) + V * pack));
  }
};

// Where each row of x is asked for several times, in an order that the L2 cache cannot help with
// (expert by expert), rows are taken in their own order instead: read once, written as often as
// they were asked for. Who asks is listed first; the order within a list does not matter, as all
// get the same.
struct Askers {
  static constexpr int kMost = 16;  // of a row; further ones are served one by one
  std::int32_t* counts;             // [x.rows]
  std::int32_t* left_over;          // [1] how many of `rest`
  std::int32_t* lists;              // [x.rows, kMost]
  std::int32_t* rest;               // [rows]
};
__global__ void __launch_bounds__(256)
    list_askers_kernel(const std::int32_t* rows, int n, Askers a) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  const int row = rows[i], at = atomicAdd(&a.counts[row], 1);
  if (at < Askers::kMost) {
    a.lists[std::int64_t{row} * Askers::kMost + at] = i;
  } else {
    a.rest[atomicAdd(a.left_over, 1)] = i;
  }
}
template <int V, class T>
struct ServeOp {
  MatView<const float> x;
  Askers askers;
  MatView<T> out;
  __device__ void operator()(int row, int pack) const {
    const int count = min(askers.counts[row], Askers::kMost);
    if (count == 0) return;
    const std::int32_t* list = askers.lists + std::int64_t{row} * Askers::kMost;
    const auto values = load<V>(x.row(row) + V * pack);
    for (int i = 0; i < count; ++i) store<V>(out.row(list[i]) + V * pack, values);
  }
};
template <int V, class T>
__global__ void __launch_bounds__(256)
    serve_rest_kernel(MatView<const float> x, const std::int32_t* rows, Askers askers,
                      MatView<T> out) {
  for (int i = static_cast<int>(blockIdx.x); i < *askers.left_over;
       i += static_cast<int>(gridDim.x)) {
    const int to = askers.rest[i];
    for (int p = static_cast<int>(threadIdx.x); p < out.cols / V; p += 256) {
      store<V>(out.row(to) + V * p, load<V>(x.row(rows[to]) + V * p));
    }
  }
}

template <int V, class T>
void gather_in_packs(const Context& ctx, MatView<const float> x, const std::int32_t* rows,
                     MatView<T> out) {
  constexpr std::int64_t kMuch = 64 << 20;  // bytes read of x, more than the L2 cache holds
  const std::int64_t read = std::int64_t{4} * out.rows * out.cols;
  if (out.rows < 2 * x.rows || read < kMuch) {
    for_packs(ctx, "gather_rows", out.rows, out.cols / V, GatherOp<V, T>{x, rows, out});
    return;
  }
  CudaDevice& device = device_of(ctx);
  const auto n = static_cast<std::size_t>(out.rows), from = static_cast<std::size_t>(x.rows);
  Askers a{};
  a.counts = static_cast<std::int32_t*>(
      device.scratch(kScratchSums, (from + 1 + from * Askers::kMost + n) * 4));
  a.left_over = a.counts + from;
  a.lists = a.left_over + 1;
  a.rest = a.lists + from * Askers::kMost;
  device.zero(a.counts, (from + 1) * 4);
  list_askers_kernel<<<ceil_div(out.rows, 256), 256, 0, device.stream()>>>(rows, out.rows, a);
  check_launch("gather_rows");
  for_packs(ctx, "gather_rows", x.rows, out.cols / V, ServeOp<V, T>{x, a, out});
  serve_rest_kernel<V, T><<<device.processors(), 256, 0, device.stream()>>>(x, rows, a, out);
  check_launch("gather_rows");
}
template <class T>
void gather(const Context& ctx, MatView<const float> x, const std::int32_t* rows, MatView<T> out) {
  constexpr int kV = 16 / sizeof(T);
  if (in_packs<kV>(x) && in_packs<kV>(out)) {
    gather_in_packs<kV, T>(ctx, x, rows, out);
  } else {
    for_packs(ctx, "gather_rows", out.rows, out.cols, GatherOp<1, T>{x, rows, out});
  }
}

template <int V, class T>
struct CombineOp {
  MatView<const T> y;
  MatView<const std::int32_t> slot;
  MatView<const float> weight;
  MatView<float> out;
  bool accumulate;
  __device__ void operator()(int token, int pack) const {
    constexpr int kAhead = 8;  // rows on their way at a time
    float* to = out.row(token) + V * pack;
    const std::int32_t* slots = slot.row(token);
    Floats<V> sum = {};
    for (int begin = 0; begin < slot.cols; begin += kAhead) {
      decltype(load_raw<V>(y.data)) rows[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (begin + j < slot.cols) rows[j] = load_raw<V>(y.row(slots[begin + j]) + V * pack);
      }
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (begin + j >= slot.cols) break;
        const float w = weight.rows > 0 ? weight.row(token)[begin + j] : 1.0F;
        const auto values = widen(rows[j]);
#pragma unroll
        for (int i = 0; i < V; ++i) sum.v[i] += w * values.v[i];
      }
    }
    if (accumulate) {
      const auto old = load<V>(to);
#pragma unroll
      for (int i = 0; i < V; ++i) sum.v[i] += old.v[i];
    }
    store<V>(to, sum);
  }
};
template <class T, class Args>
void combine_rows(const Context& ctx, const Args& a) {
  // A weight of no columns is a weight of nothing: k is 0 then.
  constexpr int kV = 16 / sizeof(T);
  if (in_packs<kV>(a.y) && in_packs<kV>(a.out)) {
    for_packs(ctx, "combine", a.out.rows, a.out.cols / kV,
              CombineOp<kV, T>{a.y, a.slot, a.weight, a.out, a.accumulate});
  } else {
    for_packs(ctx, "combine", a.out.rows, a.out.cols,
              CombineOp<1, T>{a.y, a.slot, a.weight, a.out, a.accumulate});
  }
}

// A block per token. dy may be y: a thread reads what it writes.
template <int V>
__global__ void __launch_bounds__(256) combine_backward_kernel(const CombineBackward<float> a) {
  constexpr int kAhead = 8;  // choices at a time
  __shared__ float room[2][32];
  const int token = static_cast<int>(blockIdx.x), packs = a.dout.cols / V, k = a.slot.cols;
  const float* dout = a.dout.row(token);
  const bool wanted = a.dweight.rows > 0;
  for (int begin = 0; begin < k; begin += kAhead) {
    int slots[kAhead];
    float weights[kAhead], dots[kAhead] = {};
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const bool live = begin + j < k;
      slots[j] = live ? a.slot.row(token)[begin + j] : -1;
      weights[j] = live && a.weight.rows > 0 ? a.weight.row(token)[begin + j] : 1.0F;
    }
    for (int p = static_cast<int>(threadIdx.x); p < packs; p += static_cast<int>(blockDim.x)) {
      const auto d = load<V>(dout + V * p);
      if (wanted) {
        Floats<V> y[kAhead];
#pragma unroll
        for (int j = 0; j < kAhead; ++j) {
          if (slots[j] >= 0) y[j] = load<V>(a.y.row(slots[j]) + V * p);
        }
#pragma unroll
        for (int j = 0; j < kAhead; ++j) {
          if (slots[j] < 0) break;
#pragma unroll
          for (int i = 0; i < V; ++i) dots[j] += d.v[i] * y[j].v[i];
        }
      }
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (slots[j] < 0) break;
        Floats<V> dy;
#pragma unroll
        for (int i = 0; i < V; ++i) dy.v[i] = weights[j] * d.v[i];
        store<V>(a.dy.row(slots[j]) + V * p, dy);
      }
    }
    if (!wanted) continue;
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      if (slots[j] < 0) break;
      const float dot = block_sum(dots[j], room[j % 2]);
      if (threadIdx.x == 0) a.dweight.row(token)[begin + j] = dot;
    }
  }
}

}  // namespace

void expert_order(const Context& ctx, MatView<const std::int32_t> index, int experts,
                  ExpertOrder& out) {
  const int tokens = index.rows, k = index.cols, n = tokens * k;
  out.begin.assign(static_cast<std::size_t>(experts) + 1, 0);
  {
    const MemoryScope scope(ctx.device);
    out.token.resize(1, n);
    out.slot.resize(tokens, k);
  }
  if (n == 0) return;
  CudaDevice& device = device_of(ctx);
  auto* order = static_cast<std::int32_t*>(device.scratch(
      kScratchA, (static_cast<std::size_t>(n) + static_cast<std::size_t>(experts) + 1) * 4));
  std::int32_t* begin = order + n;
  if (n <= kFewChoices) {
    order_few_kernel<<<ceil_div(std::int64_t{n} + experts + 1, kFewThreads), kFewThreads, 0,
                       device.stream()>>>(index, experts, out.token.data(), out.slot.data(), begin);
    check_launch("expert_order");
    device.download(out.begin.data(), begin, out.begin.size() * sizeof(std::int32_t));
    return;
  }
  stable_order(ctx, index, experts, order, out.slot.data());
  finish_order_kernel<<<ceil_div(std::int64_t{n} + 1, 256), 256, 0, device.stream()>>>(
      index, experts, order, out.token.data(), begin);
  check_launch("expert_order");
  device.download(out.begin.data(), begin, out.begin.size() * sizeof(std::int32_t));
}

void choices_to_rows(const Context& ctx, const RowsOfChoices& a) { move_choices<true>(ctx, a); }
void rows_to_choices(const Context& ctx, const RowsOfChoices& a) { move_choices<false>(ctx, a); }

void add_rows(const Context& ctx, const AddRows& a) {
  if (in_packs<4>(a.x) && in_packs<4>(a.out)) {
    for_packs(ctx, "add_rows", a.x.rows, a.x.cols / 4, AddRowsOp<4>{a});
  } else {
    for_packs(ctx, "add_rows", a.x.rows, a.x.cols, AddRowsOp<1>{a});
  }
}

void gather_rows(const Context& ctx, const GatherRows<float>& a) {
  gather<float>(ctx, a.x, a.rows.data(), a.out);
}
void gather_rows_bf16(const Context& ctx, const GatherRowsBf16& a) {
  gather<Bf16>(ctx, a.x, a.rows.data(), a.out);
}
void combine(const Context& ctx, const Combine<float>& a) { combine_rows<float>(ctx, a); }
void combine_bf16(const Context& ctx, const CombineBf16& a) { combine_rows<Bf16>(ctx, a); }

void combine_backward(const Context& ctx, const CombineBackward<float>& a) {
  const int tokens = a.dout.rows, cols = a.dout.cols;
  if (tokens == 0 || a.slot.cols == 0) return;
  const bool packs =
      in_packs<4>(a.dout) && in_packs<4>(a.dy) && (a.dweight.rows == 0 || in_packs<4>(a.y));
  const auto kernel = packs ? combine_backward_kernel<4> : combine_backward_kernel<1>;
  kernel<<<tokens, row_threads(packs ? cols / 4 : cols), 0, stream_of(ctx)>>>(a);
  check_launch("combine_backward");
}

}  // namespace cachalot::cuda
