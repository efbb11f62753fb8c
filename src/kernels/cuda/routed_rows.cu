// The experts of few rows without the host: a kernel sorts the rows by expert into groups of up to
// eight, two products of those stream the weights of whoever was chosen (rows_kernel.cuh; the first
// with gate and up side by side, so that a block has both and stores SwiGLU of them), and a last
// one adds up.
#include <algorithm>
#include <array>
#include <vector>

#include "kernels/cuda/ops.h"
#include "kernels/cuda/row_ops.cuh"
#include "kernels/cuda/rows_kernel.cuh"
#include "kernels/cuda/swiglu.cuh"
#include "kernels/routed_rows.h"

namespace cachalot::cuda {

namespace {

constexpr int kMostRows = 64, kMostChoices = 512, kMostExperts = 512;
constexpr int kGroupRows = 8;  // a tile of rows of x

// What one product reads of an expert; for gate and up the second matrix is up.
struct ExpertWeights {
  const std::uint8_t* w;
  const std::uint8_t* w_up;
  const void* scales;
  const void* scales_up;
};
struct Group {
  int expert, first, rows;  // of the sorted rows
};
// Sorted rows: those of experts, then every row once more for the shared expert.
struct Order {
  std::int32_t* slot;   // [T, k] sorted row of each choice
  std::int32_t* row;    // [T k + T] which of x
  Group* groups;        // of the experts, then of the shared one
  std::int32_t* count;  // [2] how many of each
};

__global__ void __launch_bounds__(kMostChoices)
    sort_rows_kernel(MatView<const std::int32_t> index, int experts, bool shared, Order to) {
  __shared__ std::int32_t chosen[kMostChoices];
  __shared__ std::int32_t eights[kMostExperts];
  after_those_before();
  const int n = index.rows * index.cols, k = index.cols, i = static_cast<int>(threadIdx.x);
  if (i < n) chosen[i] = index.row(i / k)[i % k];
  __syncthreads();
  if (i < n) {
    const int mine = chosen[i];
    int at = 0;
    for (int j = 0; j < n; ++j) at += chosen[j] < mine || (chosen[j] == mine && j < i) ? 1 : 0;
    to.slot[i] = at;
    to.row[at] = i / k;
  }
  int before = 0, mine = 0;
  for (int j = 0; j < n; ++j) {
    before += chosen[j] < i ? 1 : 0;
    mine += chosen[j] == i ? 1 : 0;
  }
  const int groups = i < experts ? (mine + kGroupRows - 1) / kGroupRows : 0;
  eights[i] = groups;
  __syncthreads();
  // Each thread adds those of the experts before its own.
  int first = 0;
  for (int e = 0; e < min(i, experts); ++e) first += eights[e];
  for (int g = 0; g < groups; ++g) {
    to.groups[first + g] = {i, before + g * kGroupRows, min(kGroupRows, mine - g * kGroupRows)};
  }
  const int of_shared = shared ? (index.rows + kGroupRows - 1) / kGroupRows : 0;
  __shared__ int total;
  if (i == static_cast<int>(blockDim.x) - 1) {  // it is behind all experts
    total = first + groups;
    to.count[0] = total;
    to.count[1] = of_shared;
  }
  __syncthreads();
  if (i < of_shared) {
    to.groups[total + i] = {experts, n + i * kGroupRows,
                            min(kGroupRows, index.rows - i * kGroupRows)};
  }
  if (shared && i < index.rows) to.row[n + i] = i;
}

// One product: [N, K] of the chosen experts, and another shape for the shared one.
struct Side {
  std::int64_t w_stride, scale_stride, x_stride, y_stride;
  const void* x;  // sorted row 0, or null: rows of `rows`
  void* y;
  int n, k, units;  // units of a group
  bool x_vectors;
};
struct RoutedProduct {
  const ExpertWeights* experts;
  Order order;
  bool chosen_rows;  // rows of x by order.row, else sorted rows
  Side side[2];      // of experts, of the shared one
};

// The job of a unit: whose group it belongs to.
struct RoutedJobs {
  const RoutedProduct& p;
  int groups, routed_units;

  __device__ explicit RoutedJobs(const RoutedProduct& product)
      : p(product), groups(product.order.count[0]), routed_units(groups * product.side[0].units) {}
  __device__ int units() const { return routed_units + p.order.count[1] * p.side[1].units; }
  __device__ RoutedRowsJob operator()(int unit) const {
    const bool shared = unit >= routed_units;
    const Side& side = p.side[shared ? 1 : 0];
    const int local = shared ? unit - routed_units : unit, of_side = local / side.units;
    const Group group = p.order.groups[of_side + (shared ? groups : 0)];
    const ExpertWeights& e = p.experts[group.expert];
    RoutedRowsJob job{};
    job.x = side.x;
    job.x_stride = side.x_stride;
    if (p.chosen_rows) {
      job.x_rows = p.order.row + group.first;
    } else {
      job.x = static_cast<const __nv_bfloat16*>(side.x) + group.first * side.x_stride;
    }
    job.w = e.w;
    job.w_up = e.w_up;
    job.scales = e.scales;
    job.scales_up = e.scales_up;
    job.w_stride = side.w_stride;
    job.scale_stride = side.scale_stride;
    job.y = static_cast<float*>(side.y) + group.first * side.y_stride;
    job.y_bf16 = static_cast<__nv_bfloat16*>(side.y) + group.first * side.y_stride;
    job.y_stride = side.y_stride;
    job.m = group.rows;
    job.n = side.n;
    job.k = side.k;
    job.group = 128;
    job.first = unit - (local - of_side * side.units);
    job.token_tiles = 1;
    job.w_vectors = true;
    job.x_vectors = side.x_vectors;
    return job;
  }
};

// kPair: x in floats, gate and up, SwiGLU of them in bf16. Else: x in bf16, results in floats.
template <class W, bool kPair>
__global__ void __launch_bounds__(kRowsThreads, RowsSizes<2, 1>::kBlocks)
    routed_kernel(const __grid_constant__ RoutedProduct product, int log_splits) {
  using Sizes = RowsSizes<2, 1>;
  constexpr int kRows = kPair ? Sizes::kRows / 2 : Sizes::kRows;  // of a tile's results
  extern __shared__ __align__(128) std::uint8_t shared[];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  std::uint8_t* ring = shared + warp * Sizes::kStages * Sizes::kStageBytes;
  auto* sums = reinterpret_cast<float*>(shared + kRowsWarps * Sizes::kStages * Sizes::kStageBytes);

  after_those_before();
  const RoutedJobs jobs(product);
  const int units = jobs.units();
  RowsStream<W, 2, 1, RoutedJobs, kPair> stream(jobs, units, log_splits, ring);
#pragma unroll 1
  for (int i = 0; i < Sizes::kStages - 1; ++i) stream.ask();
  int slot = 0;
  for (int unit = static_cast<int>(blockIdx.x); unit < units; unit += static_cast<int>(gridDim.x)) {
    const RoutedRowsJob job = jobs(unit);
    const auto row_bytes = static_cast<int>((static_cast<std::int64_t>(job.k) * W::kBits + 7) / 8);
    const RowsPlace place = place_of<kRows, 1>(job, unit, (row_bytes + 127) / 128, log_splits);
    RowsSums<W, 2, 1, kPair, RoutedRowsJob, kPair> mine(job, place);
    for (int piece = place.piece; piece < place.pieces; piece += 1 << log_splits) {
      asm volatile("cp.async.wait_group %0;" ::"n"(Sizes::kStages - 2) : "memory");
      __syncwarp();  // every lane's part has arrived, and nobody reads the slot that is asked next
      stream.ask();
      mine.add(ring + slot * Sizes::kStageBytes, piece);
      slot = slot + 1 == Sizes::kStages ? 0 : slot + 1;
    }
    mine.finish();
    // [warp][token][row], then the warps' sums in their order.
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int token = lane % 4 * 2 + e % 2, row = r * 16 + lane / 4 + e / 2 * 8;
        sums[(warp * 8 + token) * Sizes::kSumStride + row] = mine.sum[r][0][e];
      }
    }
    __syncthreads();
    const int tiles = kRowsWarps >> log_splits;
    const int block_row0 = place.row0 - (warp >> log_splits) * kRows;
    for (int i = static_cast<int>(threadIdx.x); i < tiles * job.m * kRows; i += kRowsThreads) {
      const int in_tile = i % kRows, token = i / kRows % job.m, tile = i / kRows / job.m;
      const int row = block_row0 + tile * kRows + in_tile;
      if (row >= job.n) continue;
      float total = 0, up = 0;
      for (int w = tile << log_splits; w < (tile + 1) << log_splits; ++w) {
        const float* of_warp = sums + (w * 8 + token) * Sizes::kSumStride + in_tile;
        total += of_warp[0];
        if constexpr (kPair) up += of_warp[kRows];
      }
      const std::int64_t at = token * job.y_stride + row;
      if constexpr (kPair) {
        job.y_bf16[at] = __float2bfloat16_rn(gated(total, up));
      } else {
        job.y[at] = total;
      }
    }
    __syncthreads();
  }
}

// Log2 of the warps that share a tile, as rows_splits has it, for about `groups` groups.
template <class W, bool kPair>
int splits_for(const RoutedProduct& p, const std::array<int, 2>& groups, int most_blocks) {
  constexpr std::int64_t kTileCost = 3;
  constexpr int kRows = kPair ? 16 : 32;
  int best = 0;
  std::int64_t least = 0;
  for (int log = 0; log <= 3; ++log) {
    std::int64_t units = 0, pieces = 0;
    for (std::size_t s = 0; s < 2; ++s) {
      if (groups[s] == 0) continue;
      units += std::int64_t{ceil_div(ceil_div(p.side[s].n, kRows), kRowsWarps >> log)} * groups[s];
      pieces =
          std::max<std::int64_t>(pieces, ceil_div(std::int64_t{p.side[s].k} * W::kBits, 128 * 8));
    }
    const std::int64_t rounds =
        ceil_div(units, most_blocks) * (ceil_div(pieces, std::int64_t{1} << log) + kTileCost);
    if (log == 0 || rounds < least) {
      best = log;
      least = rounds;
    }
  }
  return best;
}

template <class W, bool kPair>
void launch_product(const Context& ctx, RoutedProduct p, const std::array<int, 2>& groups) {
  using Sizes = RowsSizes<2, 1>;
  const int most_blocks = Sizes::kBlocks * device_of(ctx).processors();
  const int log_splits = splits_for<W, kPair>(p, groups, most_blocks);
  int units = 0;
  for (std::size_t s = 0; s < 2; ++s) {
    Side& side = p.side[s];
    side.units = std::max(1, ceil_div(ceil_div(side.n, kPair ? 16 : 32), kRowsWarps >> log_splits));
    units += side.units * groups[s];
  }
  const auto kernel = routed_kernel<W, kPair>;
  static const cudaError_t room = [&] {
    cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                         cudaSharedmemCarveoutMaxShared);
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Sizes::kBytes);
  }();
  check(room, "asking for shared memory");
  launch_early(ctx, kPair ? "routed gate and up" : "routed down", kernel,
               dim3(static_cast<unsigned>(std::min(units, most_blocks))), dim3(kRowsThreads),
               Sizes::kBytes, p, log_splits);
}

// y (+)= the shared expert's result and those of the choices, weighted, in their order; and the
// norm of that. A block per row, Packs packs of four per thread.
struct AddUp {
  const float* results;  // [T k + T, D]
  const std::int32_t* slot;
  MatView<const float> weight;
  MatView<float> y;
  bool shared, add;
  MatView<float> normed;  // or no rows
  const float* norm_weight;
  float eps;
};
constexpr int kV = 4, kAddThreads = 256, kMostPacks = 8;

template <int Packs>
__global__ void __launch_bounds__(kAddThreads) add_up_kernel(const AddUp a) {
  constexpr int kAhead = 8;
  __shared__ float room[32];
  after_those_before();
  const int token = static_cast<int>(blockIdx.x), packs = a.y.cols / kV;
  const int first = static_cast<int>(threadIdx.x), step = static_cast<int>(blockDim.x);
  const int k = a.weight.cols;
  const std::int64_t d = a.y.cols;
  const float* of_shared = a.results + (std::int64_t{a.weight.rows} * k + token) * d;
  const float* weights = a.weight.row(token);
  float* y = a.y.row(token);
  Floats<kV> sum[Packs];
#pragma unroll
  for (int i = 0; i < Packs; ++i) {
    const int p = first + i * step;
    sum[i] = a.shared && p < packs ? load<kV>(of_shared + kV * p) : Floats<kV>{};
  }
  for (int begin = 0; begin < k; begin += kAhead) {
    const float* rows[kAhead];
    float w[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int choice = min(begin + j, k - 1);
      rows[j] = a.results + a.slot[token * k + choice] * d;
      w[j] = weights[choice];
    }
#pragma unroll
    for (int i = 0; i < Packs; ++i) {
      const int p = first + i * step;
      if (p >= packs) break;
      Floats<kV> x[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (begin + j < k) x[j] = load<kV>(rows[j] + kV * p);
      }
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (begin + j >= k) break;
#pragma unroll
        for (int e = 0; e < kV; ++e) sum[i].v[e] += w[j] * x[j].v[e];
      }
    }
  }
  float squares = 0;
#pragma unroll
  for (int i = 0; i < Packs; ++i) {
    const int p = first + i * step;
    if (p >= packs) break;
    if (a.add) {
      const auto old = load<kV>(y + kV * p);
#pragma unroll
      for (int e = 0; e < kV; ++e) sum[i].v[e] += old.v[e];
    }
    store<kV>(y + kV * p, sum[i]);
#pragma unroll
    for (int e = 0; e < kV; ++e) squares += sum[i].v[e] * sum[i].v[e];
  }
  if (a.normed.rows == 0) return;
  const float rstd = 1.0F / sqrtf(block_sum(squares, room) / static_cast<float>(a.y.cols) + a.eps);
#pragma unroll
  for (int i = 0; i < Packs; ++i) {
    const int p = first + i * step;
    if (p >= packs) break;
    const auto w = load<kV>(a.norm_weight + kV * p);
#pragma unroll
    for (int e = 0; e < kV; ++e) sum[i].v[e] = sum[i].v[e] * rstd * w.v[e];
    store<kV>(a.normed.row(token) + kV * p, sum[i]);
  }
}

void add_up(const Context& ctx, const AddUp& a) {
  const int packs = a.y.cols / kV, each = ceil_div(packs, kAddThreads);
  const auto kernel = each <= 1   ? add_up_kernel<1>
                      : each <= 2 ? add_up_kernel<2>
                      : each <= 4 ? add_up_kernel<4>
                                  : add_up_kernel<8>;
  launch_early(ctx, "adding up experts", kernel, dim3(static_cast<unsigned>(a.y.rows)),
               dim3(static_cast<unsigned>(row_threads(packs))), 0, a);
}

// Weights that the kernels read: E4M3 with whole blocks, or bf16; rows of whole vectors.
bool fits(const RowsWeight& w, bool quantised) {
  if (quantised) {
    return w.quant.rows > 0 && w.quant.code == QuantCode::kE4m3 && !w.quant.panels &&
           w.quant.group == 128 && w.quant.first_row == 0 &&
           in_vectors(w.quant.codes, w.quant.stride, 1);
  }
  return w.quant.rows == 0 && w.plain.rows > 0 && w.plain.dtype == DType::kBF16 &&
         in_vectors(w.plain.data, w.plain.stride, sizeof(Bf16));
}
bool alike(const RowsWeight& a, const RowsWeight& b) {
  return a.quant.stride == b.quant.stride && a.quant.scale_stride == b.quant.scale_stride &&
         a.plain.stride == b.plain.stride;
}
bool fits(const MlpRows& m, bool quantised) {
  return fits(m.gate, quantised) && fits(m.up, quantised) && fits(m.down, quantised) &&
         alike(m.gate, m.up);
}
const std::uint8_t* data_of(const RowsWeight& w) {
  return w.quant.rows > 0 ? w.quant.codes : static_cast<const std::uint8_t*>(w.plain.data);
}
void take_strides(const RowsWeight& w, Side& side) {
  side.w_stride = w.quant.rows > 0 ? w.quant.stride
                                   : w.plain.stride * static_cast<std::ptrdiff_t>(sizeof(Bf16));
  side.scale_stride = w.quant.scale_stride;
  side.n = w.rows();
  side.k = w.cols();
}

struct Room {
  Order order{};
  __nv_bfloat16 *hidden = nullptr, *hidden_shared = nullptr;  // [T k, F], [T, F of shared]
  float* results = nullptr;                                   // [T k + T, D]
};
Room room_for(const Context& ctx, const RoutedRows& a, int width, int width_shared) {
  const auto rows = static_cast<std::size_t>(a.x.rows);
  const std::size_t n = rows * static_cast<std::size_t>(a.index.cols);
  std::size_t bytes = 0;
  const auto take = [&bytes](std::size_t size) {
    const std::size_t at = bytes;
    bytes += (size + 255) / 256 * 256;
    return at;
  };
  const std::size_t slot = take(n * 4), row = take((n + rows) * 4),
                    groups = take((n + rows) * sizeof(Group)), count = take(8),
                    hidden = take(n * static_cast<std::size_t>(width) * 2),
                    shared = take(rows * static_cast<std::size_t>(width_shared) * 2),
                    results = take((n + rows) * static_cast<std::size_t>(a.y.cols) * 4);
  auto* base = static_cast<std::byte*>(device_of(ctx).scratch(kScratchRouted, bytes));
  Room r;
  r.order = {reinterpret_cast<std::int32_t*>(base + slot),
             reinterpret_cast<std::int32_t*>(base + row), reinterpret_cast<Group*>(base + groups),
             reinterpret_cast<std::int32_t*>(base + count)};
  r.hidden = reinterpret_cast<__nv_bfloat16*>(base + hidden);
  r.hidden_shared = reinterpret_cast<__nv_bfloat16*>(base + shared);
  r.results = reinterpret_cast<float*>(base + results);
  return r;
}

template <class W>
void run(const Context& ctx, const RoutedRows& a, const Room& room, bool shared) {
  const int n = a.x.rows * a.index.cols;
  std::vector<ExpertWeights> inner, outer;
  const auto list = [&](const MlpRows& m) {
    inner.push_back({data_of(m.gate), data_of(m.up), m.gate.quant.scales, m.up.quant.scales});
    outer.push_back({data_of(m.down), nullptr, m.down.quant.scales, nullptr});
  };
  for (const MlpRows& m : a.experts) list(m);
  if (shared) list(a.shared);
  CudaDevice& device = device_of(ctx);
  const auto keep = [&](const std::vector<ExpertWeights>& e) {
    return static_cast<const ExpertWeights*>(device.keep(e.data(), e.size() * sizeof(e[0])));
  };
  // About: as many groups as choices until every expert has one.
  const int experts = static_cast<int>(a.experts.size());
  const std::array<int, 2> groups = {std::min(n, std::max(experts, ceil_div(n, kGroupRows))),
                                     shared ? ceil_div(a.x.rows, kGroupRows) : 0};

  RoutedProduct p{};
  p.order = room.order;
  p.experts = keep(inner);
  p.chosen_rows = true;
  const bool x_vectors = in_vectors(a.x.data, a.x.stride, sizeof(float));
  for (Side& side : p.side) {
    side.x = a.x.data;
    side.x_stride = a.x.stride;
    side.x_vectors = x_vectors;
  }
  if (n > 0) {
    take_strides(a.experts.front().gate, p.side[0]);
    p.side[0].y = room.hidden;
    p.side[0].y_stride = p.side[0].n;
  }
  if (shared) {
    take_strides(a.shared.gate, p.side[1]);
    p.side[1].y_stride = p.side[1].n;
    p.side[1].y = room.hidden_shared - std::int64_t{n} * p.side[1].n;  // its rows begin at n
  }
  launch_product<W, true>(ctx, p, groups);

  p.experts = keep(outer);
  p.chosen_rows = false;
  for (std::size_t s = 0; s < 2; ++s) {
    Side& side = p.side[s];
    side.x = side.y;
    side.x_stride = side.y_stride;
    side.x_vectors = in_vectors(room.hidden, side.x_stride, sizeof(Bf16));
    side.y = room.results;
    side.y_stride = a.y.cols;
  }
  if (n > 0) take_strides(a.experts.front().down, p.side[0]);
  if (shared) take_strides(a.shared.down, p.side[1]);
  launch_product<W, false>(ctx, p, groups);
}

}  // namespace

bool takes_routed_rows(const Context&, const RoutedRows& a) noexcept {
  if (a.precision != Precision::kBF16 || a.x.rows > kMostRows || a.index.cols == 0 ||
      a.x.rows * a.index.cols > kMostChoices || a.experts.size() > kMostExperts ||
      a.experts.empty() || a.y.cols % kV != 0 || a.y.cols > kV * kAddThreads * kMostPacks) {
    return false;
  }
  const bool quantised = a.experts.front().gate.quant.rows > 0;
  const MlpRows& first = a.experts.front();
  for (const MlpRows& m : a.experts) {
    if (!fits(m, quantised) || !alike(m.gate, first.gate) || !alike(m.down, first.down)) {
      return false;
    }
  }
  return a.shared.gate.rows() == 0 || fits(a.shared, quantised);
}

void routed_rows(const Context& ctx, const RoutedRows& a) {
  if (a.x.rows == 0) return;
  const auto whole = [](MatView<const float> m) { return m.rows == 0 || in_packs<kV>(m); };
  if (!whole(a.y) || !whole(a.normed)) {
    throw Error(Code::kShape,
                "routed_rows: rows of y and its norm have to begin at multiples of 16 "
                "bytes on a device");
  }
  const bool shared = a.shared.gate.rows() > 0;
  const Room room =
      room_for(ctx, a, a.experts.front().gate.rows(), shared ? a.shared.gate.rows() : 0);
  const int threads =
      std::max({a.x.rows * a.index.cols, static_cast<int>(a.experts.size()), kMostRows});
  launch_early(ctx, "sorting rows by expert", sort_rows_kernel, dim3(1),
               dim3(static_cast<unsigned>(ceil_div(threads, 32) * 32)), 0, a.index,
               static_cast<int>(a.experts.size()), shared, room.order);
  if (a.experts.front().gate.quant.rows > 0) {
    run<E4m3Rows>(ctx, a, room, shared);
  } else {
    run<Bf16Rows>(ctx, a, room, shared);
  }
  add_up(ctx, {room.results, room.order.slot, a.weight, a.y, shared, a.add, a.normed,
               a.norm_weight.data(), a.eps});
}

}  // namespace cachalot::cuda
