#include "perf/peaks.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdlib>
#include <new>

#include "kernels/cpu/levels.h"
#include "kernels/cpu/simd.h"

namespace cachalot::perf {

namespace {

constexpr std::size_t kReadBytes = std::size_t{512} << 20;

template <class F>
double seconds(F&& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

#ifdef CACHALOT_X86
// 1.5 ms: long enough that starting the threads does not count, short enough to be repeated often.
// Small chunks, so that the threads end together.
constexpr int kChunksPerThread = 100;
constexpr int kTurns = 7000;  // of 12 instructions: about 16 us

bool has(cpu::Level level) {
  for (const cpu::Level here : cpu::supported_levels()) {
    if (here == level) return true;
  }
  return false;
}

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
void int8_512() {
  for (int i = 0; i < kTurns; ++i) {
    __asm__ volatile(CACHALOT_TWELVE("vpdpbusd", "zmm") : : : CACHALOT_CLOBBERS);
  }
}
#undef CACHALOT_TWELVE
#undef CACHALOT_CLOBBERS

double rate(const Context& ctx, void (*loop)(), double flops_per_instruction) {
  const std::int64_t chunks = std::int64_t{kChunksPerThread} * ctx.threads();
  ctx.for_each(ctx.threads(), 1, [](std::int64_t) { zeros(); });  // they are awake
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

double int8_gops(const Context& ctx) {
#ifdef CACHALOT_X86
  if (has(cpu::Level::kAvx512) && __builtin_cpu_supports("avx512vnni") != 0) {
    return rate(ctx, int8_512, 128);
  }
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

namespace {

using Vec = float __attribute__((vector_size(16)));

// Floats [begin, end) of each array, 64 bytes at a time: their sum goes to the written ones.
template <int kReads, int kWrites>
void stream(float* const* in, float* const* out, std::size_t begin, std::size_t end) {
  for (std::size_t i = begin; i < end; i += 16) {
    for (std::size_t v = 0; v < 16; v += 4) {
      Vec sum = *reinterpret_cast<const Vec*>(in[0] + i + v);
      for (int r = 1; r < kReads; ++r) sum += *reinterpret_cast<const Vec*>(in[r] + i + v);
      for (int w = 0; w < kWrites; ++w) *reinterpret_cast<Vec*>(out[w] + i + v) = sum;
      if (kWrites == 0) __asm__ volatile("" : : "x"(sum));
    }
  }
}

using StreamFn = void (*)(float* const*, float* const*, std::size_t, std::size_t);

StreamFn stream_of(int reads, int writes) {
  static constexpr StreamFn kFns[8][4] = {
      {stream<1, 0>, stream<1, 1>, stream<1, 2>, stream<1, 3>},
      {stream<2, 0>, stream<2, 1>, stream<2, 2>, stream<2, 3>},
      {stream<3, 0>, stream<3, 1>, stream<3, 2>, stream<3, 3>},
      {stream<4, 0>, stream<4, 1>, stream<4, 2>, stream<4, 3>},
      {stream<5, 0>, stream<5, 1>, stream<5, 2>, stream<5, 3>},
      {stream<6, 0>, stream<6, 1>, stream<6, 2>, stream<6, 3>},
      {stream<7, 0>, stream<7, 1>, stream<7, 2>, stream<7, 3>},
      {stream<8, 0>, stream<8, 1>, stream<8, 2>, stream<8, 3>},
  };
  return kFns[reads - 1][writes];
}

}  // namespace

StreamProbe::StreamProbe(int reads, int writes, bool in_place, std::size_t bytes)
    : reads_(reads), writes_(writes), in_place_(in_place), floats_(bytes / 64 * 16) {
  const int arrays = in_place ? reads : reads + writes;
  // 1088 bytes more each, so that the arrays do not lie a power of two apart.
  const std::size_t pitch = floats_ + 272;
  const std::size_t all = (pitch * static_cast<std::size_t>(arrays) * sizeof(float) + 4095) / 4096;
  data_.reset(static_cast<float*>(std::aligned_alloc(4096, all * 4096)));
  if (!data_) throw std::bad_alloc();
  std::fill_n(data_.get(), pitch * static_cast<std::size_t>(arrays), 0.0f);
  for (int i = 0; i < arrays; ++i) {
    arrays_.push_back(data_.get() + pitch * static_cast<std::size_t>(i));
  }
}

double StreamProbe::gbps(const Context& ctx) const {
  constexpr std::size_t kChunk = 4096;  // floats of each array per task, as the ops have it
  const StreamFn run = stream_of(reads_, writes_);
  float* const* in = arrays_.data();
  float* const* out = in_place_ ? in : in + reads_;
  const double bytes = static_cast<double>(floats_) * sizeof(float) * (reads_ + writes_);
  const auto pass = [&] {
    ctx.for_range(static_cast<std::int64_t>((floats_ + kChunk - 1) / kChunk), 4,
                  [&](std::int64_t begin, std::int64_t end) {
                    run(in, out, static_cast<std::size_t>(begin) * kChunk,
                        std::min(floats_, static_cast<std::size_t>(end) * kChunk));
                  });
  };
  // As the op finds its operands: in whatever cache the pass before left them.
  pass();
  const int times = 2 + static_cast<int>(5e7 / (1 + bytes));
  const double time = seconds([&] {
    for (int t = 0; t < times; ++t) pass();
  });
  return bytes * times / time * 1e-9;
}

}  // namespace cachalot::perf
