// Block-scaled E4M3 on the GPU: the ops of kernels/fp8.h but its product. Bound by memory: every
// value is read once.
#include "kernels/cuda/fp8.cuh"

#include "kernels/cuda/fp8_quantize.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/saved.cuh"

namespace cachalot::cuda {

namespace {

// A job and its reader are both made of one operand's.
template <class Operand, class OperandReader>
struct OneSource {
  int rows = 0, cols = 0;
  Operand x;
  numeric::ScaleKind kind = numeric::ScaleKind::kPow2;
  PanelOut along, across;

  static constexpr bool kTransposes = true;
  static constexpr int blocks(bool pow2, Wanted wanted) {
    if (wanted == Wanted::kAlong) return pow2 && !std::is_same_v<Operand, PanelCodes> ? 4 : 3;
    return 3;
  }
  bool pow2() const { return is_pow2(kind); }

  class Reader {
   public:
    static constexpr bool kStaged = true;
    static constexpr int kRowBytes = OperandReader::kRowBytes, kPanelBytes = kPanel * kRowBytes;
    __device__ Reader(const OneSource& a, const Panel& p)
        : x_(a.x, p), begin_(p.warp * kWarpRows * kRowBytes) {}
    template <bool kPow2>
    __device__ __forceinline__ void read(int row, float (&x)[kReadRows][4]) const {
      x_.read(row, x);
    }
    __device__ bool wide() const { return x_.wide(); }
    template <bool kWhole>
    __device__ __forceinline__ void fetch(int half, char* panel) const {
      x_.template fetch<kWhole>(half, panel + begin_);
    }
    __device__ __forceinline__ void take(int row, const char* panel, float (&x)[4]) const {
      x_.take(row, panel + begin_, x);
    }

   private:
    OperandReader x_;
    int begin_;  // of the warp's rows
  };
};
template <class T>
using PlainSource = OneSource<PanelValues<T>, ValuesReader<T>>;
using CodesSource = OneSource<PanelCodes, CodesReader<>>;

template <class T>
void quantize_of(const Context& ctx, std::span<const QuantizeFp8> jobs) {
  std::vector<PlainSource<T>> list;
  list.reserve(jobs.size());
  for (const QuantizeFp8& a : jobs) {
    if (a.x.dtype != DTypeOf<T>::value) continue;
    add_results(list, {a.x.rows, a.x.cols, panel_values(a.x.as<T>()), a.kind, {}, {}},
                panel_out(a.out), panel_out(a.also));
  }
  quantize_jobs(ctx, list, "quantize_fp8");
}

// --- multiplying out

struct Multiplied {
  int rows = 0, cols = 0;
  PanelCodes x;
  float* out = nullptr;  // null: not wanted
  int out_stride = 0;
  Bf16* half = nullptr;
  int half_stride = 0;
  bool out_wide = false, half_wide = false;
};

// Four values of a row: as floats, or rounded.
__device__ __forceinline__ void write_four(float* to, bool wide, int mine, const float (&x)[4]) {
  if (wide) {
    *reinterpret_cast<float4*>(to) = make_float4(x[0], x[1], x[2], x[3]);
    return;
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (j < mine) to[j] = x[j];
  }
}
__device__ __forceinline__ void write_four(Bf16* to, bool wide, int mine, const float (&x)[4]) {
  const std::uint32_t bits[4] = {bf16_bits(x[0]), bf16_bits(x[1]), bf16_bits(x[2]),
                                 bf16_bits(x[3])};
  if (wide) {
    *reinterpret_cast<uint2*>(to) = make_uint2(bits[0] | bits[1] << 16, bits[2] | bits[3] << 16);
    return;
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (j < mine) to[j].bits = static_cast<std::uint16_t>(bits[j]);
  }
}

__global__ void __launch_bounds__(kPanelThreads, 4)
    multiply_out_panels(const __grid_constant__ JobList<Multiplied> list) {
  constexpr int kRows = 8;
  const Multiplied* job;
  const Panel p = find_panel(list, job);
  const Multiplied& a = list.one;
  const CodesReader<> reader(a.x, p);
  float* out = element(a.out, p.first_row(), a.out_stride, p.col + 4 * p.lane);
  Bf16* half = element(a.half, p.first_row(), a.half_stride, p.col + 4 * p.lane);
#pragma unroll 1
  for (int first = 0; first < kWarpRows; first += kRows) {
    float x[kRows][4];
    reader.read(first, x);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (first + i >= p.warp_rows()) break;
      const bool all = p.mine() >= 4;
      if (a.out != nullptr) {
        write_four(element(out, first + i, a.out_stride), a.out_wide && all, p.mine(), x[i]);
      }
      if (a.half != nullptr) {
        write_four(element(half, first + i, a.half_stride), a.half_wide && all, p.mine(), x[i]);
      }
    }
  }
}

// --- gathering rows

// n bytes by one warp, in units of `Unit`.
template <class Unit>
__device__ __forceinline__ void copy_units(const void* from, void* to, int n, int lane) {
  const auto* source = static_cast<const Unit*>(from);
  auto* target = static_cast<Unit*>(to);
  for (int i = lane; i < n; i += 32) target[i] = __ldg(source + i);
}

struct Gathered {
  const std::uint8_t* codes;
  const float* scales;
  std::ptrdiff_t stride, scale_stride;
  const std::int32_t* rows;
  std::uint8_t* out;
  float* out_scales;
  std::ptrdiff_t out_stride, out_scale_stride;
  int count, cols, tiles, unit;
};

__global__ void __launch_bounds__(256) gather_code_rows(const Gathered a) {
  const int i = static_cast<int>(blockIdx.x * 8 + threadIdx.x / 32);
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (i >= a.count) return;
  const std::ptrdiff_t row = __ldg(a.rows + i);
  const std::uint8_t* from = a.codes + row * a.stride;
  std::uint8_t* to = a.out + i * a.out_stride;
  if (a.unit == 16) {
    copy_units<uint4>(from, to, a.cols / 16, lane);
  } else if (a.unit == 4) {
    copy_units<std::uint32_t>(from, to, a.cols / 4, lane);
  } else {
    copy_units<std::uint8_t>(from, to, a.cols, lane);
  }
  copy_units<float>(a.scales + row * a.scale_stride, a.out_scales + i * a.out_scale_stride, a.tiles,
                    lane);
}

}  // namespace

void quantize_fp8(const Context& ctx, std::span<const QuantizeFp8> jobs) {
  quantize_of<float>(ctx, jobs);
  quantize_of<Bf16>(ctx, jobs);
}

void requantize_fp8(const Context& ctx, std::span<const RequantizeFp8> jobs) {
  std::vector<CodesSource> list;
  list.reserve(jobs.size());
  for (const RequantizeFp8& a : jobs) {
    add_results(list, {a.x.rows, a.x.cols, panel_codes(a.x), a.kind, {}, {}}, panel_out(a.out), {});
  }
  quantize_jobs(ctx, list, "requantize_fp8");
}

void dequantize_fp8(const Context& ctx, const DequantizeFp8& a) {
  Multiplied job{a.x.rows, a.x.cols, panel_codes(a.x), nullptr, 0, nullptr, 0, false, false};
  if (!a.out.empty()) {
    job.out = a.out.data;
    job.out_stride = short_stride(a.out.stride);
    job.out_wide = aligned(a.out.data, a.out.stride, 16);
  }
  if (!a.half.empty()) {
    job.half = a.half.data;
    job.half_stride = short_stride(a.half.stride);
    job.half_wide = aligned(a.half.data, a.half.stride, 8);
  }
  std::vector<Multiplied> one{job};
  int panels = 0;
  const JobList<Multiplied> list = job_list(ctx, one, panels);
  if (panels == 0) return;
  multiply_out_panels<<<panels, kPanelThreads, 0, stream_of(ctx)>>>(list);
  check_launch("dequantize_fp8");
}

void gather_codes(const Context& ctx, const GatherCodes& a) {
  if (a.out.empty()) return;
  const auto fits = [&](int unit) {
    return a.out.cols % unit == 0 && aligned(a.x.codes, a.x.stride, unit) &&
           aligned(a.out.codes, a.out.stride, unit);
  };
  const Gathered g{a.x.codes,
                   a.x.scales,
                   a.x.stride,
                   a.x.scale_stride,
                   a.rows.data(),
                   a.out.codes,
                   a.out.scales,
                   a.out.stride,
                   a.out.scale_stride,
                   a.out.rows,
                   a.out.cols,
                   scale_cols(a.out.tile, a.out.cols),
                   fits(16)  ? 16
                   : fits(4) ? 4
                             : 1};
  gather_code_rows<<<ceil_div(a.out.rows, 8), 256, 0, stream_of(ctx)>>>(g);
  check_launch("gather_codes");
}

}  // namespace cachalot::cuda
