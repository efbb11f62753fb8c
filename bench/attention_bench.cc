// Attention: GFLOP/s forward and backward of every level, beside the level's own peak of fused
// multiply-adds in registers, measured in the same run; and the absorbed form over the cache.
//
// FLOPs counted: causal, so half of the T x T block. Forward 2 products, backward 5 (the scores
// again, dP, dV, dQ, dK): 2 (D + V) and 2 (3 D + 2 V) per pair of query and key, D = N + R.
#include <benchmark/benchmark.h>

#include <chrono>
#include <cmath>
#include <string>

#include "kernels/attention.h"
#include "kernels/cpu/levels.h"
#include "kernels/cpu/simd.h"
#include "kernels/latent_attention.h"
#include "testing/random_mat.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX512BF16)
namespace {
// 24 independent chains, as in the kernels' register tile.
void run_pairs(std::int64_t rounds) {
  __m512 acc[24];
  for (auto& x : acc) x = _mm512_setzero_ps();
  const auto one = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3f803f80));
  for (std::int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 24
    for (int j = 0; j < 24; ++j) {
      acc[j] = _mm512_dpbf16_ps(acc[j], one, one);
      asm volatile("" : "+v"(acc[j]));
    }
  }
}
}  // namespace
CACHALOT_END_TARGET
CACHALOT_BEGIN_TARGET(CACHALOT_AVX512)
namespace {
void run_floats_512(std::int64_t rounds) {
  __m512 acc[24];
  for (auto& x : acc) x = _mm512_setzero_ps();
  const __m512 one = _mm512_set1_ps(1);
  for (std::int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 24
    for (int j = 0; j < 24; ++j) {
      acc[j] = _mm512_fmadd_ps(one, one, acc[j]);
      asm volatile("" : "+v"(acc[j]));
    }
  }
}
}  // namespace
CACHALOT_END_TARGET
CACHALOT_BEGIN_TARGET(CACHALOT_AVX2)
namespace {
void run_floats_256(std::int64_t rounds) {
  __m256 acc[12];
  for (auto& x : acc) x = _mm256_setzero_ps();
  const __m256 one = _mm256_set1_ps(1);
  for (std::int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < 12; ++j) {
      acc[j] = _mm256_fmadd_ps(one, one, acc[j]);
      asm volatile("" : "+x"(acc[j]));
    }
  }
}
}  // namespace
CACHALOT_END_TARGET
#endif

namespace cachalot {
namespace {

// GFLOP/s of one thread; 0 where unknown. Best of five: a ceiling.
double peak([[maybe_unused]] const std::string& level, [[maybe_unused]] Precision precision) {
#ifdef CACHALOT_X86
  constexpr std::int64_t kRounds = 200'000;
  void (*run)(std::int64_t) = nullptr;
  double flops = 0;
  if (level == "avx512bf16" && precision == Precision::kBF16) {
    run = run_pairs, flops = 24 * 64;
  } else if (level == "avx512" || level == "avx512bf16") {
    run = run_floats_512, flops = 24 * 32;
  } else if (level == "avx2") {
    run = run_floats_256, flops = 12 * 16;
  } else {
    return 0;
  }
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run(kRounds);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, flops * kRounds / seconds.count() * 1e-9);
  }
  return best;
#else
  return 0;
#endif
}

struct Buffers {
  AttentionDims dims;
  AttentionSpan span;
  Mat<float> q, kv, k_rope, out, lse, dout, dq, dkv, dk_rope;
  Buffers(int rows, AttentionDims d)
      : dims(d),
        span{0, rows, 0, rows},
        q(testing::random_mat<float>(rows, d.heads * (d.nope + d.rope), 1)),
        kv(testing::random_mat<float>(rows, d.heads * (d.nope + d.value), 2)),
        k_rope(testing::random_mat<float>(rows, d.rope, 3)),
        out(rows, d.heads * d.value),
        lse(rows, d.heads),
        dout(testing::random_mat<float>(rows, d.heads * d.value, 4)),
        dq(rows, q.cols()),
        dkv(rows, kv.cols()),
        dk_rope(rows, d.rope) {}
  float scale() const { return 1 / std::sqrt(static_cast<float>(dims.nope + dims.rope)); }
  Attention<float> forward(Precision p) {
    return {q.cview(), kv.cview(), k_rope.cview(), {&span, 1}, dims,
            scale(),   p,          out.view(),     lse.view()};
  }
  AttentionBackward<float> backward(Precision p) {
    return {q.cview(),   kv.cview(),  k_rope.cview(), {&span, 1}, dims,       scale(),       p,
            out.cview(), lse.cview(), dout.cview(),   dq.view(),  dkv.view(), dk_rope.view()};
  }
};

void report(benchmark::State& state, const KernelTable& table, Precision precision, double flops,
            int threads) {
  const double ceiling = peak(table.name, precision) * threads;
  state.counters["GFLOP/s"] =
      benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["peak"] = ceiling;
}

void attention_case(benchmark::State& state, const KernelTable& table, Precision precision,
                    int rows, AttentionDims dims, int threads, bool backward) {
  ThreadPool pool(threads);
  const Context ctx{&table, &pool};
  Buffers b(rows, dims);
  attention(ctx, b.forward(precision));
  for (auto _ : state) {
    if (backward) {
      attention_backward(ctx, b.backward(precision));
    } else {
      attention(ctx, b.forward(precision));
    }
  }
  const double width = dims.nope + dims.rope, value = dims.value;
  const double per_pair = backward ? 2 * (3 * width + 2 * value) : 2 * (width + value);
  report(state, table, precision, per_pair * dims.heads * rows * (rows + 1.0) / 2, threads);
}

void latent_case(benchmark::State& state, const KernelTable& table, Precision precision, bool bf16,
                 int queries, int rows, int heads, int threads) {
  constexpr int kLatent = 512, kRope = 64;
  ThreadPool pool(threads);
  const Context ctx{&table, &pool};
  const auto q = testing::random_mat<float>(queries, heads * (kLatent + kRope), 1);
  const auto cache = testing::random_mat<float>(rows, kLatent + kRope, 2);
  Mat<Bf16> small(rows, kLatent + kRope);
  for (std::size_t i = 0; i < cache.size(); ++i) small.data()[i] = to_bf16(cache.data()[i]);
  Mat<float> out(queries, heads * kLatent);
  const LatentAttention problem{q.cview(),  bf16 ? MatRef(small.cview()) : MatRef(cache.cview()),
                                heads,      kLatent,
                                kRope,      0.07f,
                                out.view(), precision};
  for (auto _ : state) latent_attention(ctx, {&problem, 1});
  report(state, table, precision, 2.0 * (2 * kLatent + kRope) * queries * heads * rows, threads);
  const double bytes = static_cast<double>(rows) * (kLatent + kRope) * (bf16 ? 2 : 4);
  state.counters["GB/s"] =
      benchmark::Counter(bytes * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void add_level(const KernelTable& table) {
  for (const Precision precision : {Precision::kF32, Precision::kBF16}) {
    const std::string tail = cat("/", table.name, precision == Precision::kBF16 ? "/bf16" : "/f32");
    for (const int rows : {256, 2048}) {
      for (const bool backward : {false, true}) {
        benchmark::RegisterBenchmark(
            cat(backward ? "backward/T=" : "forward/T=", rows, tail).c_str(),
            [=, &table](benchmark::State& s) {
              attention_case(s, table, precision, rows, {8, 64, 32, 64}, 1, backward);
            })
            ->UseRealTime();
      }
    }
    for (const int heads : {4, 16, 128}) {
      benchmark::RegisterBenchmark(cat("latent/T=1/S=8192/H=", heads, tail).c_str(),
                                   [=, &table](benchmark::State& s) {
                                     latent_case(s, table, precision, true, 1, 8192, heads, 1);
                                   })
          ->UseRealTime();
    }
  }
}

}  // namespace
}  // namespace cachalot

int main(int argc, char** argv) {
  for (const auto* table : cachalot::cpu::tables_on_this_host()) {
    if (std::string_view(table->name) != "ref") cachalot::add_level(*table);
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
