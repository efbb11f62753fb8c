#include "kernels/cuda/counting_sort.cuh"

#include <algorithm>
#include <bit>
#include <utility>

#include "kernels/cuda/row_ops.cuh"

namespace cachalot::cuda {

namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kRounds = 4;                 // keys per thread
constexpr int kTile = kThreads * kRounds;  // keys per block
constexpr int kMostBits = 9;               // of a pass; 512 counters for each of 8 warps: 16 KiB

struct Pass {
  MatView<const std::int32_t> keys;
  const std::int32_t* from;  // the order so far; null: as they are
  int n;
  int shift, digits;  // digit = key >> shift mod digits, a power of two
  int tiles;
  std::int32_t* counts;  // [digits, tiles], then each tile's place within its digit
  std::int32_t* totals;  // [digits]

  __device__ int number(int i) const { return from != nullptr ? from[i] : i; }
  __device__ int digit(int number) const {
    return keys.row(number / keys.cols)[number % keys.cols] >> shift & (digits - 1);
  }
};

// The keys of round `r` of a warp: 32 neighbours, so that warps, rounds and lanes are in order.
__device__ int place_of(int r) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  return static_cast<int>(blockIdx.x) * kTile + (warp * kRounds + r) * 32 + lane;
}

__global__ void __launch_bounds__(kThreads) count_kernel(const Pass a) {
  extern __shared__ int counters[];  // [digits]
  for (int d = static_cast<int>(threadIdx.x); d < a.digits; d += kThreads) counters[d] = 0;
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    const int i = place_of(r);
    if (i < a.n) atomicAdd(&counters[a.digit(a.number(i))], 1);
  }
  __syncthreads();
  for (int d = static_cast<int>(threadIdx.x); d < a.digits; d += kThreads) {
    a.counts[std::int64_t{d} * a.tiles + blockIdx.x] = counters[d];
  }
}

__device__ int warp_scan(int x) {  // inclusive
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const int before = __shfl_up_sync(0xFFFFFFFFU, x, offset);
    if (lane >= offset) x += before;
  }
  return x;
}

// A warp per digit: what its tiles before this one hold.
__global__ void __launch_bounds__(32) scan_kernel(const Pass a) {
  std::int32_t* counts = a.counts + std::int64_t{blockIdx.x} * a.tiles;
  const int lane = static_cast<int>(threadIdx.x);
  int before = 0;
  for (int begin = 0; begin < a.tiles; begin += 32) {
    const int t = begin + lane;
    const int count = t < a.tiles ? counts[t] : 0;
    const int scanned = warp_scan(count);
    if (t < a.tiles) counts[t] = before + scanned - count;
    before += __shfl_sync(0xFFFFFFFFU, scanned, 31);
  }
  if (lane == 0) a.totals[blockIdx.x] = before;
}

__global__ void __launch_bounds__(kThreads)
    scatter_kernel(const Pass a, std::int32_t* order, std::int32_t* rank) {
  extern __shared__ int counters[];  // [kWarps, digits]
  __shared__ int warp_totals[kWarps];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  for (int i = thread; i < kWarps * a.digits; i += kThreads) counters[i] = 0;
  __syncthreads();
  int* mine = counters + warp * a.digits;
  int numbers[kRounds], digits[kRounds], places[kRounds];
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    const int i = place_of(r);
    const bool live = i < a.n;
    numbers[r] = live ? a.number(i) : 0;
    digits[r] = live ? a.digit(numbers[r]) : -1;
    const unsigned peers = __match_any_sync(0xFFFFFFFFU, digits[r]);
    const int before = __popc(peers & ((1U << lane) - 1));
    places[r] = live ? mine[digits[r]] + before : 0;  // within the warp's keys of this digit
    __syncwarp();
    if (live && before == 0) mine[digits[r]] += __popc(peers);
    __syncwarp();
  }
  __syncthreads();
  // Counters become the rows where each warp's keys of each digit begin. Threads take runs of
  // digits, so that a scan over threads is one over digits.
  const int run = (a.digits + kThreads - 1) / kThreads, first = thread * run;
  int total = 0;
  for (int d = first; d < min(first + run, a.digits); ++d) total += a.totals[d];
  int row = warp_scan(total);
  if (lane == 31) warp_totals[warp] = row;
  __syncthreads();
  row -= total;
  for (int w = 0; w < warp; ++w) row += warp_totals[w];
  for (int d = first; d < min(first + run, a.digits); ++d) {
    int at = row + a.counts[std::int64_t{d} * a.tiles + blockIdx.x];
    for (int w = 0; w < kWarps; ++w) at += std::exchange(counters[w * a.digits + d], at);
    row += a.totals[d];
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    if (digits[r] < 0) continue;
    const int to = mine[digits[r]] + places[r];
    order[to] = numbers[r];
    if (rank != nullptr) rank[numbers[r]] = to;
  }
}

}  // namespace

void stable_order(const Context& ctx, MatView<const std::int32_t> keys, int buckets,
                  std::int32_t* order, std::int32_t* rank) {
  const int n = keys.rows * keys.cols;
  if (n == 0) return;
  const int bits =
      std::max(1, static_cast<int>(std::bit_width(static_cast<unsigned>(buckets - 1))));
  const int passes = ceil_div(bits, kMostBits), pass_bits = ceil_div(bits, passes);
  const int digits = 1 << pass_bits, tiles = ceil_div(n, kTile);
  const std::size_t counts = static_cast<std::size_t>(digits) * static_cast<std::size_t>(tiles);
  auto* memory = static_cast<std::int32_t*>(device_of(ctx).scratch(
      kScratchSums, (counts + static_cast<std::size_t>(digits) + static_cast<std::size_t>(n)) * 4));
  std::int32_t* other = memory + counts + digits;
  Pass pass{keys, nullptr, n, 0, digits, tiles, memory, memory + counts};
  const cudaStream_t stream = stream_of(ctx);
  const auto bytes = static_cast<std::size_t>(digits) * sizeof(int);
  for (int p = 0; p < passes; ++p) {
    // The last pass writes to `order`: those before it take turns.
    std::int32_t* to = (passes - 1 - p) % 2 == 0 ? order : other;
    pass.shift = p * pass_bits;
    count_kernel<<<tiles, kThreads, bytes, stream>>>(pass);
    scan_kernel<<<digits, 32, 0, stream>>>(pass);
    scatter_kernel<<<tiles, kThreads, kWarps * bytes, stream>>>(pass, to,
                                                                p == passes - 1 ? rank : nullptr);
    check_launch("stable_order");
    pass.from = to;
  }
}

}  // namespace cachalot::cuda
