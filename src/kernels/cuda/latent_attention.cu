// Absorbed MLA attention on Hopper: which kernel a problem gets, and its launches.
//
// By heads, format and precision alone (never by queries or by what else is in the call: bits
// must not depend on those): latent 512 and rope 64 in BF16 or FP8 with bf16 products take
// the kernels of latent_few.cuh (up to 32 heads) and latent_many.cuh, everything else that of
// latent_generic.cuh.
// Idea of attending over parts of the context and merging them: Dao et al., Flash-Decoding (2023).
#include <algorithm>

#include "kernels/cuda/latent_few.cuh"
#include "kernels/cuda/latent_few_codes.cuh"
#include "kernels/cuda/latent_generic.cuh"
#include "kernels/cuda/latent_many.cuh"
#include "kernels/cuda/latent_merge.cuh"
#include "kernels/cuda/latent_plan.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/stream.cuh"

namespace cachalot::cuda {

namespace {

constexpr int kSharedLimit = 232448;  // bytes a block of threads may have
constexpr int kFewHeads = 32;

// Tokens. For few heads a chunk's sums are small beside its cache rows; for many heads, storing
// them costs about as much as 64 tokens. Generic: pieces are chunks.
constexpr ChunkLengths kGenericChunks{256, 1 << 20}, kFewHeadsChunks{256, 128},
    kManyHeadsChunks{512, 64};

struct Partials {
  float* out = nullptr;    // [partials, rows of a group, L]
  float2* rows = nullptr;  // largest score, in powers of two, and sum of weights
};
Partials partials_of(const Context& ctx, const LatentPlan& plan, int rows, int latent) {
  const std::size_t count =
      static_cast<std::size_t>(plan.partials) * static_cast<std::size_t>(rows);
  if (count == 0) return {};
  auto* p = static_cast<float*>(device_of(ctx).scratch(
      kScratchAttention,
      count * (sizeof(float) * static_cast<std::size_t>(latent) + sizeof(float2))));
  return {p, reinterpret_cast<float2*>(p + count * static_cast<std::size_t>(latent))};
}

// Launches a kernel early: it waits for the end of the one before by itself.
template <class... Parameters, class... Arguments>
void launch_early(const Context& ctx, void (*kernel)(Parameters...), dim3 blocks, int threads,
                  int shared_bytes, Arguments&&... arguments) {
  cudaLaunchConfig_t launch{};
  launch.gridDim = blocks;
  launch.blockDim = dim3(static_cast<unsigned>(threads));
  launch.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
  launch.stream = stream_of(ctx);
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  launch.attrs = &early;
  launch.numAttrs = 1;
  check(cudaLaunchKernelEx(&launch, kernel, static_cast<Parameters>(arguments)...),
        "latent_attention");
}

int most_eights(const LatentPlan& plan) {
  int eights = 1;
  for (const RowGroup& g : plan.groups) {
    eights = std::max(eights, ceil_div(g.chunks, kChunksTogether));
  }
  return eights;
}
bool in_pieces(const LatentPlan& plan) {
  return std::any_of(plan.groups.begin(), plan.groups.end(),
                     [](const RowGroup& g) { return g.pieces > 1; });
}
template <class T>
unsigned size_of(const std::vector<T>& list) {
  return static_cast<unsigned>(list.size());
}

// `F`: FewHeads or ManyHeads.
template <class F>
void merge(const Context& ctx, const LatentPlan& plan, const DevicePlan& on_device,
           const Partials& partials) {
  if (F::kLanes == 1 && !in_pieces(plan)) return;
  constexpr int kLines = F::kRows * kLatentWidth / 128;
  const int series = std::min(most_eights(plan) * F::kLanes, kMergeSeries);
  const int lines = series <= kMergeWarps / 4 ? 4 : 1;  // of a block of threads
  launch_early(ctx, merge_lines<F>,
               dim3(size_of(plan.groups), static_cast<unsigned>(kLines / lines)),
               32 * series * lines, 0, on_device, series, partials.out, partials.rows);
  check_launch("latent_attention merge");
}

GenericShape generic_shape(const LatentAttention& a) {
  GenericShape s{};
  s.layout = a.cache.layout;
  s.row_bytes = static_cast<int>(s.layout.row_bytes());
  s.rope_at = static_cast<int>(s.layout.rope_at());
  s.bf16 = a.precision == Precision::kBF16;
  s.stride = s.layout.width() | 1;
  for (const auto& [rows, tokens] : {std::pair{8, 32}, {4, 16}, {1, 16}, {1, 1}}) {
    s.rows = rows;
    s.tokens = tokens;
    if (s.bytes() <= kSharedLimit) return s;
  }
  throw Error(Code::kUnsupported, cat("latent attention over ", s.layout.width(),
                                      " columns; the GPU's shared memory holds a token of up to "
                                      "about 19000"));
}

void attend_generic(const Context& ctx, LatentPlan& plan, const GenericShape& shape) {
  plan.share(1 << 30, false);
  const int latent = shape.layout.latent;
  const DevicePlan on_device = upload(ctx, plan);
  const Partials partials = partials_of(ctx, plan, shape.rows, latent);
  check(cudaFuncSetAttribute(attend_any, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shape.bytes())),
        "latent_attention");
  attend_any<<<static_cast<unsigned>(plan.pieces.size()), 256, shape.bytes(), stream_of(ctx)>>>(
      shape, on_device, partials.out, partials.rows);
  check_launch("latent_attention");
  if (!in_pieces(plan)) return;
  launch_early(ctx, merge_any,
               dim3(size_of(plan.groups), static_cast<unsigned>(shape.rows),
                    static_cast<unsigned>(ceil_div(latent, 4 * kAnyThreads))),
               std::min(most_eights(plan), kAnySeries) * kAnyThreads, 0, on_device, shape.rows,
               latent, partials.out, partials.rows);
  check_launch("latent_attention merge");
}

// Memory as lines of 128 bytes, of which a token takes every ninth: a box of it is 64 columns of
// some tokens of any block. `base` is the lowest block.
CUtensorMap tile_map(const std::byte* base, int tokens) {
  using Encode =
      CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                   const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                   CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  static const Encode encode = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult result{};
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000,
                                           cudaEnableDefault, &result),
          "finding cuTensorMapEncodeTiled");
    return reinterpret_cast<Encode>(entry);
  }();
  const cuuint64_t sizes[3] = {64, std::uint64_t{1} << 31, kLatentBlock};
  const cuuint64_t strides[2] = {kCopyGrain, kBf16RowBytes};
  const cuuint32_t box[3] = {64, 1, static_cast<cuuint32_t>(tokens)}, steps[3] = {1, 1, 1};
  CUtensorMap map;
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<std::byte*>(base), sizes,
             strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw Error(Code::kInternal,
                cat("CUDA: no tensor map of the latent cache: error ", static_cast<int>(result)));
  }
  return map;
}

// `F`: FewHeads or ManyHeads.
template <class F, class Kernel>
void attend(const Context& ctx, LatentPlan& plan, Kernel* kernel) {
  if (plan.empty()) return;
  plan.share(device_of(ctx).processors(), F::kLanes > 1);
  const DevicePlan on_device = upload(ctx, plan);
  const Partials partials = partials_of(ctx, plan, F::kRows * F::kLanes, kLatentWidth);
  const std::byte* base = *std::min_element(plan.blocks.begin(), plan.blocks.end());
  const CUtensorMap map = F::kCodes ? CUtensorMap{} : tile_map(base, F::kTokens);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, F::kBytes),
        "latent_attention");
  launch_early(ctx, kernel, dim3(size_of(plan.begins) - 1), F::kThreads, F::kBytes, map, base,
               on_device, partials.out, partials.rows);
  check_launch("latent_attention");
  merge<F>(ctx, plan, on_device, partials);
}

bool is_fast(const LatentAttention& a) {
  const LatentLayout& l = a.cache.layout;
  if (l.latent != kLatentWidth || l.rope != kRopeWidth || a.precision != Precision::kBF16 ||
      l.format == LatentFormat::kF32) {
    return false;
  }
  const auto aligned = [](const float* p, std::ptrdiff_t stride) {
    return reinterpret_cast<std::uintptr_t>(p) % 16 == 0 && stride % 4 == 0;
  };
  if (!aligned(a.q.data, a.q.stride) || !aligned(a.out.data, a.out.stride)) return false;
  const std::size_t grain = l.format == LatentFormat::kBF16 ? kCopyGrain : 16;
  const auto used =
      a.cache.blocks.first(static_cast<std::size_t>(ceil_div(a.cache.rows, kLatentBlock)));
  return std::all_of(used.begin(), used.end(), [&](const std::byte* p) {
    return reinterpret_cast<std::uintptr_t>(p + a.cache.offset) % grain == 0;
  });
}

}  // namespace

void latent_attention(const Context& ctx, std::span<const LatentAttention> problems) {
  LatentPlan few[2][2], many[2];  // [fp8][more than 16 rows]
  std::vector<std::pair<GenericShape, LatentPlan>> generic;
  for (const LatentAttention& a : problems) {
    if (a.q.rows == 0) continue;
    const bool fp8 = a.cache.layout.format == LatentFormat::kFp8;
    if (!is_fast(a)) {
      const GenericShape shape = generic_shape(a);
      auto same = std::find_if(generic.begin(), generic.end(),
                               [&](const auto& other) { return other.first == shape; });
      if (same == generic.end()) same = generic.insert(same, {shape, {}});
      same->second.add(a, shape.rows, kGenericChunks);
    } else if (a.heads > kFewHeads) {
      many[fp8].add(a, ManyHeads::kRows, kManyHeadsChunks);
    } else if (a.q.rows * a.heads <= 16) {
      few[fp8][0].add(a, 16, kFewHeadsChunks);
    } else {
      few[fp8][1].add(a, 32, kFewHeadsChunks);
    }
  }
  attend<FewHeads<16>>(ctx, few[0][0], attend_few_heads<16>);
  attend<FewHeads<32>>(ctx, few[0][1], attend_few_heads<32>);
  attend<FewCodes<16>>(ctx, few[1][0], attend_few_codes<16>);
  attend<FewCodes<32>>(ctx, few[1][1], attend_few_codes<32>);
  attend<ManyHeads>(ctx, many[0], attend_many_heads);
  attend<ManyCodes>(ctx, many[1], attend_many_codes);
  for (auto& [shape, plan] : generic) attend_generic(ctx, plan, shape);
}

}  // namespace cachalot::cuda
