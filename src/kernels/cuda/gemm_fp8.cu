#include "kernels/cuda/gemm_fp8.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "kernels/cuda/codes_k_major.cuh"
#include "kernels/cuda/gemm_fp8_kernel.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/tensor_map.cuh"

namespace cachalot::cuda {

namespace {

using namespace fp8_product;  // NOLINT(google-build-using-namespace): this file is its host side

// ---- kernels ----

bool has_column_scales(const Fp8Gemm& g) {
  return g.b.tile == ScaleTile::kRow || g.b.tile == ScaleTile::kColumn;
}

struct Kernel {
  Fp8KernelFacts facts;
  int rows, cols;  // of a tile
  Form form;
  int box_rows;  // of A, that one copy loads
  // Microseconds of a multiprocessor, measured: a block of K of a tile; a tile beside that, and
  // what float results take beside bf16 ones.
  double block_time, tile_time, float_time;
  void (*launch)(const Context&, const Params&, int blocks);
};

template <class S>
void launch(const Context& ctx, const Params& params, int blocks) {
  const auto kernel = product_kernel<S>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kSharedBytes),
        "asking for shared memory");
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(S::kThreads);
  config.dynamicSmemBytes = S::kSharedBytes;
  config.stream = stream_of(ctx);
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = S::kCluster;
  cluster.val.clusterDim.y = 1;
  cluster.val.clusterDim.z = 1;
  config.attrs = &cluster;
  config.numAttrs = S::kCluster > 1 ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, params), "gemm_fp8");
  check_launch("gemm_fp8");
}

template <Form F>
constexpr Kernel kernel(const char* name, double block_time, double tile_time,
                        double float_time = 0) {
  using S = Shape<F>;
  return {{name, S::kColumnScales},
          S::kRows,
          S::kCols,
          F,
          S::kBoxA,
          block_time,
          tile_time,
          float_time,
          launch<S>};
}

// Of 256 rows with a neighbour that shares A, a block of 128 columns reads half as much of the L2
// cache as of 128 by 128, which is what binds these; 192 rows fill the last round of some shapes.
// Tried beside them on an H200 and slower: 128 by 192, B shared by blocks below each other,
// warpgroups in turns, a block that starts while the kernel before it still runs.
constexpr Kernel kKernels[] = {
    kernel<Form{.cols = 64, .stages = 10}>("64x64", 0.17, 0.5),
    kernel<Form{.cols = 64, .stages = 10, .deep = 2}>("64x64 deep 2", 0.17, 1.2),
    kernel<Form{.cols = 128, .stages = 8}>("64x128", 0.25, 0.7),
    kernel<Form{.groups = 2, .cols = 128, .stages = 4, .staged = 4}>("128x128", 0.43, 1.3),
    kernel<Form{.groups = 2, .parts = 2, .cols = 128, .stages = 3, .staged = 4}>("256x128", 0.83,
                                                                                 2.0, 1.0),
    kernel<Form{.groups = 2, .parts = 2, .cols = 128, .stages = 3, .across = 2, .staged = 4}>(
        "256x128 across", 0.77, 2.3, 1.0),
    kernel<Form{.groups = 3, .cols = 128, .stages = 4, .across = 2, .staged = 2}>("192x128 across",
                                                                                  0.57, 1.6, 0.8),
    kernel<Form{.cols = 128, .stages = 8, .column_scales = true}>("64x128 columns", 0.30, 0.7),
    kernel<Form{.groups = 2, .cols = 128, .stages = 4, .column_scales = true, .staged = 4}>(
        "128x128 columns", 0.52, 1.3),
    kernel<Form{.groups = 2,
                .parts = 2,
                .cols = 128,
                .stages = 3,
                .column_scales = true,
                .across = 2,
                .staged = 4}>("256x128 across columns", 0.93, 2.3, 1.0),
};
constexpr auto kFacts = [] {
  std::array<Fp8KernelFacts, std::size(kKernels)> facts{};
  for (std::size_t i = 0; i < facts.size(); ++i) facts[i] = kKernels[i].facts;
  return facts;
}();

// Blocks that work together, and how many such tiles a product has.
int cluster_of(const Kernel& k) { return k.form.deep * k.form.across; }
int tiles_of(const Kernel& k, int m, int n) {
  return ceil_div(m, k.rows) * ceil_div(n, k.cols * k.form.across);
}

struct Plan {
  const Kernel* kernel = nullptr;
  bool cut = false;  // the last tiles along K
  double time = 1e300;
};

// The kernel that the figures above promise to be the fastest.
Plan choose(std::span<const Fp8Gemm> problems, bool counted, int processors) {
  constexpr double kBytesPerTime = 3e6;  // of the memory, per microsecond
  bool one_k = !counted, column_scales = false;
  double bytes = 0;
  for (const Fp8Gemm& g : problems) {
    bytes += (1.0 * g.m() + g.n()) * g.k() + 4.0 * g.m() * g.n();
    one_k = one_k && g.k() == problems[0].k();
    column_scales = column_scales || has_column_scales(g);
  }
  const double moving = bytes / kBytesPerTime;
  Plan best;
  for (const Kernel& k : kKernels) {
    if (k.facts.column_scales != column_scales) continue;
    double work = 0, longest = 0;  // of multiprocessors
    std::int64_t tiles = 0;
    for (const Fp8Gemm& g : problems) {
      const std::int64_t some = std::int64_t{tiles_of(k, g.m(), g.n())} * cluster_of(k);
      const double each = ceil_div(ceil_div(g.k(), kBlockK), k.form.deep) * k.block_time +
                          k.tile_time + (g.c_bf16.empty() ? k.float_time : 0);
      tiles += some;
      work += static_cast<double>(some) * each;
      longest = std::max(longest, each);
    }
    const double even = work / processors;
    const double busy =
        one_k ? ceil_div(tiles, processors) * longest : std::max(longest, even + longest / 2);
    const double whole = std::max(busy, moving) + 0.2 * std::min(busy, moving);
    // Pieces are written, read and waited for.
    const double pieces = 4 + 11.0 / (128 * 128) * k.rows * k.cols;
    const double cut = one_k && k.form.deep == 1
                           ? std::max(even, moving) + 0.2 * std::min(even, moving) + pieces
                           : 1e300;
    if (std::min(whole, cut) < best.time) best = {&k, cut < whole, std::min(whole, cut)};
  }
  return best;
}

// ---- operands ----

bool is_empty(const Fp8Gemm& g) { return g.m() == 0 || g.n() == 0; }

// An operand as rows (of M or N) of codes along K.
struct Rows {
  const std::uint8_t* codes = nullptr;
  std::int64_t stride = 0;
  int rows = 0, k = 0;
};

// What is not laid out so is copied to scratch. `k_is_row`: K runs down the operand's rows, which
// its codes do as well unless they are transposed.
class Operands {
 public:
  // `sixteens`: rows have to exist up to a multiple of 16.
  void add(const Fp8View& m, bool k_is_row, bool sixteens) {
    Rows r{m.codes, m.stride, k_is_row ? m.cols : m.rows, k_is_row ? m.rows : m.cols};
    const bool as_read = k_is_row == m.transposed;
    const bool in_place = as_read && (m.empty() || (can_map(m.codes, r.rows > 1 ? m.stride : 0) &&
                                                    (!sixteens || r.rows % 16 == 0)));
    if (in_place) {
      if (r.rows <= 1) r.stride = round_up(r.k);
    } else {
      r.stride = row_bytes(r.k);
      r.codes = nullptr;
      copies_.push_back({.from = m.codes,
                         .from_stride = m.stride,
                         .to_stride = r.stride,
                         .rows = m.transposed ? m.cols : m.rows,
                         .cols = m.transposed ? m.rows : m.cols,
                         .transpose = !as_read});
      copied_.push_back(rows_.size());
    }
    rows_.push_back(r);
  }
  const std::vector<Rows>& place(const Context& ctx, Scratch slot) {
    if (copies_.empty()) return rows_;
    std::int64_t bytes = 0;
    for (const std::size_t i : copied_) bytes += round_up(rows_[i].rows) * rows_[i].stride;
    auto* to = static_cast<std::uint8_t*>(
        device_of(ctx).scratch(slot, static_cast<std::size_t>(std::max<std::int64_t>(bytes, 16))));
    for (std::size_t i = 0; i < copies_.size(); ++i) {
      Rows& r = rows_[copied_[i]];
      r.codes = copies_[i].to = to;
      to += round_up(r.rows) * r.stride;
    }
    copy_codes(ctx, copies_);
    return rows_;
  }

 private:
  // An odd number of lines of 128 bytes: the columns of large powers of two would crowd in a few
  // channels of the memory.
  static std::int64_t row_bytes(int k) { return ((k + 127) / 128 | 1) * 128; }
  static std::int64_t round_up(std::int64_t x) { return (x + 15) / 16 * 16; }

  std::vector<Rows> rows_;
  std::vector<CopyCodes> copies_;
  std::vector<std::size_t> copied_;  // their places in rows_
};

Scales scales_of(const Fp8View& m, bool k_is_row) {
  const bool block = m.tile == ScaleTile::kBlock;
  if (m.tile == ScaleTile::kTensor) return {m.scales, 0, 0, 0};
  if (k_is_row) return {m.scales, 1, m.scale_stride, block ? 7 : 0};
  return {m.scales, m.scale_stride, 1, block ? 7 : 0};
}

// Scales of A along its rows would be fetched one by one, each from a line of its own, as often as
// there are tiles side by side: where that is often they are turned around first.
void turn_scales(const Context& ctx, std::span<const Fp8Gemm> live, std::span<Problem> problems) {
  constexpr double kManyFlops = 6e10;
  double flops = 0;
  for (const Fp8Gemm& g : live) flops += 2.0 * g.m() * g.n() * g.k();
  if (flops < kManyFlops) return;
  std::vector<TransposeScales> jobs;
  std::vector<std::size_t> turned;
  std::int64_t floats = 0;
  for (std::size_t i = 0; i < live.size(); ++i) {
    const Fp8Gemm& g = live[i];
    if (g.trans_a || g.a.tile != ScaleTile::kRow || g.k() <= kBlockK) continue;
    const std::int64_t stride = (g.m() + 31) / 32 * 32;
    jobs.push_back({.from = g.a.scales,
                    .from_stride = g.a.scale_stride,
                    .to_stride = stride,
                    .rows = g.m(),
                    .cols = ceil_div(g.k(), kBlockK)});
    turned.push_back(i);
    floats += stride * jobs.back().cols;
  }
  if (jobs.empty()) return;
  auto* to = static_cast<float*>(
      device_of(ctx).scratch(kScratchC, static_cast<std::size_t>(floats) * sizeof(float)));
  for (std::size_t j = 0; j < jobs.size(); ++j) {
    jobs[j].to = to;
    problems[turned[j]].scale_a = {to, 1, jobs[j].to_stride, 0};
    to += jobs[j].to_stride * jobs[j].cols;
  }
  transpose_scales(ctx, jobs);
}

Problem problem_of(const Fp8Gemm& g, const Rows& a, const Rows& b, const Kernel& kernel) {
  Problem p;
  if (g.k() > 0) {
    constexpr auto kBytes = CU_TENSOR_MAP_DATA_TYPE_UINT8;
    p.a = map_matrix({a.codes, a.rows, a.k, a.stride}, kBytes, kernel.box_rows, kBlockK);
    p.b = map_interleaved_codes({b.codes, b.rows, b.k, b.stride}, kernel.cols);
  }
  p.scale_a = scales_of(g.a, g.trans_a);
  p.scale_b = scales_of(g.b, !g.trans_b);
  p.m = g.m();
  p.n = g.n();
  p.k = g.k();
  p.accumulate = g.accumulate;
  const bool half = !g.c_bf16.empty();
  p.out = g.c.data;
  p.out_bf16 = g.c_bf16.data;
  p.out_stride = half ? g.c_bf16.stride : g.c.stride;
  const auto address =
      reinterpret_cast<std::uintptr_t>(half ? static_cast<void*>(p.out_bf16) : p.out);
  p.vectors = address % (half ? 8 : 16) == 0 && (g.m() == 1 || p.out_stride % 4 == 0);
  const std::int64_t row_bytes = p.out_stride * (half ? 2 : 4);
  void* const c = half ? static_cast<void*>(p.out_bf16) : p.out;
  const std::int64_t written = std::int64_t{g.n()} * (half ? 2 : 4);  // in pieces of 16 bytes
  p.mapped = can_map(c, row_bytes) && row_bytes >= written && written % 16 == 0;
  if (p.mapped) {
    p.c = map_matrix({c, g.m(), g.n(), row_bytes},
                     half ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 64,
                     half ? 64 : 32);
  }
  return p;
}

// ---- launches ----

void run(const Context& ctx, const Kernel& kernel, std::span<const Problem> problems,
         const Fp8Choice& choice, bool cut) {
  Params params;
  params.problems = static_cast<int>(problems.size());
  params.group = choice.group > 0 ? choice.group : 16 * 128 / std::max(128, kernel.rows);
  params.split_cost = choice.split_cost >= 0 ? choice.split_cost : 0;
  params.split_blocks = cut ? ceil_div(problems[0].k, kBlockK) : 0;
  int tiles = 0;
  for (const Problem& p : problems) {
    tiles += tiles_of(kernel, p.m, p.n);
    if (p.k != problems[0].k || p.count != nullptr) params.split_blocks = 0;
  }
  int blocks = device_of(ctx).processors();
  blocks -= blocks % cluster_of(kernel);
  if (kernel.form.deep > 1) {
    params.split_blocks = 0;
    blocks = tiles * kernel.form.deep;  // a cluster for each tile
  } else if (params.split_blocks > 1) {
    // Two pieces for each worker.
    const auto bytes = std::size_t{2} * static_cast<std::size_t>(blocks) *
                       static_cast<std::size_t>(kernel.rows * kernel.cols) * sizeof(float);
    params.partials = static_cast<float4*>(device_of(ctx).scratch(kScratchSums, bytes));
  } else {
    blocks = std::min(blocks, tiles * cluster_of(kernel));
  }
  if (problems.size() <= kNearProblems) {
    std::copy(problems.begin(), problems.end(), params.near);
  } else {
    params.list = stage(ctx, problems);
  }
  kernel.launch(ctx, params, blocks);
}

}  // namespace

std::span<const Fp8KernelFacts> fp8_kernels() noexcept { return kFacts; }

Fp8KernelFacts fp8_kernel_for(const Context& ctx, std::span<const Fp8Gemm> problems) {
  return choose(problems, false, device_of(ctx).processors()).kernel->facts;
}

void gemm_fp8(const Context& ctx, std::span<const Fp8Gemm> all, const Fp8Choice& choice,
              const std::int32_t* counts) {
  Operands a, b;
  std::vector<Fp8Gemm> live;
  std::vector<const std::int32_t*> count;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Fp8Gemm& g = all[i];
    if (is_empty(g)) continue;
    a.add(g.a, g.trans_a, false);
    b.add(g.b, !g.trans_b, true);
    live.push_back(g);
    count.push_back(counts != nullptr ? counts + i : nullptr);
  }
  if (live.empty()) return;
  const std::vector<Rows>& rows_a = a.place(ctx, kScratchA);
  const std::vector<Rows>& rows_b = b.place(ctx, kScratchB);
  Plan plan{.kernel = nullptr, .cut = true};
  if (choice.kernel >= 0) {
    plan.kernel = &kKernels[choice.kernel];
  } else {
    plan = choose(live, counts != nullptr, device_of(ctx).processors());
  }
  const Kernel& kernel = *plan.kernel;
  std::vector<Problem> problems;
  for (std::size_t i = 0; i < live.size(); ++i) {
    problems.push_back(problem_of(live[i], rows_a[i], rows_b[i], kernel));
    problems.back().count = count[i];
  }
  turn_scales(ctx, live, problems);
  for (std::size_t i = 0; i < problems.size(); i += kMaxProblems) {
    const std::size_t some = std::min<std::size_t>(kMaxProblems, problems.size() - i);
    run(ctx, kernel, std::span(problems).subspan(i, some), choice, plan.cut);
  }
}

void gemm_fp8(const Context& ctx, std::span<const Fp8Gemm> problems) {
  // Scales per column cost a multiplication for each sum: where there is work enough for two
  // launches, those without them go by themselves.
  constexpr double kLaunchFlops = 2e11;
  std::vector<Fp8Gemm> sorted[2];
  double flops[2] = {0, 0};
  for (const Fp8Gemm& g : problems) {
    sorted[has_column_scales(g) ? 1 : 0].push_back(g);
    flops[has_column_scales(g) ? 1 : 0] += 2.0 * g.m() * g.n() * g.k();
  }
  if (std::min(flops[0], flops[1]) < kLaunchFlops) {
    gemm_fp8(ctx, problems, Fp8Choice{});
    return;
  }
  for (const std::vector<Fp8Gemm>& some : sorted) gemm_fp8(ctx, some, Fp8Choice{});
}

void gemm_fp8_masked(const Context& ctx, std::span<const Fp8Gemm> problems,
                     const std::int32_t* counts) {
  gemm_fp8(ctx, problems, Fp8Choice{}, counts);
}

}  // namespace cachalot::cuda
