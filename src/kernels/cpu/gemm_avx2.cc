#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/gemm_avx2.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/transpose_avx2.h"
#include "numeric/small_float.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX2)
namespace cachalot::cpu::avx2 {

namespace {

constexpr int kLanes = 8;
constexpr int kVecs = 2;
constexpr int kAhead = 8 * 16;  // floats of B fetched ahead, from L2 to L1

template <int kTileRows, int kTileVecs>
using Sums = __m256[kTileRows][kTileVecs];

template <int kTileRows, int kTileVecs>
[[gnu::always_inline]] inline void add_steps(Sums<kTileRows, kTileVecs>& acc, const float*& a,
                                             const float*& b, std::int64_t steps) {
  for (std::int64_t s = steps; s > 0; --s) {
    _mm_prefetch(reinterpret_cast<const char*>(b + kAhead), _MM_HINT_T0);
    __m256 bv[kTileVecs];
    CACHALOT_UNROLL
    for (int j = 0; j < kTileVecs; ++j) bv[j] = _mm256_loadu_ps(b + j * kLanes);
    CACHALOT_UNROLL
    for (int i = 0; i < kTileRows; ++i) {
      const __m256 av = _mm256_broadcast_ss(a + i);
      CACHALOT_UNROLL
      for (int j = 0; j < kTileVecs; ++j) acc[i][j] = _mm256_fmadd_ps(av, bv[j], acc[i][j]);
    }
    a += kTileRows;
    b += kTileVecs * kLanes;
  }
}

template <int kTileRows, int kTileVecs>
void tile_kernel(const TileJob& job) {
  Sums<kTileRows, kTileVecs> acc;
  CACHALOT_UNROLL
  for (int i = 0; i < kTileRows; ++i) {
    CACHALOT_UNROLL
    for (int j = 0; j < kTileVecs; ++j) {
      acc[i][j] =
          job.load ? _mm256_loadu_ps(job.c + i * job.c_stride + j * kLanes) : _mm256_setzero_ps();
    }
  }
  const auto* a = reinterpret_cast<const float*>(job.a);
  const auto* b = reinterpret_cast<const float*>(job.b);
  add_steps<kTileRows, kTileVecs>(acc, a, b, job.steps);
  CACHALOT_UNROLL
  for (int i = 0; i < kTileRows; ++i) {
    CACHALOT_UNROLL
    for (int j = 0; j < kTileVecs; ++j) {
      _mm256_storeu_ps(job.c + i * job.c_stride + j * kLanes, acc[i][j]);
    }
  }
}

// As in gemm_tile_avx512.inc.
template <int kTileRows, int kTileVecs>
void scaled_kernel(const TileJob& job) {
  const auto* a = reinterpret_cast<const float*>(job.a);
  const auto* b = reinterpret_cast<const float*>(job.b);
  std::int64_t left = job.steps;
  bool load = job.load;
  do {
    Sums<kTileRows, kTileVecs> acc;
    CACHALOT_UNROLL
    for (int i = 0; i < kTileRows; ++i) {
      CACHALOT_UNROLL
      for (int j = 0; j < kTileVecs; ++j) acc[i][j] = _mm256_setzero_ps();
    }
    const std::int64_t run = left > job.scaled_steps ? job.scaled_steps : left - 1;
    add_steps<kTileRows, kTileVecs>(acc, a, b, run);
    CACHALOT_UNROLL
    for (int i = 0; i < kTileRows; ++i) {
      const __m256 scale_a = run < 0 ? _mm256_setzero_ps() : _mm256_broadcast_ss(a + i);
      CACHALOT_UNROLL
      for (int j = 0; j < kTileVecs; ++j) {
        float* c = job.c + i * job.c_stride + j * kLanes;
        const __m256 sum = load ? _mm256_loadu_ps(c) : _mm256_setzero_ps();
        // A sum over nothing has no scales either.
        const __m256 scale_b = run < 0 ? _mm256_setzero_ps() : _mm256_loadu_ps(b + j * kLanes);
        _mm256_storeu_ps(c, _mm256_fmadd_ps(acc[i][j], _mm256_mul_ps(scale_a, scale_b), sum));
      }
    }
    a += kTileRows;
    b += kTileVecs * kLanes;
    left -= run + 1;
    load = true;
  } while (left > 0);
}

using TileFn = void (*)(const TileJob&);
template <int kTileVecs, std::size_t... kI>
constexpr std::array<TileFn, sizeof...(kI)> tiles(std::index_sequence<kI...>) {
  return {tile_kernel<static_cast<int>(kI) + 1, kTileVecs>...};
}
template <int kTileVecs, std::size_t... kI>
constexpr std::array<TileFn, sizeof...(kI)> scaled_tiles(std::index_sequence<kI...>) {
  return {scaled_kernel<static_cast<int>(kI) + 1, kTileVecs>...};
}

void tile(const TileJob& job) {
  static constexpr auto kOne = tiles<1>(std::make_index_sequence<kGemmRows>());
  static constexpr auto kTwo = tiles<2>(std::make_index_sequence<kGemmRows>());
  const auto row = static_cast<std::size_t>(job.rows - 1);
  (job.vecs == 1 ? kOne : kTwo)[row](job);
}

void scaled_tile(const TileJob& job) {
  static constexpr auto kOne = scaled_tiles<1>(std::make_index_sequence<kGemmRows>());
  static constexpr auto kTwo = scaled_tiles<2>(std::make_index_sequence<kGemmRows>());
  const auto row = static_cast<std::size_t>(job.rows - 1);
  (job.vecs == 1 ? kOne : kTwo)[row](job);
}

// 8 consecutive elements as floats, rounded to bf16 where the steps want it.
template <bool kRound>
inline __m256 load8(const float* p) {
  const __m256 x = _mm256_loadu_ps(p);
  if constexpr (!kRound) return x;
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd);
  const __m256 quiet =
      _mm256_or_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0x00400000)));  // NaN stays NaN
  const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  return _mm256_and_ps(_mm256_blendv_ps(_mm256_castsi256_ps(sum), quiet, nan),
                       _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(0xFFFF0000u))));
}
template <bool kRound>
inline __m256 load8(const Bf16* p) {
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
// Codes of E4M3: the bits of a half-precision float, but for 2^8 and for NaN.
template <bool kRound>
inline __m256 load8(const std::uint8_t* p) {
  const __m128i code = _mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  const __m128i half = _mm_and_si128(_mm_slli_epi16(code, 7), _mm_set1_epi16(-0x4001));
  const __m256 x = _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256.0f));
  const __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
  const __m256 nan = _mm256_cmp_ps(size, _mm256_set1_ps(480.0f), _CMP_EQ_OQ);
  return _mm256_or_ps(x, _mm256_and_ps(nan, _mm256_castsi256_ps(_mm256_set1_epi32(0x7FC00000))));
}
template <bool kRound>
inline float load1(const float* p) {
  return kRound ? to_float(to_bf16(*p)) : *p;
}
template <bool kRound>
inline float load1(const Bf16* p) {
  return to_float(*p);
}

template <bool kRound>
inline float load1(const std::uint8_t* p) {
  return numeric::decode_e4m3(*p);
}

// Step s of a bf16 panel holds element s ^ 1 of k.
template <bool kRound, class T>
void pack_lines(const PackJob& job, int line, int lines, int k_begin, int k_end) {
  constexpr int kFlip = kRound ? 1 : 0;
  const T* src = static_cast<const T*>(job.src);
  auto* dst = reinterpret_cast<float*>(job.dst);
  for (int k = k_begin; k < k_end; ++k) {
    for (int l = line; l < lines; ++l) {
      dst[static_cast<std::ptrdiff_t>(k ^ kFlip) * job.width + l] =
          load1<kRound>(src + l * job.line_stride + k * job.k_stride);
    }
  }
}

// The lines from `line` on, fewer than a vector of them, for elements [0, the result). The lanes
// behind the last line lie in the next step, so this comes before the lines that are written there.
template <bool kRound, class T>
int pack_last_lines(const PackJob& job, int line, int k, std::int64_t steps) {
  constexpr int kFlip = kRound ? 1 : 0;
  const T* src = static_cast<const T*>(job.src);
  auto* dst = reinterpret_cast<float*>(job.dst) + line;
  const int lines = job.lines - line;
  int i = 0;
  for (; i + kLanes <= k && i + kLanes < steps; i += kLanes) {
    __m256 v[8];
    CACHALOT_UNROLL
    for (int r = 0; r < 8; ++r) {
      v[r] =
          r < lines ? load8<kRound>(src + (line + r) * job.line_stride + i) : _mm256_setzero_ps();
    }
    transpose_8x8(v);
    CACHALOT_UNROLL
    for (int s = 0; s < 8; ++s) {
      _mm256_storeu_ps(dst + static_cast<std::ptrdiff_t>(i + s) * job.width, v[s ^ kFlip]);
    }
  }
  return i;
}

template <bool kRound, class T>
void pack_as(const PackJob& job) {
  constexpr int kFlip = kRound ? 1 : 0;
  const int k = job.k_end - job.k_begin;
  const T* src = static_cast<const T*>(job.src);
  auto* dst = reinterpret_cast<float*>(job.dst);
  const std::int64_t steps = steps_of(kRound ? Steps::kWide : Steps::kFloat, k);
  if (job.lines < job.width || steps != k) {  // what no line or element fills is zero
    std::memset(dst, 0, static_cast<std::size_t>(steps * job.width) * sizeof(float));
  }
  const bool across = job.line_stride == 1 && job.k_stride != 1;
  const int whole = job.lines / kLanes * kLanes;
  if (whole < job.lines) {
    const bool along = job.k_stride == 1;
    const int done = along ? pack_last_lines<kRound, T>(job, whole, k, steps) : 0;
    pack_lines<kRound, T>(job, whole, job.lines, done, k);
  }
  for (int line = 0; line < whole; line += kLanes) {
    if (across) {
      for (int i = 0; i < k; ++i) {
        _mm256_storeu_ps(dst + static_cast<std::ptrdiff_t>(i ^ kFlip) * job.width + line,
                         load8<kRound>(src + line + i * job.k_stride));
      }
      continue;
    }
    int i = 0;
    for (; i + kLanes <= k; i += kLanes) {
      __m256 v[8];
      CACHALOT_UNROLL
      for (int r = 0; r < 8; ++r) v[r] = load8<kRound>(src + (line + r) * job.line_stride + i);
      transpose_8x8(v);
      CACHALOT_UNROLL
      for (int r = 0; r < 8; ++r) {
        _mm256_storeu_ps(dst + static_cast<std::ptrdiff_t>(i + (r ^ kFlip)) * job.width + line,
                         v[r]);
      }
    }
    pack_lines<kRound, T>(job, line, line + kLanes, i, k);
  }
}

}  // namespace

void gemm_pack(const PackJob& job) {
  if (job.dtype == DType::kF8E4M3) return pack_as<true, std::uint8_t>(job);
  if (job.steps == Steps::kFloat) {
    return job.dtype == DType::kBF16 ? pack_as<false, Bf16>(job) : pack_as<false, float>(job);
  }
  return job.dtype == DType::kBF16 ? pack_as<true, Bf16>(job) : pack_as<true, float>(job);
}

void gemm_store(const float* sums, std::ptrdiff_t stride, int rows, int cols, bool accumulate,
                float* c, std::ptrdiff_t c_stride) {
  for (int i = 0; i < rows; ++i, sums += stride, c += c_stride) {
    for (int j = 0; j < cols; ++j) c[j] = accumulate ? c[j] + sums[j] : sums[j];
  }
}

static constexpr GemmIsa kIsa = {.lanes = kLanes,
                                 .max_rows = kGemmRows,
                                 .max_vecs = kVecs,
                                 .direct_rows = kGemmRows,
                                 .bf16 = Steps::kWide,
                                 .flush_denormals_in_bf16 = false,
                                 .pack = gemm_pack,
                                 .tile = tile,
                                 .scaled_tile = scaled_tile,
                                 .direct = gemm_direct,
                                 .store = gemm_store,
                                 .store_bf16 = gemm_store_bf16};

void gemm(const Context& ctx, Precision precision, std::span<const Gemm> problems) {
  run_gemm(kIsa, ctx, precision, problems);
}

void pack_b(const Context& ctx, Precision precision, std::span<const PackB> jobs) {
  run_pack_b(kIsa, ctx, precision, jobs);
}

void gemm_fp8(const Context& ctx, std::span<const Fp8Gemm> problems) {
  run_gemm_fp8(kIsa, ctx, problems);
}

}  // namespace cachalot::cpu::avx2
CACHALOT_END_TARGET
#endif
