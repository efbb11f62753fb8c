// Large products through cublasLt, which is loaded when the first one comes, so that a program
// without it still runs everything else.
//
// Rows of a row-major matrix are columns of a column-major one: C^T = op(B)^T op(A)^T.
// A list of products that do not fill the device each is spread over a few streams.
// Precision: bf16 operands with float sums, or float operands with float ones (no TF32).
#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <map>
#include <mutex>

#include "kernels/cuda/gemm_parts.cuh"

namespace cachalot::cuda {

namespace {

struct Api {
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtMatmulDescCreate) desc_create = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
};

template <class F>
void find(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  if (function == nullptr) {
    throw Error(Code::kUnsupported,
                cat("the cublasLt library found has no ", name, "; version 13 of it is needed"));
  }
}

Api load() {
  void* library = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) library = dlopen("libcublasLt.so", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw Error(Code::kUnsupported,
                cat("products on the GPU need cublasLt, which was not found (", dlerror(),
                    "): install the CUDA toolkit's libcublas 13, or put the folder that holds "
                    "libcublasLt.so.13 on LD_LIBRARY_PATH"));
  }
  Api api;
  find(library, "cublasLtCreate", api.create);
  find(library, "cublasLtMatmulDescCreate", api.desc_create);
  find(library, "cublasLtMatmulDescSetAttribute", api.desc_set);
  find(library, "cublasLtMatrixLayoutCreate", api.layout_create);
  find(library, "cublasLtMatrixLayoutDestroy", api.layout_destroy);
  find(library, "cublasLtMatmulPreferenceCreate", api.preference_create);
  find(library, "cublasLtMatmulPreferenceDestroy", api.preference_destroy);
  find(library, "cublasLtMatmulPreferenceSetAttribute", api.preference_set);
  find(library, "cublasLtMatmulAlgoGetHeuristic", api.heuristic);
  find(library, "cublasLtMatmul", api.matmul);
  return api;
}

void check_library(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(Code::kInternal,
              cat("cublasLt: ", what, " failed with status ", static_cast<int>(status)));
}

// What the choice of an algorithm may depend on. Experts have another number of rows in every step,
// so sizes are classes: eight to an octave.
struct Key {
  std::array<int, 11> of;
  auto operator<=>(const Key&) const = default;
};

int size_class(std::int64_t n) {
  int shift = 0;
  while ((n >> shift) >= 16) ++shift;
  return static_cast<int>(shift * 16 + (n >> shift) +
                          ((n & ((std::int64_t{1} << shift) - 1)) != 0));
}

// Log2 of the bytes that an address is a multiple of, up to 16 bytes.
int alignment(const void* p, std::ptrdiff_t stride, std::size_t size) {
  const auto bits =
      reinterpret_cast<std::uintptr_t>(p) | static_cast<std::uint64_t>(stride) * size | 16u;
  int log = 0;
  while ((bits >> log & 1) == 0) ++log;
  return log;
}

struct Layouts {
  const Api& api;
  cublasLtMatrixLayout_t b = nullptr, a = nullptr, c = nullptr;

  explicit Layouts(const Api& functions) : api(functions) {}
  Layouts(const Layouts&) = delete;
  Layouts& operator=(const Layouts&) = delete;
  ~Layouts() {
    for (cublasLtMatrixLayout_t l : {a, b, c}) {
      if (l != nullptr) api.layout_destroy(l);
    }
  }
  void make(cublasLtMatrixLayout_t& l, cudaDataType_t type, int rows, int cols,
            std::ptrdiff_t stride) {
    check_library(api.layout_create(&l, type, static_cast<std::uint64_t>(cols),
                                    static_cast<std::uint64_t>(rows),
                                    std::max<std::ptrdiff_t>({stride, cols, 1})),
                  "describing a matrix");
  }
};

cudaDataType_t type_of(DType t) { return t == DType::kBF16 ? CUDA_R_16BF : CUDA_R_32F; }

class Library {
 public:
  static constexpr int kSides = 3;
  static constexpr std::size_t kWorkspace = std::size_t{32} << 20;

  Library() : api_(load()) {
    check_library(api_.create(&handle_), "starting");
    for (int trans_b = 0; trans_b < 2; ++trans_b) {
      for (int trans_a = 0; trans_a < 2; ++trans_a) {
        cublasLtMatmulDesc_t& d = desc_[trans_b][trans_a];
        check_library(api_.desc_create(&d, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describing a product");
        // The first operand of the library is B^T as it lies, [N, K] by columns.
        const cublasOperation_t first = trans_b != 0 ? CUBLAS_OP_T : CUBLAS_OP_N;
        const cublasOperation_t second = trans_a != 0 ? CUBLAS_OP_T : CUBLAS_OP_N;
        check_library(api_.desc_set(d, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof(first)),
                      "describing a product");
        check_library(api_.desc_set(d, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof(second)),
                      "describing a product");
      }
    }
    for (int i = 0; i < kSides; ++i) {
      check(cudaStreamCreateWithFlags(&side_[i], cudaStreamNonBlocking), "making a stream");
      check(cudaEventCreateWithFlags(&joined_[i], cudaEventDisableTiming), "making an event");
    }
    check(cudaEventCreateWithFlags(&forked_, cudaEventDisableTiming), "making an event");
  }

  void run(const Context& ctx, std::span<const Gemm> problems, std::vector<Gemm>& refused) {
    const std::scoped_lock lock(mutex_);
    const int sides = sides_for(ctx, problems);
    char* workspace = static_cast<char*>(
        device_of(ctx).scratch(kScratchLibrary, kWorkspace * static_cast<std::size_t>(1 + kSides)));
    const cudaStream_t main = stream_of(ctx);
    if (sides > 0) {
      check(cudaEventRecord(forked_, main), "forking");
      for (int i = 0; i < sides; ++i) check(cudaStreamWaitEvent(side_[i], forked_), "forking");
    }
    int turn = 0;
    for (const Gemm& g : problems) {
      const cudaStream_t stream = turn == 0 ? main : side_[turn - 1];
      if (!product(g, stream, workspace + static_cast<std::size_t>(turn) * kWorkspace)) {
        refused.push_back(g);
      }
      turn = turn == sides ? 0 : turn + 1;
    }
    for (int i = 0; i < sides; ++i) {
      check(cudaEventRecord(joined_[i], side_[i]), "joining");
      check(cudaStreamWaitEvent(main, joined_[i]), "joining");
    }
  }

 private:
  // Streams beside the main one: where products would leave much of the device idle, each by
  // itself.
  static int sides_for(const Context& ctx, std::span<const Gemm> problems) {
    constexpr std::int64_t kTile = 128 * 256;
    const std::int64_t enough = std::int64_t{8} * device_of(ctx).processors() * kTile;
    int small = 0;
    for (const Gemm& g : problems) small += std::int64_t{g.m()} * g.n() < enough;
    return small < 2 ? 0 : std::min(small - 1, kSides);
  }

  bool product(const Gemm& g, cudaStream_t stream, void* workspace) {
    const bool in_bf16 = g.c_bf16.rows > 0;
    const DType c_type = in_bf16 ? DType::kBF16 : DType::kF32;
    void* c = in_bf16 ? static_cast<void*>(g.c_bf16.data) : g.c.data;
    const std::ptrdiff_t c_stride = in_bf16 ? g.c_bf16.stride : g.c.stride;
    Layouts l(api_);
    l.make(l.b, type_of(g.b.dtype), g.b.rows, g.b.cols, g.b.stride);
    l.make(l.a, type_of(g.a.dtype), g.a.rows, g.a.cols, g.a.stride);
    l.make(l.c, type_of(c_type), g.m(), g.n(), c_stride);
    const Key key{{size_class(g.m()), size_class(g.n()), size_class(g.k()),
                   static_cast<int>(g.a.dtype), static_cast<int>(c_type), g.trans_a, g.trans_b,
                   g.accumulate, alignment(g.a.data, g.a.stride, size_of(g.a.dtype)),
                   alignment(g.b.data, g.b.stride, size_of(g.b.dtype)),
                   alignment(c, c_stride, size_of(c_type))}};
    cublasLtMatmulDesc_t desc = desc_[g.trans_b][g.trans_a];
    const float one = 1, beta = g.accumulate ? 1.0f : 0.0f;
    const auto call = [&](const cublasLtMatmulAlgo_t& algo) {
      return api_.matmul(handle_, desc, &one, g.b.data, l.b, g.a.data, l.a, &beta, c, l.c, c, l.c,
                         &algo, workspace, kWorkspace, stream) == CUBLAS_STATUS_SUCCESS;
    };
    if (const auto known = algos_.find(key); known != algos_.end() && call(known->second)) {
      return true;
    }
    cublasLtMatmulAlgo_t algo;
    if (!choose(desc, l, key, algo) || !call(algo)) return false;
    algos_.insert_or_assign(key, algo);
    return true;
  }

  bool choose(cublasLtMatmulDesc_t desc, const Layouts& l, const Key& key,
              cublasLtMatmulAlgo_t& algo) {
    cublasLtMatmulPreference_t preference = nullptr;
    check_library(api_.preference_create(&preference), "asking for an algorithm");
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t what, const auto& value) {
      check_library(api_.preference_set(preference, what, &value, sizeof(value)),
                    "asking for an algorithm");
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspace);
    // Where k is cut, parts are added as floats, not in the type of the result.
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, std::uint32_t{1} << key.of[9]);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, std::uint32_t{1} << key.of[8]);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, std::uint32_t{1} << key.of[10]);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, std::uint32_t{1} << key.of[10]);
    cublasLtMatmulHeuristicResult_t result{};
    int found = 0;
    const cublasStatus_t status =
        api_.heuristic(handle_, desc, l.b, l.a, l.c, l.c, preference, 1, &result, &found);
    api_.preference_destroy(preference);
    if (status != CUBLAS_STATUS_SUCCESS || found == 0) return false;
    algo = result.algo;
    return true;
  }

  Api api_;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t desc_[2][2] = {};
  cudaStream_t side_[kSides] = {};
  cudaEvent_t forked_ = nullptr, joined_[kSides] = {};
  std::map<Key, cublasLtMatmulAlgo_t> algos_;
  std::mutex mutex_;
};

// Of the process, as the library itself is: streams and choices outlive a device that is closed.
Library& library() {
  static Library* one = new Library;  // the driver may be gone before statics are destroyed
  return *one;
}

}  // namespace

void gemm_library(const Context& ctx, std::span<const Gemm> problems, std::vector<Gemm>& refused) {
  if (!problems.empty()) library().run(ctx, problems, refused);
}

}  // namespace cachalot::cuda
