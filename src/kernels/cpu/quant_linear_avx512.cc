// Weights in 8 or 4 bits, activations in bf16, by float multiply-adds: codes become floats, the odd
// one of a pair first, so that the sums are those of vdpbf16ps.
#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/e4m3_avx512.h"
#include "kernels/cpu/gemm_avx512.h"
#include "kernels/cpu/panel_stream.h"
#include "kernels/cpu/quant_avx512.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/transpose_avx512.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX512)
namespace cachalot::cpu::avx512 {

namespace {

struct Floats {
  using Sum = __m512;
  static constexpr int kTileWords = kQuantTile;
  static constexpr bool kReadsE4m3 = true;
  template <QuantCode kCode>
  static constexpr int kWords = kCode == QuantCode::kInt4 ? 8 : 4;

  __m512i first, second;  // bytes 0, 1 and 2, 3 of each row in the halves of its word

  Floats() {  // written out: an implicit one would lie outside the region
    first = _mm512_set4_epi32(static_cast<int>(0x80078006u), static_cast<int>(0x80058004u),
                              static_cast<int>(0x80038002u), static_cast<int>(0x80018000u));
    second = _mm512_add_epi8(first, _mm512_set1_epi16(8));
  }

  // Field i of each word, `kBits` wide, less its offset.
  template <int kBits>
  static __m512i field(__m512i v, int i) {
    constexpr int kMask = (1 << kBits) - 1;
    const __m512i x = _mm512_and_si512(_mm512_srl_epi32(v, _mm_cvtsi32_si128(i * kBits)),
                                       _mm512_set1_epi32(kMask));
    return _mm512_castps_si512(
        _mm512_cvtepi32_ps(_mm512_sub_epi32(x, _mm512_set1_epi32(1 << (kBits - 1)))));
  }
  template <QuantCode kCode, bool kPanels>
  [[gnu::always_inline]] inline void expand(__m512i v, __m512i* words) const {
    if constexpr (kCode == QuantCode::kE4m3) {
      const __m512i low = decode_e4m3(_mm512_shuffle_epi8(v, first));
      const __m512i high = decode_e4m3(_mm512_shuffle_epi8(v, second));
      words[0] = high_floats(low);
      words[1] = low_floats(low);
      words[2] = high_floats(high);
      words[3] = low_floats(high);
    } else {
      constexpr int kBits = kCode == QuantCode::kInt4 ? 4 : 8;
      CACHALOT_UNROLL
      for (int i = 0; i < kWords<kCode>; ++i) {
        const int column = i ^ 1;
        const bool halves = kPanels && kCode == QuantCode::kInt4;
        words[i] = field<kBits>(v, halves ? column % 2 * 4 + column / 2 : column);
      }
    }
  }
  static __m512 start(const QuantPanel&, std::ptrdiff_t) { return _mm512_setzero_ps(); }
  static __m512 add(__m512 sum, const std::uint32_t* a, __m512i b) {
    return _mm512_fmadd_ps(_mm512_set1_ps(*reinterpret_cast<const float*>(a)),
                           _mm512_castsi512_ps(b), sum);
  }
  static __m512 join(__m512 part, const QuantPanel&, std::ptrdiff_t, __m512 scale, __m512 sum) {
    return _mm512_fmadd_ps(part, scale, sum);
  }
};

#include "kernels/cpu/quant_avx512.inc"
#include "kernels/cpu/quant_direct.inc"
#include "kernels/cpu/quant_tiles.inc"

void pack_floats(const QuantPackJob& job) { quant_pack_bf16(job, Steps::kWide); }

constexpr QuantIsa kFloats = {.tile_words = Floats::kTileWords,
                              .rows = kQuantRows,
                              .width = kQuantLanes * kQuantVecs,
                              .fresh_rows = kQuantFreshRows,
                              .flush_denormals = false,
                              .integers = false,
                              .pack = pack_floats,
                              .unpack = unpack<Floats>,
                              .tile = tile<Floats>,
                              .direct = direct<Floats>,
                              .store = gemm_store};

}  // namespace

void quant_pack_bf16(const QuantPackJob& job, Steps steps) {
  const int k = job.x.cols;
  const auto bytes = static_cast<std::ptrdiff_t>(size_of(job.x.dtype));
  PackJob pack;
  pack.src = static_cast<const char*>(job.x.data) + job.row * job.x.stride * bytes;
  pack.dtype = job.x.dtype;
  pack.line_stride = job.x.stride;
  pack.k_stride = 1;
  pack.lines = job.out.rows;
  pack.width = job.out.rows;
  pack.k_end = k;
  pack.steps = steps;
  pack.dst = job.out.words;
  gemm_pack(pack);
  std::fill(job.out.words + steps_of(steps, k) * job.out.rows,
            job.out.words + steps_of(steps, std::int64_t{job.tiles} * kQuantTile) * job.out.rows,
            0u);
}

void quant_linear_floats(const Context& ctx, std::span<const QuantLinear> problems, bool flush) {
  QuantIsa isa = kFloats;
  isa.flush_denormals = flush;
  run_quant_linear(isa, ctx, problems);
}

void quant_linear(const Context& ctx, QuantActivations activations,
                  std::span<const QuantLinear> problems) {
  if (activations == QuantActivations::kInt8) {
    quant_linear_ref(ctx, activations, problems);
  } else {
    quant_linear_floats(ctx, problems, false);
  }
}

void pack_quant(const Context& ctx, std::span<const PackQuant> jobs) {
  run_pack_quant(ctx, jobs, pack_codes);
}

}  // namespace cachalot::cpu::avx512
CACHALOT_END_TARGET
#endif
