// Ops on elements and rows: rotations, SwiGLU, dropout, copies, the sum of squares.
#include "kernels/cuda/ops.h"
#include "kernels/cuda/row_ops.cuh"

namespace cachalot::cuda {

namespace {

// A pack of V = 2 n columns: n pairs, whose angles are cos[0..n).
template <int V>
__device__ void rotate(Floats<V>& x, const Floats<V / 2>& cos, const Floats<V / 2>& sin,
                       float sign) {
#pragma unroll
  for (int i = 0; i < V / 2; ++i) {
    const float c = cos.v[i], s = sign * sin.v[i];
    const float even = x.v[2 * i], odd = x.v[2 * i + 1];
    x.v[2 * i] = even * c - odd * s;
    x.v[2 * i + 1] = even * s + odd * c;
  }
}

// One pack is two pairs of one head, or one pair where the columns do not lie so.
template <int V>
struct RopeOp {
  Rope<float> a;
  int packs_per_head;
  __device__ void operator()(int row, int pack) const {
    const int head = pack / packs_per_head, at = pack % packs_per_head;  // pairs V / 2 * at ...
    float* x = a.x.row(row) + static_cast<std::ptrdiff_t>(head) * a.head_stride + a.offset + V * at;
    const auto cos = load<V / 2>(a.cos.row(row) + V / 2 * at);
    const auto sin = load<V / 2>(a.sin.row(row) + V / 2 * at);
    Floats<V> values;
    if constexpr (V == 2) {
      values.v[0] = x[0], values.v[1] = x[1];
    } else {
      values = load<V>(x);
    }
    rotate<V>(values, cos, sin, a.inverse ? -1.0F : 1.0F);
    if constexpr (V == 2) {
      x[0] = values.v[0], x[1] = values.v[1];
    } else {
      store<V>(x, values);
    }
  }
};

template <int V>
struct RopeBf16Op {
  RopeBf16 a;
  __device__ void operator()(int row, int pack) const {
    auto x = load<V>(a.x.row(row) + V * pack);
    const int at = V * pack % a.head_stride - a.offset;  // among the rotated columns
    if (at >= 0 && at < 2 * a.cos.cols) {
      const auto cos = load<V / 2>(a.cos.row(row) + at / 2);
      const auto sin = load<V / 2>(a.sin.row(row) + at / 2);
      rotate<V>(x, cos, sin, a.inverse ? -1.0F : 1.0F);
    }
    store<V>(a.out.row(row) + V * pack, x);
  }
};
struct RopeBf16Element {  // any offset and stride: each element finds its partner
  RopeBf16 a;
  __device__ void operator()(int row, int column) const {
    const float* x = a.x.row(row);
    const int at = column % a.head_stride - a.offset;
    float y = x[column];
    if (at >= 0 && at < 2 * a.cos.cols) {
      const float c = a.cos.row(row)[at / 2];
      const float s = a.inverse ? -a.sin.row(row)[at / 2] : a.sin.row(row)[at / 2];
      y = at % 2 == 0 ? y * c - x[column + 1] * s : x[column - 1] * s + y * c;
    }
    store<1>(a.out.row(row) + column, Floats<1>{{y}});
  }
};

// Rotated columns alone, where they are. V = 2: one pair, wherever it lies.
template <int V>
struct RopeInPlaceOp {
  RopeBf16 a;
  int packs_per_head;
  __device__ void operator()(int row, int pack) const {
    const int head = pack / packs_per_head, at = pack % packs_per_head;
    Bf16* x =
        a.out.row(row) + static_cast<std::ptrdiff_t>(head) * a.head_stride + a.offset + V * at;
    Floats<V / 2> cos, sin;
    Floats<V> values;
    if constexpr (V == 2) {
      cos = load<1>(a.cos.row(row) + at), sin = load<1>(a.sin.row(row) + at);
      values = {{widen(x[0].bits), widen(x[1].bits)}};
    } else {
      cos = load<V / 2>(a.cos.row(row) + V / 2 * at),
      sin = load<V / 2>(a.sin.row(row) + V / 2 * at);
      values = load<V>(x);
    }
    rotate<V>(values, cos, sin, a.inverse ? -1.0F : 1.0F);
    if constexpr (V == 2) {
      store<1>(x, Floats<1>{{values.v[0]}}), store<1>(x + 1, Floats<1>{{values.v[1]}});
    } else {
      store<V>(x, values);
    }
  }
};

// For results in bf16 the fast exponential and quotient are good to 2^-20, far below their steps;
// the exact ones would take as long as the memory does.
template <bool Fast>
__device__ float sigmoid(float x) {
  if constexpr (Fast) return __fdividef(1.0F, 1.0F + __expf(-x));
  return 1.0F / (1.0F + expf(-x));
}
// 1 / (1 + exp(-x)) is 0 from about -88 down with the fast quotient, as its product with x nearly
// is; bf16 keeps none of the difference but denormals.

template <class T>
inline constexpr bool kIsBf16 = std::is_same_v<std::remove_const_t<T>, Bf16>;

template <int V, class T>
struct SwigluOp {
  MatView<const T> gate, up;
  MatView<T> out;
  __device__ void operator()(int row, int pack) const {
    const auto g = load<V>(gate.row(row) + V * pack), u = load<V>(up.row(row) + V * pack);
    Floats<V> y;
#pragma unroll
    for (int i = 0; i < V; ++i) y.v[i] = g.v[i] * sigmoid<kIsBf16<T>>(g.v[i]) * u.v[i];
    store<V>(out.row(row) + V * pack, y);
  }
};
template <class T>
void swiglu_rows(const Context& ctx, MatView<const T> gate, MatView<const T> up, MatView<T> out) {
  constexpr int kV = 16 / sizeof(T);
  if (in_packs<kV>(gate) && in_packs<kV>(up) && in_packs<kV>(out)) {
    for_packs(ctx, "swiglu", out.rows, out.cols / kV, SwigluOp<kV, T>{gate, up, out});
  } else {
    for_packs(ctx, "swiglu", out.rows, out.cols, SwigluOp<1, T>{gate, up, out});
  }
}

// A block per row, for the sum that is the weight's gradient.
template <int V, class T>
__global__ void __launch_bounds__(256)
    swiglu_backward_kernel(MatView<const T> gate, MatView<const T> up, MatView<const T> dout,
                           MatView<T> dgate, MatView<T> dup, MatView<T> hidden,
                           const float* weights, float* dweight) {
  __shared__ float room[32];
  const int row = static_cast<int>(blockIdx.x), packs = dout.cols / V;
  const float weight = weights != nullptr ? weights[row] : 1.0F;
  float sum = 0;
  for (int p = static_cast<int>(threadIdx.x); p < packs; p += static_cast<int>(blockDim.x)) {
    const auto g = load<V>(gate.row(row) + V * p), u = load<V>(up.row(row) + V * p),
               d = load<V>(dout.row(row) + V * p);
    Floats<V> dg, du, h;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float s = sigmoid<kIsBf16<T>>(g.v[i]);
      const float silu = g.v[i] * s, wd = weight * d.v[i];
      const float plain = silu * u.v[i];
      sum += d.v[i] * plain;
      dg.v[i] = wd * u.v[i] * s * (1.0F + g.v[i] * (1.0F - s));
      du.v[i] = wd * silu;
      h.v[i] = weight * plain;
    }
    store<V>(dgate.row(row) + V * p, dg);
    store<V>(dup.row(row) + V * p, du);
    if (hidden.rows > 0) store<V>(hidden.row(row) + V * p, h);
  }
  if (dweight == nullptr) return;
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) dweight[row] = sum;
}

template <class T, class Args>
void swiglu_backward_rows(const Context& ctx, const Args& a) {
  const int rows = a.dout.rows, cols = a.dout.cols;
  if (rows == 0) return;
  constexpr int kV = 16 / sizeof(T);
  const bool fast = in_packs<kV>(a.gate) && in_packs<kV>(a.up) && in_packs<kV>(a.dout) &&
                    in_packs<kV>(a.dgate) && in_packs<kV>(a.dup) &&
                    (a.hidden.rows == 0 || in_packs<kV>(a.hidden));
  const auto kernel = fast ? swiglu_backward_kernel<kV, T> : swiglu_backward_kernel<1, T>;
  kernel<<<rows, row_threads(fast ? cols / kV : cols), 0, stream_of(ctx)>>>(
      a.gate, a.up, a.dout, a.dgate, a.dup, a.hidden, a.weight.empty() ? nullptr : a.weight.data(),
      a.dweight.empty() ? nullptr : a.dweight.data());
  check_launch("swiglu_backward");
}

template <int V>
struct CopyOp {
  MatView<const float> x;
  MatView<float> out;
  __device__ void operator()(int row, int pack) const {
    store<V>(out.row(row) + V * pack, load<V>(x.row(row) + V * pack));
  }
};
template <int V>
struct ZeroOp {
  MatView<float> out;
  __device__ void operator()(int row, int pack) const {
    store<V>(out.row(row) + V * pack, Floats<V>{});
  }
};

// Philox-4x32-10, as base/rng.h.
__device__ uint4 philox(std::uint64_t counter, std::uint64_t stream, std::uint64_t seed) {
  auto c0 = static_cast<unsigned>(counter), c1 = static_cast<unsigned>(counter >> 32);
  auto c2 = static_cast<unsigned>(stream), c3 = static_cast<unsigned>(stream >> 32);
  auto k0 = static_cast<unsigned>(seed), k1 = static_cast<unsigned>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const unsigned high0 = __umulhi(0xD2511F53U, c0), low0 = 0xD2511F53U * c0;
    const unsigned high1 = __umulhi(0xCD9E8D57U, c2), low1 = 0xCD9E8D57U * c2;
    c0 = high1 ^ c1 ^ k0, c1 = low1, c2 = high0 ^ c3 ^ k1, c3 = low0;
    k0 += 0x9E3779B9U, k1 += 0xBB67AE85U;
  }
  return make_uint4(c0, c1, c2, c3);
}

// A thread per counter: its four words are two neighbours in each quarter of a group of 128, so 16
// threads read whole lines.
template <bool Pairs>
struct DropoutOp {
  Dropout<float> a;
  unsigned threshold;
  float scale;
  __device__ float one(float x, float y, unsigned bits) const {
    const float value = bits >= threshold ? __fmul_rn(x, scale) : 0.0F;
    return a.accumulate ? __fadd_rn(y, value) : value;
  }
  __device__ void operator()(int row, int at) const {
    const int cols = a.x.cols, groups = (cols + 127) / 128;
    const auto counter =
        static_cast<std::uint64_t>(a.mask.first_row + row) * static_cast<unsigned>(groups) * 16 +
        static_cast<unsigned>(at);
    const uint4 bits = philox(counter, a.mask.stream, a.mask.seed);
    const unsigned words[4] = {bits.x, bits.y, bits.z, bits.w};
    const float* x = a.x.row(row);
    float* y = a.y.row(row);
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const int j = at / 16 * 128 + w * 32 + at % 16 * 2;
      const unsigned low = words[w] & 0xFFFFU, high = words[w] >> 16;
      if (Pairs && j + 1 < cols) {
        const auto in = load<2>(x + j);
        const auto old = a.accumulate ? load<2>(y + j) : Floats<2>{};
        store<2>(y + j, {{one(in.v[0], old.v[0], low), one(in.v[1], old.v[1], high)}});
      } else {
        if (j < cols) y[j] = one(x[j], a.accumulate ? y[j] : 0.0F, low);
        if (j + 1 < cols) y[j + 1] = one(x[j + 1], a.accumulate ? y[j + 1] : 0.0F, high);
      }
    }
  }
};

constexpr int kSumThreads = 256;
constexpr std::int64_t kSumChunk = 32768;  // elements of a block

__global__ void __launch_bounds__(kSumThreads)
    sum_squares_kernel(const float* x, std::int64_t n, bool aligned, double* sums) {
  __shared__ double room[32];
  const std::int64_t begin = kSumChunk * blockIdx.x;
  const auto count = static_cast<int>(min(kSumChunk, n - begin));
  const int packs = aligned ? count / 4 : 0, first = static_cast<int>(threadIdx.x);
  double sum = 0;
#pragma unroll 8
  for (int p = first; p < packs; p += kSumThreads) {
    const auto v = load<4>(x + begin + 4 * p);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum += static_cast<double>(v.v[i]) * static_cast<double>(v.v[i]);
  }
  for (int i = 4 * packs + first; i < count; i += kSumThreads) {
    const double v = x[begin + i];
    sum += v * v;
  }
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}
__global__ void __launch_bounds__(1024) sum_kernel(const double* sums, int n, double* total) {
  __shared__ double room[32];
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += 1024) sum += sums[i];
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) *total = sum;
}

}  // namespace

void rope(const Context& ctx, const Rope<float>& a) {
  const int pairs = a.cos.cols;
  const bool fast = pairs % 2 == 0 && a.offset % 4 == 0 &&
                    (a.heads == 1 || a.head_stride % 4 == 0) &&
                    in_packs<4>(a.x.data, a.x.rows > 1 ? a.x.stride : 0, 0) && in_packs<2>(a.cos) &&
                    in_packs<2>(a.sin);
  const int per_head = fast ? pairs / 2 : pairs;
  if (fast) {
    for_packs(ctx, "rope", a.x.rows, a.heads * per_head, RopeOp<4>{a, per_head});
  } else {
    for_packs(ctx, "rope", a.x.rows, a.heads * per_head, RopeOp<2>{a, per_head});
  }
}

void rope_bf16(const Context& ctx, const RopeBf16& a) {
  constexpr int kV = 8;
  const bool in_place = a.x.data == nullptr;
  const bool fast = a.offset % kV == 0 && a.head_stride % kV == 0 && a.cos.cols % (kV / 2) == 0 &&
                    (in_place || in_packs<kV>(a.x)) && in_packs<kV>(a.out) &&
                    in_packs<kV / 2>(a.cos) && in_packs<kV / 2>(a.sin);
  if (in_place) {
    const int packs = fast ? a.cos.cols / (kV / 2) : a.cos.cols;  // of a head
    if (fast) {
      for_packs(ctx, "rope_bf16", a.out.rows, a.heads * packs, RopeInPlaceOp<kV>{a, packs});
    } else {
      for_packs(ctx, "rope_bf16", a.out.rows, a.heads * packs, RopeInPlaceOp<2>{a, packs});
    }
  } else if (fast) {
    for_packs(ctx, "rope_bf16", a.x.rows, a.x.cols / kV, RopeBf16Op<kV>{a});
  } else {
    for_packs(ctx, "rope_bf16", a.x.rows, a.x.cols, RopeBf16Element{a});
  }
}

void swiglu(const Context& ctx, const Swiglu<float>& a) {
  swiglu_rows<float>(ctx, a.gate, a.up, a.out);
}
void swiglu_bf16(const Context& ctx, const SwigluBf16& a) {
  swiglu_rows<Bf16>(ctx, a.gate, a.up, a.out);
}
void swiglu_backward(const Context& ctx, const SwigluBackward<float>& a) {
  swiglu_backward_rows<float>(ctx, a);
}
void swiglu_backward_bf16(const Context& ctx, const SwigluBackwardBf16& a) {
  swiglu_backward_rows<Bf16>(ctx, a);
}

void copy_rows(const Context& ctx, MatView<const float> x, MatView<float> out) {
  if (in_packs<4>(x) && in_packs<4>(out)) {
    for_packs(ctx, "copy_rows", x.rows, x.cols / 4, CopyOp<4>{x, out});
  } else {
    for_packs(ctx, "copy_rows", x.rows, x.cols, CopyOp<1>{x, out});
  }
}
void zero_rows(const Context& ctx, MatView<float> out) {
  if (in_packs<4>(out)) {
    for_packs(ctx, "zero_rows", out.rows, out.cols / 4, ZeroOp<4>{out});
  } else {
    for_packs(ctx, "zero_rows", out.rows, out.cols, ZeroOp<1>{out});
  }
}

void dropout(const Context& ctx, const Dropout<float>& a) {
  const unsigned threshold = dropout_threshold(a.mask.rate);
  const float scale = dropout_scale(threshold);
  const int counters = ceil_div(a.x.cols, 128) * 16;
  const bool pairs = in_packs<2>(a.x.data, a.x.rows > 1 ? a.x.stride : 0, 0) &&
                     in_packs<2>(a.y.data, a.y.rows > 1 ? a.y.stride : 0, 0);
  if (pairs) {
    for_packs(ctx, "dropout", a.x.rows, counters, DropoutOp<true>{a, threshold, scale});
  } else {
    for_packs(ctx, "dropout", a.x.rows, counters, DropoutOp<false>{a, threshold, scale});
  }
}

double sum_squares(const Context& ctx, std::span<const float> x) {
  if (x.empty()) return 0;
  const auto n = static_cast<std::int64_t>(x.size());
  const int blocks = ceil_div(n, kSumChunk);
  CudaDevice& device = device_of(ctx);
  auto* sums = static_cast<double*>(
      device.scratch(kScratchSums, (static_cast<std::size_t>(blocks) + 1) * sizeof(double)));
  const bool aligned = in_packs<4>(x.data(), 0, 0);
  sum_squares_kernel<<<blocks, kSumThreads, 0, device.stream()>>>(x.data(), n, aligned, sums);
  check_launch("sum_squares");
  sum_kernel<<<1, 1024, 0, device.stream()>>>(sums, blocks, sums + blocks);
  check_launch("sum_squares");
  double total = 0;
  device.download(&total, sums + blocks, sizeof total);
  return total;
}

}  // namespace cachalot::cuda
