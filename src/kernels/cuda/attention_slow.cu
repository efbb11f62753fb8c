#include "kernels/cuda/attention_slow.cuh"

#include <algorithm>

#include "kernels/cuda/attention_work.cuh"

namespace cachalot::cuda::attn {

namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps;

// One operand of products: floats or bf16, rounded to bf16 where products are of bf16.
struct Values {
  const float* data = nullptr;
  const Bf16* bf16 = nullptr;  // read instead, if there
  std::ptrdiff_t stride = 0;
  bool round = false;

  __device__ float at(std::int64_t row, int col) const {
    const std::int64_t i = row * stride + col;
    if (bf16 != nullptr) return __uint_as_float(std::uint32_t{bf16[i].bits} << 16);
    return rounded(data[i]);
  }
  __device__ float rounded(float x) const {
    return round ? __bfloat162float(__float2bfloat16_rn(x)) : x;
  }
};

Values values(MatView<const float> m, MatView<const Bf16> bf16, Precision precision) {
  const bool round = precision == Precision::kBF16;
  if (bf16.rows > 0) return {nullptr, bf16.data, bf16.stride, round};
  return {m.data, nullptr, m.stride, round};
}

struct Problem {
  Values q, kv, k_rope;
  const AttentionSpan* spans;
  int span_count;
  AttentionDims d;
  float scale;

  __device__ int width() const { return d.nope + d.rope; }
  __device__ float query(std::int64_t row, int head, int c) const {
    return q.at(row, head * width() + c);
  }
  __device__ float key(std::int64_t row, int head, int c) const {
    return c < d.nope ? kv.at(row, head * (d.nope + d.value) + c) : k_rope.at(row, c - d.nope);
  }
  __device__ float value(std::int64_t row, int head, int c) const {
    return kv.at(row, head * (d.nope + d.value) + d.nope + c);
  }
};

Problem problem_of(const Context& ctx, const Inputs& a) {
  return {values(a.q, a.q_bf16, a.precision),
          values(a.kv, a.kv_bf16, a.precision),
          values(a.k_rope, {}, a.precision),
          stage(ctx, a.spans),
          static_cast<int>(a.spans.size()),
          a.dims,
          a.scale};
}

__device__ float warp_sum(float x) {
  for (int i = 16; i > 0; i /= 2) x += __shfl_xor_sync(~0u, x, i);
  return x;
}
__device__ float warp_max(float x) {
  for (int i = 16; i > 0; i /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, i));
  return x;
}

// fn(span, row, head) by one warp for every row below rows(span) and every head.
template <class Rows, class Fn>
__device__ void for_each_row(const Problem& p, Rows&& rows, Fn&& fn) {
  const std::int64_t warp = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  const std::int64_t row = warp / p.d.heads;
  const int head = static_cast<int>(warp % p.d.heads);
  for (int s = blockIdx.y; s < p.span_count; s += gridDim.y) {
    if (row < rows(p.spans[s])) fn(p.spans[s], static_cast<int>(row), head);
  }
}

extern __shared__ float shared[];
__device__ float* warp_room(int floats) { return shared + threadIdx.x / 32 * floats; }

__global__ void forward_kernel(Problem p, float* out, std::ptrdiff_t out_stride, float* lse,
                               std::ptrdiff_t lse_stride) {
  const int lane = threadIdx.x % 32, width = p.width(), columns = p.d.value;
  float* query = warp_room(width + columns);
  float* sum = query + width;
  for_each_row(
      p, [](const AttentionSpan& s) { return s.q_rows; },
      [&](const AttentionSpan& span, int i, int head) {
        const std::int64_t row = span.q_begin + i;
        const int seen = span.kv_rows - span.q_rows + i + 1;
        __syncwarp();
        for (int c = lane; c < width; c += 32) query[c] = p.query(row, head, c);
        for (int c = lane; c < columns; c += 32) sum[c] = 0;
        __syncwarp();
        float max = -INFINITY, total = 0;
        for (int first = 0; first < seen; first += 32) {
          const int key = first + lane;
          float score = -INFINITY;
          if (key < seen) {
            score = 0;
            for (int c = 0; c < width; ++c) {
              score = fmaf(query[c], p.key(span.kv_begin + key, head, c), score);
            }
            score *= p.scale;
          }
          const float larger = fmaxf(max, warp_max(score));
          const float factor = expf(max - larger), e = expf(score - larger);
          max = larger;
          total = fmaf(total, factor, warp_sum(e));
          for (int c = lane; c < columns; c += 32) sum[c] *= factor;
          for (int t = 0; t < min(32, seen - first); ++t) {
            const float weight = p.q.rounded(__shfl_sync(~0u, e, t));
            for (int c = lane; c < columns; c += 32) {
              sum[c] = fmaf(weight, p.value(span.kv_begin + first + t, head, c), sum[c]);
            }
          }
        }
        for (int c = lane; c < columns; c += 32) {
          out[row * out_stride + head * columns + c] = sum[c] / total;
        }
        if (lse != nullptr && lane == 0) lse[row * lse_stride + head] = max + logf(total);
      });
}

struct Gradient {
  MatView<const float> out, lse, dout_floats;
  Values dout;   // as it enters products
  float* delta;  // [T, H]
  MatView<float> dq, dkv;
  float* dk_rope_of_heads;  // [S, H, R]
};

__global__ void delta_kernel(Problem p, Gradient g) {
  const int lane = threadIdx.x % 32;
  for_each_row(
      p, [](const AttentionSpan& s) { return s.q_rows; },
      [&](const AttentionSpan& span, int i, int head) {
        const std::int64_t row = span.q_begin + i;
        float sum = 0;
        for (int c = lane; c < p.d.value; c += 32) {
          const int col = head * p.d.value + c;
          sum = fmaf(g.dout_floats.row(row)[col], g.out.row(row)[col], sum);
        }
        sum = warp_sum(sum);
        if (lane == 0) g.delta[row * p.d.heads + head] = sum;
      });
}

// The probability that query `row` gave to `key`, and the gradient of their score.
struct Pair {
  float probability = 0, gradient = 0;
};
__device__ Pair pair_of(const Problem& p, const Gradient& g, std::int64_t row, std::int64_t key,
                        int head) {
  float score = 0, dp = 0;
  for (int c = 0; c < p.width(); ++c) {
    score = fmaf(p.query(row, head, c), p.key(key, head, c), score);
  }
  for (int c = 0; c < p.d.value; ++c) {
    dp = fmaf(g.dout.at(row, head * p.d.value + c), p.value(key, head, c), dp);
  }
  const float e = expf(fmaf(score, p.scale, -g.lse.row(row)[head]));
  return {p.q.rounded(e), p.q.rounded(e * (dp - g.delta[row * p.d.heads + head]))};
}

__global__ void query_gradient_kernel(Problem p, Gradient g) {
  const int lane = threadIdx.x % 32, width = p.width();
  float* dq = warp_room(width);
  for_each_row(
      p, [](const AttentionSpan& s) { return s.q_rows; },
      [&](const AttentionSpan& span, int i, int head) {
        const std::int64_t row = span.q_begin + i;
        const int seen = span.kv_rows - span.q_rows + i + 1;
        for (int c = lane; c < width; c += 32) dq[c] = 0;
        for (int first = 0; first < seen; first += 32) {
          Pair mine;
          if (first + lane < seen) mine = pair_of(p, g, row, span.kv_begin + first + lane, head);
          for (int t = 0; t < min(32, seen - first); ++t) {
            const float weight = __shfl_sync(~0u, mine.gradient, t);
            for (int c = lane; c < width; c += 32) {
              dq[c] = fmaf(weight, p.key(span.kv_begin + first + t, head, c), dq[c]);
            }
          }
        }
        for (int c = lane; c < width; c += 32) g.dq.row(row)[head * width + c] = p.scale * dq[c];
      });
}

__global__ void key_gradient_kernel(Problem p, Gradient g) {
  const int lane = threadIdx.x % 32, width = p.width(), columns = p.d.value;
  float* dk = warp_room(width + columns);
  float* dv = dk + width;
  for_each_row(
      p, [](const AttentionSpan& s) { return s.kv_rows; },
      [&](const AttentionSpan& span, int j, int head) {
        const std::int64_t key = span.kv_begin + j;
        for (int c = lane; c < width + columns; c += 32) dk[c] = 0;
        for (int first = max(0, j - (span.kv_rows - span.q_rows)); first < span.q_rows;
             first += 32) {
          Pair mine;
          if (first + lane < span.q_rows)
            mine = pair_of(p, g, span.q_begin + first + lane, key, head);
          for (int t = 0; t < min(32, span.q_rows - first); ++t) {
            const std::int64_t row = span.q_begin + first + t;
            const float probability = __shfl_sync(~0u, mine.probability, t);
            const float gradient = __shfl_sync(~0u, mine.gradient, t);
            for (int c = lane; c < columns; c += 32) {
              dv[c] = fmaf(probability, g.dout.at(row, head * columns + c), dv[c]);
            }
            for (int c = lane; c < width; c += 32) {
              dk[c] = fmaf(gradient, p.query(row, head, c), dk[c]);
            }
          }
        }
        float* dkv = g.dkv.row(key) + head * (p.d.nope + columns);
        float* rope = g.dk_rope_of_heads + (key * p.d.heads + head) * p.d.rope;
        for (int c = lane; c < p.d.nope; c += 32) dkv[c] = p.scale * dk[c];
        for (int c = lane; c < p.d.rope; c += 32) rope[c] = p.scale * dk[p.d.nope + c];
        for (int c = lane; c < columns; c += 32) dkv[p.d.nope + c] = dv[c];
      });
}

template <class Kernel, class... Args>
void launch(const Context& ctx, const char* name, Kernel kernel, const Inputs& a, bool keys,
            int floats, const Args&... args) {
  std::int64_t rows = 0;
  for (const AttentionSpan& s : a.spans)
    rows = std::max(rows, std::int64_t{keys ? s.kv_rows : s.q_rows});
  if (rows == 0) return;
  const int bytes = floats * kWarps * static_cast<int>(sizeof(float));
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), name);
  const dim3 grid(static_cast<unsigned>(ceil_div(rows * a.dims.heads, kWarps)),
                  static_cast<unsigned>(std::min<std::size_t>(a.spans.size(), 65535)));
  kernel<<<grid, kThreads, static_cast<std::size_t>(bytes), stream_of(ctx)>>>(args...);
  check_launch(name);
}

}  // namespace

void forward_slow(const Context& ctx, const Attention<float>& a) {
  const Inputs inputs = inputs_of(a);
  launch(ctx, "attention: slow forward", forward_kernel, inputs, false,
         a.dims.nope + a.dims.rope + a.dims.value, problem_of(ctx, inputs), a.out.data,
         a.out.stride, a.lse.cols != 0 ? a.lse.data : nullptr, a.lse.stride);
}

void backward_slow(const Context& ctx, const AttentionBackward<float>& a) {
  const Inputs inputs = inputs_of(a);
  const Problem problem = problem_of(ctx, inputs);
  const int width = a.dims.nope + a.dims.rope;
  const auto heads = static_cast<std::size_t>(a.dims.heads);
  Room room;
  const std::size_t delta = room.take(sizeof(float) * static_cast<std::size_t>(a.q.rows) * heads);
  const std::size_t rope = room.take(sizeof(float) * static_cast<std::size_t>(a.kv.rows) * heads *
                                     static_cast<std::size_t>(a.dims.rope));
  if (room.bytes() == 0) return;
  auto* scratch = static_cast<std::byte*>(device_of(ctx).scratch(kScratchAttention, room.bytes()));
  const Gradient g{a.out,
                   a.lse,
                   a.dout,
                   values(a.dout, {}, a.precision),
                   reinterpret_cast<float*>(scratch + delta),
                   a.dq,
                   a.dkv,
                   reinterpret_cast<float*>(scratch + rope)};
  launch(ctx, "attention: slow delta", delta_kernel, inputs, false, 0, problem, g);
  launch(ctx, "attention: slow dq", query_gradient_kernel, inputs, false, width, problem, g);
  launch(ctx, "attention: slow dkv", key_gradient_kernel, inputs, true, width + a.dims.value,
         problem, g);
  sum_over_heads(ctx, a, g.dk_rope_of_heads, a.dims.rope);
}

}  // namespace cachalot::cuda::attn
