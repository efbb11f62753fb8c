// Absorbed MLA attention on Hopper: which kernel a problem gets, and its launches.
//
// By heads, format and precision alone (never by queries or by what else is in the call: bits
// must not depend on those): latent 512 and rope 64 in BF16 or FP8 with bf16 products take
// the kernels of latent_few.cuh (up to 32 heads) and latent_many.cuh, everything else that of
// latent_generic.cuh.
// Idea of attending over parts of the context and merging them: Dao et al., Flash-Decoding (2023).
#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>

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

// Tokens. Storing a chunk's sums of many heads takes as long as some hundred tokens: on an H200
// chunks of 1024 were faster than 512 from the shortest contexts on (500 against 467 TFLOPS at 16 x
// 128K, 473 against 410 at 128 x 4K). Of few heads 512 give 3330 GB/s at 16 x 32K, 256 3150; only
// one sequence of 4K is slower (19 against 15 us). Generic: pieces are chunks.
constexpr ChunkLengths kGenericChunks{256, 1 << 20}, kFewHeadsChunks{512, 128},
    kManyHeadsChunks{1024, 64};

// What the launches for a plan depend on.
struct Launches {
  DevicePlan plan;
  int blocks, groups, partials;
  int eights;   // of the longest row
  bool merged;  // some row has several partials
  const std::byte* base;
};

struct Partials {
  float* out = nullptr;    // [partials, rows of a group, L]
  float2* rows = nullptr;  // largest score, in powers of two, and sum of weights
};
Partials partials_of(const Context& ctx, int partials, int rows, int latent) {
  const std::size_t count = static_cast<std::size_t>(partials) * static_cast<std::size_t>(rows);
  if (count == 0) return {};
  auto* p = static_cast<float*>(device_of(ctx).scratch(
      kScratchAttention,
      count * (sizeof(float) * static_cast<std::size_t>(latent) + sizeof(float2))));
  return {p, reinterpret_cast<float2*>(p + count * static_cast<std::size_t>(latent))};
}

// `F`: FewHeads, FewCodes, ManyHeads or ManyCodes.
template <class F>
void merge(const Context& ctx, const Launches& l, const Partials& partials) {
  if (!l.merged) return;
  constexpr int kLines = F::kRows * kLatentWidth / 128;
  const int series = std::min(l.eights * F::kLanes, kMergeSeries);
  const int lines = series <= kMergeWarps / 4 ? 4 : 1;  // of a block of threads
  launch_early(ctx, "latent_attention merge", merge_lines<F>,
               dim3(static_cast<unsigned>(l.groups), static_cast<unsigned>(kLines / lines)),
               dim3(static_cast<unsigned>(32 * series * lines)), 0, l.plan, series, partials.out,
               partials.rows);
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

void launch_generic(const Context& ctx, const Launches& l, const GenericShape& shape) {
  const int latent = shape.layout.latent;
  const Partials partials = partials_of(ctx, l.partials, shape.rows, latent);
  check(cudaFuncSetAttribute(attend_any, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shape.bytes())),
        "latent_attention");
  launch_early(ctx, "latent_attention", attend_any, dim3(static_cast<unsigned>(l.blocks)),
               dim3(256), shape.bytes(), shape, l.plan, partials.out, partials.rows);
  if (!l.merged) return;
  launch_early(ctx, "latent_attention merge", merge_any,
               dim3(static_cast<unsigned>(l.groups), static_cast<unsigned>(shape.rows),
                    static_cast<unsigned>(ceil_div(latent, 4 * kAnyThreads))),
               dim3(static_cast<unsigned>(std::min(l.eights, kAnySeries) * kAnyThreads)), 0, l.plan,
               shape.rows, latent, partials.out, partials.rows);
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

template <class F, class Kernel>
void launch(const Context& ctx, const Launches& l, Kernel* kernel) {
  const Partials partials = partials_of(ctx, l.partials, F::kRows * F::kLanes, kLatentWidth);
  const CUtensorMap map = F::kCodes ? CUtensorMap{} : tile_map(l.base, F::kTokens);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, F::kBytes),
        "latent_attention");
  launch_early(ctx, "latent_attention", kernel, dim3(static_cast<unsigned>(l.blocks)),
               dim3(F::kThreads), F::kBytes, map, l.base, l.plan, partials.out, partials.rows);
  merge<F>(ctx, l, partials);
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

// Which kernel; kGeneric has a shape beside.
enum class Kind : int { kFew16, kFew32, kFew16Fp8, kFew32Fp8, kMany, kManyFp8, kGeneric };
struct Part {
  Kind kind = Kind::kGeneric;
  GenericShape generic{};
  LatentPlan plan;

  bool same(Kind k, const GenericShape& shape) const {
    return kind == k && (k != Kind::kGeneric || generic == shape);
  }
  int lanes() const {
    switch (kind) {
      case Kind::kFew16:
      case Kind::kFew32:
        return FewHeads<16>::kLanes;
      case Kind::kFew16Fp8:
      case Kind::kFew32Fp8:
        return FewCodes<16>::kLanes;
      case Kind::kMany:
        return ManyHeads::kLanes;
      case Kind::kManyFp8:
        return ManyCodes::kLanes;
      case Kind::kGeneric:
        break;
    }
    return 1;
  }
};

Kind kind_of(const LatentAttention& a) {
  const bool fp8 = a.cache.layout.format == LatentFormat::kFp8;
  if (!is_fast(a)) return Kind::kGeneric;
  if (a.heads > kFewHeads) return fp8 ? Kind::kManyFp8 : Kind::kMany;
  if (a.q.rows * a.heads <= 16) return fp8 ? Kind::kFew16Fp8 : Kind::kFew16;
  return fp8 ? Kind::kFew32Fp8 : Kind::kFew32;
}

// Problems by the kernel that they get, shared out among its blocks of threads.
std::vector<Part> parts_of(const Context& ctx, std::span<const LatentAttention> problems) {
  std::vector<Part> parts;
  for (const LatentAttention& a : problems) {
    if (a.q.rows == 0) continue;
    const Kind kind = kind_of(a);
    const GenericShape shape = kind == Kind::kGeneric ? generic_shape(a) : GenericShape{};
    auto part = std::find_if(parts.begin(), parts.end(),
                             [&](const Part& other) { return other.same(kind, shape); });
    if (part == parts.end()) part = parts.insert(part, {kind, shape, {}});
    switch (kind) {
      case Kind::kGeneric:
        part->plan.add(a, shape.rows, kGenericChunks);
        break;
      case Kind::kMany:
      case Kind::kManyFp8:
        part->plan.add(a, ManyHeads::kRows, kManyHeadsChunks);
        break;
      default:
        part->plan.add(a, kind == Kind::kFew16 || kind == Kind::kFew16Fp8 ? 16 : 32,
                       kFewHeadsChunks);
    }
  }
  for (Part& part : parts) {
    const bool generic = part.kind == Kind::kGeneric;
    part.plan.share(generic ? 1 << 30 : device_of(ctx).processors(), part.lanes() > 1);
  }
  return parts;
}

Launches launches_of(const Part& part, const DevicePlan& on_device) {
  const LatentPlan& plan = part.plan;
  Launches l{};
  l.plan = on_device;
  l.blocks = static_cast<int>(plan.begins.size()) - 1;
  l.groups = static_cast<int>(plan.groups.size());
  l.partials = plan.partials;
  l.eights = 1;
  for (const RowGroup& g : plan.groups) {
    l.eights = std::max(l.eights, ceil_div(g.chunks, kChunksTogether));
    l.merged |= part.lanes() > 1 || g.pieces > 1;
  }
  l.base = *std::min_element(plan.blocks.begin(), plan.blocks.end());
  return l;
}

void launch(const Context& ctx, Kind kind, const GenericShape& generic, const Launches& l) {
  switch (kind) {
    case Kind::kFew16:
      return launch<FewHeads<16>>(ctx, l, attend_few_heads<16>);
    case Kind::kFew32:
      return launch<FewHeads<32>>(ctx, l, attend_few_heads<32>);
    case Kind::kFew16Fp8:
      return launch<FewCodes<16>>(ctx, l, attend_few_codes<16>);
    case Kind::kFew32Fp8:
      return launch<FewCodes<32>>(ctx, l, attend_few_codes<32>);
    case Kind::kMany:
      return launch<ManyHeads>(ctx, l, attend_many_heads);
    case Kind::kManyFp8:
      return launch<ManyCodes>(ctx, l, attend_many_codes);
    case Kind::kGeneric:
      return launch_generic(ctx, l, generic);
  }
}

// A part of a plan that is kept on the device, as numbers of PlannedLatents::shape. What grows with
// the context has room for the next power of two, so that few contexts need other launches.
struct PlannedPart {
  std::int64_t kind, first_problem, blocks, groups, partials, eights, merged, base;
  std::int64_t groups_at, pieces_at, begins_at, eights_at, blocks_at;  // bytes
};
constexpr std::size_t kPartNumbers = sizeof(PlannedPart) / sizeof(std::int64_t);

int up_to_power(std::size_t n) {
  return static_cast<int>(std::bit_ceil(std::max<std::size_t>(n, 1)));
}

// Lists one after the other, each with room for `room` elements.
struct Bytes {
  std::vector<std::byte> bytes;
  template <class T>
  std::int64_t append(const std::vector<T>& list, int room) {
    const std::size_t at = (bytes.size() + 15) / 16 * 16;
    bytes.resize(at + static_cast<std::size_t>(room) * sizeof(T));
    std::memcpy(bytes.data() + at, list.data(), list.size() * sizeof(T));
    return static_cast<std::int64_t>(at);
  }
};

PlannedPart add_part(const Context& ctx, const Part& part, std::size_t first_problem, Bytes& to) {
  const LatentPlan& plan = part.plan;
  const Launches l = launches_of(part, {});
  PlannedPart p{};
  p.kind = static_cast<std::int64_t>(part.kind);
  p.first_problem = static_cast<std::int64_t>(first_problem);
  p.blocks = up_to_power(static_cast<std::size_t>(l.blocks));
  if (part.kind != Kind::kGeneric) {
    p.blocks = std::min<std::int64_t>(p.blocks, device_of(ctx).processors());
  }
  p.groups = l.groups;
  p.partials = l.partials == 0 ? 0 : up_to_power(static_cast<std::size_t>(l.partials));
  p.eights = std::min(up_to_power(static_cast<std::size_t>(l.eights)), kMergeSeries);
  p.merged = l.merged;
  p.base = reinterpret_cast<std::int64_t>(device_of(ctx).allocation_of(l.base));
  std::vector<int> begins = plan.begins;  // blocks of threads past the last have nothing to do
  begins.resize(static_cast<std::size_t>(p.blocks) + 1, begins.back());
  p.groups_at = to.append(plan.groups, l.groups);
  p.pieces_at = to.append(plan.pieces, up_to_power(plan.pieces.size()));
  p.begins_at = to.append(begins, static_cast<int>(begins.size()));
  p.eights_at = to.append(plan.eights, up_to_power(plan.eights.size()));
  p.blocks_at = to.append(plan.blocks, up_to_power(plan.blocks.size()));
  return p;
}

}  // namespace

void latent_attention(const Context& ctx, std::span<const LatentAttention> problems) {
  for (const Part& part : parts_of(ctx, problems)) {
    launch(ctx, part.kind, part.generic, launches_of(part, upload(ctx, part.plan)));
  }
}

// The list of stores begins the memory; shape: how many there are and their rows, the parts.
void plan_latents(const Context& ctx, PlannedLatents& plan) {
  Bytes bytes;
  plan.shape = append_stores(plan.stores, bytes.bytes);
  for (const Part& part : parts_of(ctx, plan.problems)) {
    const auto first =
        std::find_if(plan.problems.begin(), plan.problems.end(), [&](const LatentAttention& a) {
          const Kind kind = kind_of(a);
          return a.q.rows > 0 &&
                 part.same(kind, kind == Kind::kGeneric ? generic_shape(a) : GenericShape{});
        });
    const PlannedPart p =
        add_part(ctx, part, static_cast<std::size_t>(first - plan.problems.begin()), bytes);
    std::int64_t numbers[kPartNumbers];
    std::memcpy(numbers, &p, sizeof(p));
    plan.shape.insert(plan.shape.end(), numbers, numbers + kPartNumbers);
  }
  constexpr std::size_t kLeast = std::size_t{64} << 10;
  const MemoryScope scope(ctx.device);
  if (plan.memory.bytes() < bytes.bytes.size()) {
    plan.memory.resize(1, static_cast<int>(std::bit_ceil(std::max(bytes.bytes.size(), kLeast))));
  }
  device_of(ctx).upload(plan.memory.data(), bytes.bytes.data(), bytes.bytes.size());
}

void attend_planned(const Context& ctx, const PlannedLatents& plan, std::ptrdiff_t shift) {
  const std::byte* memory = plan.memory.data();
  for (std::size_t at = kStoreNumbers; at < plan.shape.size(); at += kPartNumbers) {
    PlannedPart p;
    std::memcpy(&p, plan.shape.data() + at, sizeof(p));
    const auto kind = static_cast<Kind>(p.kind);
    Launches l{};
    l.plan = {reinterpret_cast<const RowGroup*>(memory + p.groups_at),
              reinterpret_cast<const Piece*>(memory + p.pieces_at),
              reinterpret_cast<const int*>(memory + p.begins_at),
              reinterpret_cast<const int*>(memory + p.eights_at),
              reinterpret_cast<const std::byte* const*>(memory + p.blocks_at),
              shift};
    l.blocks = static_cast<int>(p.blocks);
    l.groups = static_cast<int>(p.groups);
    l.partials = static_cast<int>(p.partials);
    l.eights = static_cast<int>(p.eights);
    l.merged = p.merged != 0;
    l.base = reinterpret_cast<const std::byte*>(p.base);
    const LatentAttention& first = plan.problems[static_cast<std::size_t>(p.first_problem)];
    launch(ctx, kind, kind == Kind::kGeneric ? generic_shape(first) : GenericShape{}, l);
  }
}

}  // namespace cachalot::cuda
