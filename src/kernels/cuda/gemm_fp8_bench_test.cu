// Times of gemm_fp8 beside cublasLt's product of bf16, where that library is.
#include <cublasLt.h>
#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <functional>

#include "kernels/cuda/codes_k_major.cuh"
#include "kernels/cuda/gemm_fp8_case_test.h"
#include "kernels/cuda/ops.h"

namespace cachalot::cuda::testing {

namespace {

// C [M, N] bf16 = A [M, K] B [N, K]^T by cublasLt; e4m3 codes without scales or bf16.
class Library {
 public:
  Library() {
    for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"}) {
      if (library_ = dlopen(name, RTLD_NOW); library_ != nullptr) break;
    }
    if (library_ == nullptr) return;
    find(create_, "cublasLtCreate");
    find(matmul_, "cublasLtMatmul");
    find(desc_, "cublasLtMatmulDescCreate");
    find(set_, "cublasLtMatmulDescSetAttribute");
    find(layout_, "cublasLtMatrixLayoutCreate");
    find(preference_, "cublasLtMatmulPreferenceCreate");
    find(prefer_, "cublasLtMatmulPreferenceSetAttribute");
    find(heuristic_, "cublasLtMatmulAlgoGetHeuristic");
    if (found_ && create_(&handle_) != CUBLAS_STATUS_SUCCESS) handle_ = nullptr;
  }
  bool here() const { return handle_ != nullptr; }

  std::function<bool(const void*, const void*, void*)> product(int m, int n, int k, bool codes,
                                                               void* workspace, std::size_t bytes,
                                                               cudaStream_t stream) {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t la, lb, lc;
    cublasLtMatmulPreference_t preference;
    desc_(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    const cublasOperation_t yes = CUBLAS_OP_T;
    set_(desc, CUBLASLT_MATMUL_DESC_TRANSA, &yes, sizeof(yes));
    if (codes) {
      const std::int8_t fast = 1;
      set_(desc, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast, sizeof(fast));
    }
    const auto type = codes ? CUDA_R_8F_E4M3 : CUDA_R_16BF;
    layout_(&lb, type, k, n, k);
    layout_(&la, type, k, m, k);
    layout_(&lc, CUDA_R_16BF, n, m, n);
    preference_(&preference);
    prefer_(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof(bytes));
    cublasLtMatmulHeuristicResult_t result;
    int count = 0;
    heuristic_(handle_, desc, lb, la, lc, lc, preference, 1, &result, &count);
    return [=, this](const void* a, const void* b, void* c) {
      const float one = 1, zero = 0;
      return count > 0 && matmul_(handle_, desc, &one, b, lb, a, la, &zero, c, lc, c, lc,
                                  &result.algo, workspace, bytes, stream) == CUBLAS_STATUS_SUCCESS;
    };
  }

 private:
  template <class F>
  void find(F*& f, const char* name) {
    f = reinterpret_cast<F*>(dlsym(library_, name));
    found_ = found_ && f != nullptr;
  }
  void* library_ = nullptr;
  bool found_ = true;
  cublasLtHandle_t handle_ = nullptr;
  decltype(cublasLtCreate)* create_ = nullptr;
  decltype(cublasLtMatmul)* matmul_ = nullptr;
  decltype(cublasLtMatmulDescCreate)* desc_ = nullptr;
  decltype(cublasLtMatmulDescSetAttribute)* set_ = nullptr;
  decltype(cublasLtMatrixLayoutCreate)* layout_ = nullptr;
  decltype(cublasLtMatmulPreferenceCreate)* preference_ = nullptr;
  decltype(cublasLtMatmulPreferenceSetAttribute)* prefer_ = nullptr;
  decltype(cublasLtMatmulAlgoGetHeuristic)* heuristic_ = nullptr;
};

class CudaGemmFp8Bench : public Fp8ProductTest {
 protected:
  // Microseconds of one call: `calls` of them in a graph, the median of its replays.
  double time(int calls, const std::function<void(int)>& call) {
    call(0);  // scratch, attributes
    check(cudaStreamSynchronize(stream()), "warm-up");
    cudaGraph_t graph;
    cudaGraphExec_t run;
    check(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeRelaxed), "capture");
    for (int i = 0; i < calls; ++i) call(i);
    check(cudaStreamEndCapture(stream(), &graph), "capture");
    check(cudaGraphInstantiate(&run, graph, 0), "instantiate");
    const double us = time_events([&] { check(cudaGraphLaunch(run, stream()), "replay"); }, 7);
    cudaGraphExecDestroy(run);
    cudaGraphDestroy(graph);
    return us / calls;
  }
  // Each call alone, after the caches were swept and the chip has rested: at full clock.
  double time_rested(const std::function<void(int)>& call) {
    constexpr std::size_t kSweep = std::size_t{192} << 20;
    if (sweep_.size() == 0) sweep_ = room<std::uint8_t>(192, 1 << 20);
    cudaEvent_t e[10][2];
    for (auto& pair : e) {
      for (auto& x : pair) cudaEventCreate(&x);
    }
    call(0);
    check(cudaStreamSynchronize(stream()), "warm-up");
    usleep(60000);
    for (int i = 0; i < 10; ++i) {
      cudaMemsetAsync(sweep_.data(), i, kSweep, stream());
      cudaMemsetAsync(sweep_.data(), i, kSweep, stream());
      cudaEventRecord(e[i][0], stream());
      call(i);
      cudaEventRecord(e[i][1], stream());
    }
    check(cudaStreamSynchronize(stream()), "timing");
    std::vector<float> ms(10);
    for (int i = 0; i < 10; ++i)
      cudaEventElapsedTime(&ms[static_cast<std::size_t>(i)], e[i][0], e[i][1]);
    for (auto& pair : e) {
      for (auto& x : pair) cudaEventDestroy(x);
    }
    std::sort(ms.begin(), ms.end());
    return 1e3 * ms[5];
  }
  // In a row for 60 ms: at the clock that the power allows.
  double time_sustained(double guess_us, const std::function<void(int)>& call) {
    const int calls = std::max(8, static_cast<int>(30e3 / guess_us));
    cudaEvent_t from, to;
    cudaEventCreate(&from);
    cudaEventCreate(&to);
    for (int i = 0; i < calls; ++i) call(i);
    cudaEventRecord(from, stream());
    for (int i = 0; i < calls; ++i) call(i);
    cudaEventRecord(to, stream());
    check(cudaStreamSynchronize(stream()), "timing");
    float ms;
    cudaEventElapsedTime(&ms, from, to);
    cudaEventDestroy(from);
    cudaEventDestroy(to);
    return 1e3 * ms / calls;
  }
  double time_events(const std::function<void()>& call, int repeats) {
    std::vector<cudaEvent_t> events(static_cast<std::size_t>(repeats) + 1);
    for (auto& e : events) cudaEventCreate(&e);
    for (int i = 0; i < 2; ++i) call();
    cudaEventRecord(events[0], stream());
    for (int i = 0; i < repeats; ++i) {
      call();
      cudaEventRecord(events[static_cast<std::size_t>(i) + 1], stream());
    }
    check(cudaStreamSynchronize(stream()), "timing");
    std::vector<float> ms(static_cast<std::size_t>(repeats));
    for (std::size_t i = 0; i < ms.size(); ++i) {
      cudaEventElapsedTime(&ms[i], events[i], events[i + 1]);
    }
    for (auto& e : events) cudaEventDestroy(e);
    std::sort(ms.begin(), ms.end());
    return 1e3 * ms[ms.size() / 2];
  }
  // As many copies of the weights as no cache holds.
  std::vector<Operand> weights(int n, int k, int m) {
    const double bytes = static_cast<double>(n) * k;
    const int copies = m >= 1024 ? 2 : std::max(2, static_cast<int>(250e6 / bytes) + 1);
    std::vector<Operand> all;
    for (int i = 0; i < copies; ++i) {
      all.push_back(operand(n, k, ScaleTile::kBlock, 100 + static_cast<unsigned>(i)));
    }
    return all;
  }
  static void print(const std::string& what, double us, double flops, double bytes) {
    std::printf("%-64s %9.1f us %7.0f TFLOPS %6.0f GB/s\n", what.c_str(), us, flops / us / 1e6,
                bytes / us / 1e3);
    std::fflush(stdout);
  }
  // Random rows, the same 64 again and again.
  Mat<Bf16> repeated(int rows, int cols) {
    const Mat<Bf16> some = up(to_bf16(random_mat(64, cols, 6)));
    Mat<Bf16> all = room<Bf16>(rows, cols);
    for (int r = 0; r < rows; r += 64) {
      device_->copy(all.row(r), some.data(), some.size() * sizeof(Bf16));
    }
    return all;
  }
  Library library_;
  Mat<std::uint8_t> sweep_;
};

constexpr int kShapes[][2] = {{2112, 7168},  {24576, 1536}, {32768, 512},
                              {7168, 16384}, {4096, 7168},  {7168, 2048}};

TEST_F(CudaGemmFp8Bench, Dense) {
  Mat<std::uint8_t> workspace = room<std::uint8_t>(64, 1 << 20);
  for (const int m : {4096, 128, 64}) {
    for (const auto& shape : kShapes) {
      const int n = shape[0], k = shape[1];
      const Operand a = operand(m, k, ScaleTile::kRow, 1);
      const std::vector<Operand> b = weights(n, k, m);
      Mat<float> c = room<float>(m, n);
      Mat<Bf16> half = room<Bf16>(m, n);
      const double flops = 2.0 * m * n * k;
      const double bytes = 1.0 * m * k + 1.0 * n * k + 2.0 * m * n;
      const int calls = std::clamp(static_cast<int>(6e14 * 0.003 / flops), 4, 40);
      const auto measure = [&](const std::string& name, double moved,
                               const std::function<void(int)>& call) {
        if (m < 4096) {
          print(name, time(calls, call), flops, moved);
          return;
        }
        const double rested = time_rested(call);
        const double sustained = time_sustained(rested, call);
        std::printf("%-58s rested %7.1f us %5.0f TFLOPS, sustained %7.1f us %5.0f TFLOPS\n",
                    name.c_str(), rested, flops / rested / 1e6, sustained, flops / sustained / 1e6);
      };
      const auto run = [&](const std::string& name, const Fp8Choice& choice, bool to_half) {
        measure(cat("fp8 M ", m, " N ", n, " K ", k, to_half ? " bf16 " : " f32 ", name),
                bytes + (to_half ? 0 : 2.0 * m * n), [&](int i) {
                  Fp8Gemm g{a.view(), b[static_cast<std::size_t>(i) % b.size()].view(), c.view(),
                            false, true};
                  if (to_half) g.c_bf16 = half.view();
                  gemm_fp8(ctx, {&g, 1}, choice);
                });
      };
      const auto kernels = fp8_kernels();
      for (int i = 0; i < static_cast<int>(kernels.size()); ++i) {
        if (kernels[i].column_scales || m == 4096) continue;
        const std::string_view name = kernels[i].name;
        if (m == 64 && name.starts_with("128")) continue;
        run(cat(name, " whole"), {.kernel = i, .split_cost = 1 << 20}, true);
      }
      if (m == 4096) {
        run("128x128 whole", {.kernel = 3, .split_cost = 1 << 20}, true);
        run("128x128 cut", {.kernel = 3}, true);
      }
      const Fp8Gemm g{a.view(), b[0].view(), c.view(), false, true};
      const char* chosen = fp8_kernel_for(ctx, {&g, 1}).name;
      run(cat("chosen: ", chosen), {}, true);
      run(cat("chosen: ", chosen), {}, false);
      if (library_.here()) {
        for (const bool codes : {false, true}) {
          const Mat<Bf16> left = repeated(codes ? 64 : m, k), wide = repeated(codes ? 64 : n, k);
          const auto product =
              library_.product(m, n, k, codes, workspace.data(), workspace.size(), stream());
          bool good = true;
          measure(cat("library M ", m, " N ", n, " K ", k, codes ? " e4m3, no scales" : " bf16"),
                  codes ? bytes : 2 * bytes - 2.0 * m * n, [&](int i) {
                    const auto& codes_b = b[static_cast<std::size_t>(i) % b.size()].codes;
                    good = product(codes ? static_cast<const void*>(a.codes.data()) : left.data(),
                                   codes ? static_cast<const void*>(codes_b.data()) : wide.data(),
                                   half.data()) &&
                           good;
                  });
          if (!good) std::printf("the library failed\n");
        }
      }
    }
  }
}

#ifdef CACHALOT_FP8_PROBE
TEST_F(CudaGemmFp8Bench, ProbeMany) {
  Mat<std::uint8_t> workspace = room<std::uint8_t>(64, 1 << 20);
  const int m = 4096;
  const int order[] = {4, 3, 0, 5, 1, 2};
  for (const int at : order) {
    const int n = kShapes[at][0], k = kShapes[at][1];
    const Operand a = operand(m, k, ScaleTile::kRow, 1);
    const std::vector<Operand> b = weights(n, k, m);
    Mat<float> c = room<float>(m, n);
    Mat<Bf16> half = room<Bf16>(m, n);
    const double flops = 2.0 * m * n * k;
    std::printf("N %d K %d\n", n, k);
    const auto measure = [&](const std::string& name, bool probe,
                             const std::function<void(int)>& call) {
      const double rested = time_rested(call);
      long long p[2]{}, q[2]{};
      if (probe) fp8_probe(p);
      const double sustained = time_sustained(rested, call);
      if (probe) fp8_probe(q);
      std::printf("  %-28s %7.1f us %5.0f TF | %7.1f us %5.0f TF", name.c_str(), rested,
                  flops / rested / 1e6, sustained, flops / sustained / 1e6);
      if (probe) {
        std::printf(" | %lld cyc %4.0f MHz | %lld cyc %4.0f MHz", p[0],
                    1e3 * static_cast<double>(p[0]) / static_cast<double>(p[1]), q[0],
                    1e3 * static_cast<double>(q[0]) / static_cast<double>(q[1]));
      }
      std::printf("\n");
      std::fflush(stdout);
    };
    const auto run = [&](const std::string& name, const Fp8Choice& choice, bool to_half) {
      measure(name, true, [&](int i) {
        Fp8Gemm g{a.view(), b[static_cast<std::size_t>(i) % b.size()].view(), c.view(), false,
                  true};
        if (to_half) g.c_bf16 = half.view();
        gemm_fp8(ctx, {&g, 1}, choice);
      });
    };
    const auto kernels = fp8_kernels();
    for (int i = 0; i < static_cast<int>(kernels.size()); ++i) {
      const std::string_view name = kernels[i].name;
      if (kernels[i].column_scales || name.starts_with("64")) continue;
      if (name[0] == '!' && at != 4) continue;
      run(cat(name, ""), {.kernel = i, .split_cost = 1 << 20}, true);
      if (at == 0 && (name == "128x128" || name == "256x128" || name == "128x192" ||
                      name == "256x128 across" || name == "192x128 across")) {
        run(cat(name, " cut"), {.kernel = i}, true);
      }
      if ((at == 3 || at == 4) && name == "256x128 across") {
        for (const int group : {4, 8}) {
          run(cat(name, " group ", group), {.kernel = i, .group = group, .split_cost = 1 << 20},
              true);
        }
      }
      if (at != 4 && (name == "128x128" || name == "256x128 across")) {
        run(cat(name, " float"), {.kernel = i, .split_cost = 1 << 20}, false);
      }
    }
    if (library_.here()) {
      for (const bool codes : {false, true}) {
        const Mat<Bf16> left = repeated(codes ? 64 : m, k), wide = repeated(codes ? 64 : n, k);
        const auto product =
            library_.product(m, n, k, codes, workspace.data(), workspace.size(), stream());
        measure(codes ? "library e4m3" : "library bf16", false, [&](int i) {
          const auto& codes_b = b[static_cast<std::size_t>(i) % b.size()].codes;
          product(codes ? static_cast<const void*>(a.codes.data()) : left.data(),
                  codes ? static_cast<const void*>(codes_b.data()) : wide.data(), half.data());
        });
      }
    }
  }
}

TEST_F(CudaGemmFp8Bench, ProbeFew) {
  Mat<std::uint8_t> workspace = room<std::uint8_t>(64, 1 << 20);
  for (const int m : {64, 128}) {
    for (const auto& shape : kShapes) {
      const int n = shape[0], k = shape[1];
      const Operand a = operand(m, k, ScaleTile::kRow, 1);
      const std::vector<Operand> b = weights(n, k, m);
      Mat<float> c = room<float>(m, n);
      Mat<Bf16> half = room<Bf16>(m, n);
      const double bytes = 1.0 * m * k + 1.0 * n * k + 2.0 * m * n;
      std::printf("M %d N %d K %d:", m, n, k);
      const auto kernels = fp8_kernels();
      for (int i = 0; i < static_cast<int>(kernels.size()); ++i) {
        const std::string_view name = kernels[i].name;
        if (kernels[i].column_scales || name[0] == '!') continue;
        if (!name.starts_with("64") && (m == 64 || name != "128x128")) continue;
        for (const int cost : {0, 1 << 20}) {
          if (cost == 0 && name.find("deep") != name.npos) continue;
          const double us = time(40, [&](int j) {
            Fp8Gemm g{a.view(), b[static_cast<std::size_t>(j) % b.size()].view(), c.view(), false,
                      true};
            g.c_bf16 = half.view();
            gemm_fp8(ctx, {&g, 1}, {.kernel = i, .split_cost = cost});
          });
          std::printf("%s%s%s %.0f", " | ", kernels[i].name, cost == 0 ? " cut" : "",
                      bytes / us / 1e3);
        }
      }
      if (library_.here()) {
        const auto product =
            library_.product(m, n, k, true, workspace.data(), workspace.size(), stream());
        const double us = time(40, [&](int i) {
          product(a.codes.data(), b[static_cast<std::size_t>(i) % b.size()].codes.data(),
                  half.data());
        });
        std::printf(" | library %.0f", bytes / us / 1e3);
      }
      std::printf(" GB/s\n");
      std::fflush(stdout);
    }
  }
}

TEST_F(CudaGemmFp8Bench, ProbeExperts) {
  struct Group {
    int experts, m;
  };
  for (const auto& shape : {kShapes[4], kShapes[5]}) {
    const int n = shape[0], k = shape[1];
    for (const Group g : {Group{4, 8192}, {8, 4096}, {16, 256}}) {
      const Operand a = operand(g.experts * g.m, k, ScaleTile::kRow, 1);
      std::vector<Operand> b;
      Mat<float> c = room<float>(g.experts * g.m, n);
      Mat<Bf16> half = room<Bf16>(g.experts * g.m, n);
      std::vector<Fp8Gemm> list;
      for (int e = 0; e < g.experts; ++e) {
        b.push_back(operand(n, k, ScaleTile::kBlock, 40 + static_cast<unsigned>(e)));
        list.push_back({a.view().sub_rows(e * g.m, g.m), b.back().view(),
                        c.view().sub_rows(e * g.m, g.m), false, true});
        list.back().c_bf16 = half.view().sub_rows(e * g.m, g.m);
      }
      const double flops = 2.0 * g.experts * g.m * n * k;
      std::printf("experts %d x %d N %d K %d, TFLOPS:", g.experts, g.m, n, k);
      for (int i = 0; i < static_cast<int>(fp8_kernels().size()); ++i) {
        const std::string_view name = fp8_kernels()[i].name;
        if (fp8_kernels()[i].column_scales || name.starts_with("64") || name[0] == '!') continue;
        const double us =
            time_rested([&](int) { gemm_fp8(ctx, list, {.kernel = i, .split_cost = 1 << 20}); });
        std::printf(" | %s %.0f", fp8_kernels()[i].name, flops / us / 1e6);
      }
      std::printf("\n");
      std::fflush(stdout);
    }
  }
}
#endif

TEST_F(CudaGemmFp8Bench, Experts) {
  struct Group {
    int experts, m;
  };
  for (const auto& shape : {kShapes[4], kShapes[5]}) {
    const int n = shape[0], k = shape[1];
    for (const Group g : {Group{4, 8192}, {8, 4096}, {1, 1024}, {2, 512}, {4, 256}, {16, 64}}) {
      const Operand a = operand(g.experts * g.m, k, ScaleTile::kRow, 1);
      std::vector<Operand> b;
      Mat<float> c = room<float>(g.experts * g.m, n);
      Mat<Bf16> half = room<Bf16>(g.experts * g.m, n);
      std::vector<Fp8Gemm> list;
      for (int e = 0; e < g.experts; ++e) {
        b.push_back(operand(n, k, ScaleTile::kBlock, 40 + static_cast<unsigned>(e)));
        list.push_back({a.view().sub_rows(e * g.m, g.m), b.back().view(),
                        c.view().sub_rows(e * g.m, g.m), false, true});
        list.back().c_bf16 = half.view().sub_rows(e * g.m, g.m);
      }
      const double flops = 2.0 * g.experts * g.m * n * k;
      const double bytes = 1.0 * g.experts * (1.0 * g.m * k + 1.0 * n * k + 2.0 * g.m * n);
      for (int i = -1; i < static_cast<int>(fp8_kernels().size()); ++i) {
        const std::string_view name = i < 0 ? "chosen" : fp8_kernels()[i].name;
        if (i >= 0) {
          if (fp8_kernels()[i].column_scales || (name.starts_with("64") && g.m > 256)) continue;
          if (name.find("deep") != name.npos || name.find("after") != name.npos) continue;
        }
        for (const int cost : {0, 1 << 20}) {
          if (i < 0 && cost != 0) continue;
          if (i >= 0 && cost == 0) continue;
          print(cat("experts ", g.experts, " x ", g.m, " N ", n, " K ", k, " bf16 ", name,
                    i < 0       ? cat(" ", fp8_kernel_for(ctx, list).name)
                    : cost == 0 ? " cut"
                                : " whole"),
                time_rested([&](int) {
                  gemm_fp8(ctx, list, {.kernel = i, .split_cost = i < 0 ? -1 : cost});
                }),
                flops, bytes);
        }
      }
    }
  }
}

TEST_F(CudaGemmFp8Bench, WeightGradientAndTransposes) {
  const int k = 32768, m = 2048, n = 1408;
  const Operand a = operand(k, m, ScaleTile::kColumn, 1), b = operand(k, n, ScaleTile::kColumn, 2);
  Mat<float> c = room<float>(m, n);
  c.zero();
  const Fp8Gemm g{a.view(), b.view(), c.view(), true, false, true};
  const double flops = 2.0 * m * n * k;
  for (int i = 0; i < static_cast<int>(fp8_kernels().size()); ++i) {
    if (!fp8_kernels()[i].column_scales) continue;
    print(cat("weight gradient M ", m, " N ", n, " K ", k, " ", fp8_kernels()[i].name),
          time_rested([&](int) {
            gemm_fp8(ctx, {&g, 1}, {.kernel = i});
          }),
          flops, 1.0 * k * (m + n) + 8.0 * m * n);
  }
  Mat<std::uint8_t> to = room<std::uint8_t>(m, k);
  for (const int cols : {m, n}) {
    const fp8_product::CopyCodes job{.from = cols == m ? a.codes.data() : b.codes.data(),
                                     .to = to.data(),
                                     .from_stride = cols,
                                     .to_stride = k,
                                     .rows = k,
                                     .cols = cols,
                                     .transpose = true};
    print(cat("transpose codes [", k, ", ", cols, "]"),
          time_events(
              [&] {
                fp8_product::copy_codes(ctx, {&job, 1});
              },
              9),
          0, 2.0 * k * cols);
  }
  // As when the gradient of activations goes through weights.
  const Operand w = operand(7168, 2048, ScaleTile::kBlock, 4),
                y = operand(4096, 7168, ScaleTile::kRow, 5);
  Mat<float> dx = room<float>(4096, 2048);
  const Fp8Gemm d{y.view(), w.view(), dx.view(), false, false};
  print("activation gradient M 4096 N 2048 K 7168",
        time_events([&] { cuda::gemm_fp8(ctx, std::span<const Fp8Gemm>(&d, 1)); }, 9),
        2.0 * 4096 * 2048 * 7168, 4096.0 * 7168 + 2 * 7168.0 * 2048 + 4.0 * 4096 * 2048);
}

TEST_F(CudaGemmFp8Bench, TimeOfTheHost) {
  const Operand a = operand(16, 512, ScaleTile::kRow, 1),
                b = operand(128, 512, ScaleTile::kBlock, 2);
  Mat<float> c = room<float>(16, 128);
  for (const int count : {1, 8, 64}) {
    const std::vector<Fp8Gemm> list(static_cast<std::size_t>(count),
                                    Fp8Gemm{a.view(), b.view(), c.view(), false, true});
    cuda::gemm_fp8(ctx, list);
    device_->wait();
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < 50; ++i) cuda::gemm_fp8(ctx, list);
    const std::chrono::duration<double, std::micro> us = std::chrono::steady_clock::now() - begin;
    device_->wait();
    std::printf("host: %.1f us for a list of %d\n", us.count() / 50, count);
  }
}

}  // namespace

}  // namespace cachalot::cuda::testing
