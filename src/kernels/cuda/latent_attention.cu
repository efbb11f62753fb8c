// Absorbed MLA attention on Hopper: which kernel a problem gets, and its launches.
//
// By heads, format and precision alone (never by queries or by what else is in the call: bits
// must not depend on those): latent 512 and rope 64 in BF16 or FP8 with bf16 products take
// the kernels of latent_few.cuh (up to 32 heads) and latent_many.cuh, everything else that of
// latent_generic.cuh.
// Idea of attending over parts of the context and merging them: Dao et al., Flash-Decoding (2023).
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "kernels/cuda/latent_few.cuh"
#include "kernels/cuda/latent_generic.cuh"
#include "kernels/cuda/latent_many.cuh"
#include "kernels/cuda/latent_plan.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/stream.cuh"

namespace cachalot::cuda {

namespace {

constexpr int kSharedLimit = 232448;  // bytes a block of threads may have
constexpr int kFewHeads = 32;

// Tokens. For few heads a chunk's sums are small beside its cache rows; for many heads, storing
// them costs about as much as 64 tokens. Generic: pieces are chunks.
constexpr int kGenericChunk = 256, kFewHeadsChunk = 512, kManyHeadsChunk = 512;

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

void merge(const Context& ctx, const LatentPlan& plan, const DevicePlan& on_device, int rows,
           int latent, int lanes, const Partials& partials) {
  const auto in_pieces = [lanes](const RowGroup& g) { return lanes > 1 || g.pieces > 1; };
  if (std::none_of(plan.groups.begin(), plan.groups.end(), in_pieces)) return;
  int eights = 1;
  for (const RowGroup& g : plan.groups) {
    eights = std::max(eights, ceil_div(g.chunks, kChunksTogether));
  }
  cudaLaunchConfig_t launch{};
  launch.gridDim = dim3(static_cast<unsigned>(plan.groups.size()), static_cast<unsigned>(rows),
                        static_cast<unsigned>(ceil_div(latent, 4 * kMergeThreads)));
  launch.blockDim = dim3(static_cast<unsigned>(std::min(eights, kMergeSeries) * kMergeThreads));
  launch.stream = stream_of(ctx);
  cudaLaunchAttribute early{};  // launched while the kernel before runs; it waits by itself
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  launch.attrs = &early;
  launch.numAttrs = 1;
  check(cudaLaunchKernelEx(&launch, merge_pieces, on_device, rows, latent, lanes,
                           static_cast<const float*>(partials.out),
                           static_cast<const float2*>(partials.rows)),
        "latent_attention merge");
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
  merge(ctx, plan, on_device, shape.rows, latent, 1, partials);
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
void attend(const Context& ctx, LatentPlan& plan, Kernel* kernel, bool fp8) {
  if (plan.empty()) return;
  plan.share(device_of(ctx).processors(), F::kLanes > 1);
  const DevicePlan on_device = upload(ctx, plan);
  const Partials partials = partials_of(ctx, plan, F::kRows * F::kLanes, kLatentWidth);
  const std::byte* base = *std::min_element(plan.blocks.begin(), plan.blocks.end());
  const CUtensorMap map = fp8 ? CUtensorMap{} : tile_map(base, F::kTokens);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, F::kBytes),
        "latent_attention");
  kernel<<<static_cast<unsigned>(plan.begins.size() - 1), F::kThreads, F::kBytes, stream_of(ctx)>>>(
      map, base, on_device, partials.out, partials.rows);
  check_launch("latent_attention");
  merge(ctx, plan, on_device, F::kRows, kLatentWidth, F::kLanes, partials);
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
      same->second.add(a, shape.rows, kGenericChunk);
    } else if (a.heads > kFewHeads) {
      many[fp8].add(a, ManyHeads::kRows, kManyHeadsChunk);
    } else if (a.q.rows * a.heads <= 16) {
      few[fp8][0].add(a, 16, kFewHeadsChunk);
    } else {
      few[fp8][1].add(a, 32, kFewHeadsChunk);
    }
  }
  attend<FewHeads<false, 16>>(ctx, few[0][0], attend_few_heads<false, 16>, false);
  attend<FewHeads<false, 32>>(ctx, few[0][1], attend_few_heads<false, 32>, false);
  attend<FewHeads<true, 16>>(ctx, few[1][0], attend_few_heads<true, 16>, true);
  attend<FewHeads<true, 32>>(ctx, few[1][1], attend_few_heads<true, 32>, true);
  attend<ManyHeads>(ctx, many[0], attend_many_heads<false>, false);
  attend<ManyHeads>(ctx, many[1], attend_many_heads<true>, true);
  for (auto& [shape, plan] : generic) attend_generic(ctx, plan, shape);
}

}  // namespace cachalot::cuda
