#include "perf/peaks.h"

#include <atomic>
#include <bit>
#include <chrono>
#include <cstdlib>
#include <new>

#include "kernels/cpu/levels.h"
#include "kernels/cpu/simd.h"

namespace cachalot::perf {

namespace {

// Long enough that starting the threads does not count, short enough to be repeated often.
constexpr int kChunksPerThread = 10;
constexpr int kTurns = 30000;  // of 12 instructions: about 70 us
constexpr std::size_t kReadBytes = std::size_t{512} << 20;

bool has(cpu::Level level) {
  for (const cpu::Level here : cpu::supported_levels()) {
    if (here == level) return true;
  }
  return false;
}

template <class F>
double seconds(F&& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

#ifdef CACHALOT_X86
// 12 independent sums hide a latency of 4 cycles on two units (and of 6 on one).
#define CACHALOT_TWELVE(op, r)                                                                    \
  op " %%" r "0, %%" r "1, %%" r "2\n" op " %%" r "0, %%" r "1, %%" r "3\n" op " %%" r "0, %%" r  \
     "1, %%" r "4\n" op " %%" r "0, %%" r "1, %%" r "5\n" op " %%" r "0, %%" r "1, %%" r "6\n" op \
     " %%" r "0, %%" r "1, %%" r "7\n" op " %%" r "0, %%" r "1, %%" r "8\n" op " %%" r "0, %%" r  \
     "1, %%" r "9\n" op " %%" r "0, %%" r "1, %%" r "10\n" op " %%" r "0, %%" r "1, %%" r         \
     "11\n" op " %%" r "0, %%" r "1, %%" r "12\n" op " %%" r "0, %%" r "1, %%" r "13\n"
#define CACHALOT_CLOBBERS                                                                  \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
      "xmm11", "xmm12", "xmm13"

void zeros() { __asm__ volatile("vzeroall" : : : CACHALOT_CLOBBERS); }
void fma_512() {
  for (int i = 0; i < kTurns; ++i) {
    __asm__ volatile(CACHALOT_TWELVE("vfmadd231ps", "zmm") : : : CACHALOT_CLOBBERS);
  }
}
void fma_256() {
  for (int i = 0; i < kTurns; ++i) {
    __asm__ volatile(CACHALOT_TWELVE("vfmadd231ps", "ymm") : : : CACHALOT_CLOBBERS);
  }
}
void bf16_512() {
  for (int i = 0; i < kTurns; ++i) {
    __asm__ volatile(CACHALOT_TWELVE("vdpbf16ps", "zmm") : : : CACHALOT_CLOBBERS);
  }
}
#undef CACHALOT_TWELVE
#undef CACHALOT_CLOBBERS

double rate(const Context& ctx, void (*loop)(), double flops_per_instruction) {
  const std::int64_t chunks = std::int64_t{kChunksPerThread} * ctx.threads();
  const double time = seconds([&] {
    ctx.for_each(chunks, 1, [&](std::int64_t) {
      zeros();
      loop();
    });
  });
  return static_cast<double>(chunks) * kTurns * 12 * flops_per_instruction / time * 1e-9;
}
#endif

}  // namespace

double fma_gflops(const Context& ctx) {
#ifdef CACHALOT_X86
  if (has(cpu::Level::kAvx512)) return rate(ctx, fma_512, 32);
  if (has(cpu::Level::kAvx2)) return rate(ctx, fma_256, 16);
#endif
  (void)ctx;
  return 0;
}

double bf16_gflops(const Context& ctx) {
#ifdef CACHALOT_X86
  if (has(cpu::Level::kAvx512Bf16)) return rate(ctx, bf16_512, 64);
#endif
  (void)ctx;
  return 0;
}

ReadProbe::ReadProbe() : data_(static_cast<float*>(std::aligned_alloc(4096, kReadBytes))) {
  if (data_ == nullptr) throw std::bad_alloc();
  for (std::size_t i = 0; i < kReadBytes / sizeof(float); ++i) data_[i] = 1.0f;
}
ReadProbe::~ReadProbe() { std::free(data_); }

// One word of each cache line is enough to fetch it. Eight streams at a time, as a product over
// rows has them: a single one waits at every page for the prefetcher to find it again.
double ReadProbe::gbps(const Context& ctx) const {
  constexpr std::size_t kChunk = std::size_t{1} << 20;
  constexpr std::size_t kStreams = 8;
  constexpr std::size_t kLine = 64 / sizeof(float);
  constexpr std::size_t kStream = kChunk / sizeof(float) / kStreams;
  std::atomic<std::uint32_t> sink{0};
  const double time = seconds([&] {
    ctx.for_each(static_cast<std::int64_t>(kReadBytes / kChunk), 1, [&](std::int64_t i) {
      const float* p = data_ + static_cast<std::size_t>(i) * (kChunk / sizeof(float));
      std::uint32_t sum[kStreams] = {};
      for (std::size_t j = 0; j < kStream; j += kLine) {
        for (std::size_t l = 0; l < kStreams; ++l) {
          __builtin_prefetch(p + l * kStream + j + 8 * kLine);
          sum[l] ^= std::bit_cast<std::uint32_t>(p[l * kStream + j]);
        }
      }
      for (const std::uint32_t s : sum) sink.fetch_xor(s, std::memory_order_relaxed);
    });
  });
  return static_cast<double>(kReadBytes) / time * 1e-9;
}

}  // namespace cachalot::perf
