#include "kernels/cuda/attention_work.cuh"

#include <algorithm>
#include <cstdint>

namespace cachalot::cuda::attn {

namespace {

bool aligned(const void* p, std::size_t bytes) {
  return reinterpret_cast<std::uintptr_t>(p) % bytes == 0;
}

constexpr int kChunk = 8;  // elements one thread writes: 16 bytes

// Rows of heads [first, second] into rows of heads [first_to, second_to], zeros behind each part.
struct Pack {
  const float* from = nullptr;
  const Bf16* from_bf16 = nullptr;  // read instead, if there
  std::ptrdiff_t stride = 0;
  int first = 0, second = 0;
  bool wide_loads = false;  // chunks of floats are 16-byte aligned
  Bf16* to = nullptr;
  int first_to = 0, second_to = 0;
  std::int64_t rows = 0;
  int heads = 0;
};

__device__ std::uint16_t element(const Pack& p, std::int64_t at) {
  if (p.from_bf16 != nullptr) return p.from_bf16[at].bits;
  return __bfloat16_as_ushort(__float2bfloat16_rn(p.from[at]));
}

__global__ void pack_kernel(Pack p) {
  const int width_to = p.first_to + p.second_to;
  const int chunks = width_to / kChunk;
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= p.rows * p.heads * chunks) return;
  const int chunk = static_cast<int>(i % chunks);
  const int head = static_cast<int>(i / chunks % p.heads);
  const std::int64_t row = i / chunks / p.heads;
  const bool second = chunk * kChunk >= p.first_to;
  const int col = chunk * kChunk - (second ? p.first_to : 0);
  const int cols = second ? p.second : p.first;
  const std::int64_t from =
      row * p.stride + std::int64_t{head} * (p.first + p.second) + (second ? p.first : 0) + col;
  union {
    std::uint16_t x[kChunk];
    uint4 all;
  } out;
  if (p.wide_loads && col + kChunk <= cols) {
    float x[kChunk];
    *reinterpret_cast<float4*>(x) = *reinterpret_cast<const float4*>(p.from + from);
    *reinterpret_cast<float4*>(x + 4) = *reinterpret_cast<const float4*>(p.from + from + 4);
#pragma unroll
    for (int c = 0; c < kChunk; ++c) out.x[c] = __bfloat16_as_ushort(__float2bfloat16_rn(x[c]));
  } else {
#pragma unroll
    for (int c = 0; c < kChunk; ++c) out.x[c] = col + c < cols ? element(p, from + c) : 0;
  }
  *reinterpret_cast<uint4*>(p.to + (row * p.heads + head) * width_to + chunk * kChunk) = out.all;
}

void launch_pack(const Context& ctx, MatView<const float> from, MatView<const Bf16> bf16, Pack p) {
  if (bf16.rows > 0) {
    p.from_bf16 = bf16.data;
    p.stride = bf16.stride;
  } else {
    p.from = from.data;
    p.stride = from.stride;
    p.wide_loads =
        aligned(from.data, 16) && from.stride % 4 == 0 && p.first % 4 == 0 && p.second % 4 == 0;
  }
  const std::int64_t chunks = p.rows * p.heads * ((p.first_to + p.second_to) / kChunk);
  if (chunks == 0) return;
  pack_kernel<<<ceil_div(chunks, 256), 256, 0, stream_of(ctx)>>>(p);
  check_launch("attention: packing operands");
}

bool fetchable(MatView<const Bf16> m) {
  return m.rows > 0 && aligned(m.data, 16) && m.stride % 8 == 0;
}

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

EncodeTiled encode_tiled() {
  static const EncodeTiled fn = [] {
    void* p = nullptr;
    cudaDriverEntryPointQueryResult found{};
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &p, 12000, cudaEnableDefault,
                                           &found),
          "looking for cuTensorMapEncodeTiled");
    if (p == nullptr || found != cudaDriverEntryPointSuccess) {
      throw Error(
          Code::kUnsupported,
          "CUDA: the driver has no cuTensorMapEncodeTiled; install one for CUDA 12 or later");
    }
    return reinterpret_cast<EncodeTiled>(p);
  }();
  return fn;
}

__global__ void sum_over_heads_kernel(const AttentionSpan* spans, int span_count,
                                      const float* parts, int heads, int width, int rope,
                                      float* out, std::ptrdiff_t stride) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const std::int64_t row = i / rope;
  const int col = static_cast<int>(i % rope);
  for (int s = blockIdx.y; s < span_count; s += gridDim.y) {
    if (row >= spans[s].kv_rows) continue;
    const std::int64_t at = spans[s].kv_begin + row;
    float sum = 0;
    for (int h = 0; h < heads; ++h) sum += parts[(at * heads + h) * width + col];
    out[at * stride + col] = sum;
  }
}

bool fits(const AttentionDims& d, int nope, int rope, int value) {
  return d.nope <= nope && d.rope <= rope && d.value <= value;
}

}  // namespace

HeadKind head_kind(const AttentionDims& d, Precision precision) {
  if (precision != Precision::kBF16) return HeadKind::kOther;
  if (fits(d, NarrowHeads::kNope, NarrowHeads::kRope, NarrowHeads::kValue)) {
    return HeadKind::kNarrow;
  }
  if (fits(d, WideHeads::kNope, WideHeads::kRope, WideHeads::kValue)) return HeadKind::kWide;
  return HeadKind::kOther;
}

bool takes_pairs(MatView<float> m) { return aligned(m.data, 8) && m.stride % 2 == 0; }

void sum_over_heads(const Context& ctx, const AttentionBackward<float>& a, const float* parts,
                    int width) {
  std::int64_t rows = 0;
  for (const AttentionSpan& s : a.spans) rows = std::max(rows, std::int64_t{s.kv_rows});
  if (rows * a.dims.rope == 0) return;
  const dim3 grid(static_cast<unsigned>(ceil_div(rows * a.dims.rope, 256)),
                  static_cast<unsigned>(std::min<std::size_t>(a.spans.size(), 65535)));
  sum_over_heads_kernel<<<grid, 256, 0, stream_of(ctx)>>>(
      stage(ctx, a.spans), static_cast<int>(a.spans.size()), parts, a.dims.heads, width,
      a.dims.rope, a.dk_rope.data, a.dk_rope.stride);
  check_launch("attention: sum over heads");
}

CUtensorMap tile_map(const Bf16* data, std::int64_t rows, int cols, std::ptrdiff_t stride) {
  CUtensorMap map;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(cols),
                               static_cast<cuuint64_t>(std::max<std::int64_t>(rows, 1))};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(stride) * sizeof(Bf16)};
  const cuuint32_t box[2] = {64, 64}, steps[2] = {1, 1};
  const CUresult result =
      encode_tiled()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<Bf16*>(data), sizes,
                     strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                     CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw Error(Code::kInternal, cat("CUDA: describing a matrix [", rows, ", ", cols,
                                     "] to TMA failed with code ", static_cast<int>(result)));
  }
  return map;
}

PackedInputs::PackedInputs(const Inputs& a, int nope, int rope, int value, Room& room)
    : a_(a), nope_(nope), rope_(rope), value_(value) {
  const AttentionDims& d = a.dims;
  const auto place = [&](Rows& r, int rows, MatView<const Bf16> bf16, bool same_widths, int cols) {
    r.rows = rows;
    r.cols = cols;
    r.stride = cols;
    r.in_place = same_widths && fetchable(bf16);
    if (r.in_place) {
      r.data = bf16.data;
      r.stride = bf16.stride;
    } else {
      r.at =
          room.take(sizeof(Bf16) * static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols));
    }
  };
  place(q_, a.q.rows, a.q_bf16, d.nope == nope && d.rope == rope, d.heads * (nope + rope));
  place(kv_, a.kv.rows, a.kv_bf16, d.nope == nope && d.value == value, d.heads * (nope + value));
  place(k_rope_, a.kv.rows, {}, false, 64);
}

void PackedInputs::pack(const Context& ctx, std::byte* scratch) {
  const AttentionDims& d = a_.dims;
  const auto run = [&](Rows& r, MatView<const float> from, MatView<const Bf16> bf16, Pack p) {
    if (r.in_place) return;
    p.to = reinterpret_cast<Bf16*>(scratch + r.at);
    p.rows = r.rows;
    r.data = p.to;
    launch_pack(ctx, from, bf16, p);
  };
  run(q_, a_.q, a_.q_bf16,
      {.first = d.nope, .second = d.rope, .first_to = nope_, .second_to = rope_, .heads = d.heads});
  run(kv_, a_.kv, a_.kv_bf16,
      {.first = d.nope,
       .second = d.value,
       .first_to = nope_,
       .second_to = value_,
       .heads = d.heads});
  run(k_rope_, a_.k_rope, {}, {.first = d.rope, .first_to = 64, .heads = 1});
}

CUtensorMap PackedInputs::map_of(const Rows& r) {
  return tile_map(r.data, r.rows, r.cols, r.stride);
}
CUtensorMap PackedInputs::q_map() const { return map_of(q_); }
CUtensorMap PackedInputs::kv_map() const { return map_of(kv_); }
CUtensorMap PackedInputs::rope_map() const { return map_of(k_rope_); }

}  // namespace cachalot::cuda::attn
