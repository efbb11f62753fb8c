// oneDNN and OpenBLAS as a module that only `cachalot bench kernels` loads: OpenBLAS starts threads
// as soon as it is loaded, which no other command should pay for.
#include "perf/peers.h"

#include <memory>

#include "base/error.h"

#ifdef CACHALOT_HAS_OPENBLAS
#include <cblas-openblas.h>
extern "C" void openblas_set_num_threads(int threads);
extern "C" char* openblas_get_corename(void);
#endif
#ifdef CACHALOT_HAS_ONEDNN
#include <omp.h>

#include <oneapi/dnnl/dnnl.hpp>
#endif

namespace cachalot::perf {

namespace {

#ifdef CACHALOT_HAS_ONEDNN
// One oneDNN matmul; `packed` lets it choose the layout of the weights and reorders them before.
struct DnnlProduct {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  dnnl::memory x, w, y;
  dnnl::matmul matmul;
  int threads = 1;

  DnnlProduct(const PeerProduct& p, bool packed) : threads(p.threads) {
    using dnnl::memory;
    omp_set_num_threads(threads);
    const auto type =
        p.precision == Precision::kBF16 ? memory::data_type::bf16 : memory::data_type::f32;
    const memory::dims xs{p.x.rows, p.x.cols};
    const memory::dims ws{p.w.cols, p.w.rows};
    const memory::dims ys{p.y.rows, p.y.cols};
    const auto f32 = memory::data_type::f32;
    const memory::desc x_desc(xs, type, memory::format_tag::ab);
    const memory::desc w_plain(ws, type, memory::format_tag::ba);
    const memory::desc w_any(ws, type, memory::format_tag::any);
    const memory::desc y_desc(ys, f32, memory::format_tag::ab);
    const dnnl::matmul::primitive_desc pd(
        dnnl::matmul::desc(x_desc, packed ? w_any : w_plain, y_desc), engine);
    x = converted({xs, f32, memory::format_tag::ab}, p.x.data, x_desc);
    w = converted({ws, f32, memory::format_tag::ba}, p.w.data, pd.weights_desc());
    y = memory(y_desc, engine, p.y.data);
    matmul = dnnl::matmul(pd);
  }
  dnnl::memory converted(const dnnl::memory::desc& from, const float* data,
                         const dnnl::memory::desc& to) {
    dnnl::memory source(from, engine, const_cast<float*>(data));
    dnnl::memory target(to, engine);
    dnnl::reorder(source, target).execute(stream, source, target);
    stream.wait();
    return target;
  }
  void run() {
    omp_set_num_threads(threads);
    matmul.execute(stream, {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DST, y}});
    stream.wait();
  }
};

void add_dnnl(const PeerProduct& p, bool packed, std::vector<Peer>& peers,
              std::vector<std::string>& notes) {
  const std::string name = packed ? "onednn_packed" : "onednn";
  try {
    auto product = std::make_shared<DnnlProduct>(p, packed);
    peers.push_back({name, [product] { product->run(); }});
  } catch (const dnnl::error& e) {
    notes.push_back(cat(name, " cannot do this product here: ", e.message));
  }
}
#endif

}  // namespace

extern "C" void cachalot_make_peers([[maybe_unused]] const PeerProduct& product,
                                    [[maybe_unused]] std::vector<Peer>& peers,
                                    [[maybe_unused]] std::vector<std::string>& notes) {
#ifdef CACHALOT_HAS_ONEDNN
  add_dnnl(product, false, peers, notes);
  add_dnnl(product, true, peers, notes);
#endif
#ifdef CACHALOT_HAS_OPENBLAS
  if (product.precision == Precision::kF32) {
    notes.push_back(cat("openblas runs its ", openblas_get_corename(), " kernels"));
    peers.push_back({"openblas", [p = product] {
                       openblas_set_num_threads(p.threads);
                       cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, p.y.rows, p.y.cols,
                                   p.x.cols, 1.0f, p.x.data, static_cast<int>(p.x.stride), p.w.data,
                                   static_cast<int>(p.w.stride), 0.0f, p.y.data,
                                   static_cast<int>(p.y.stride));
                     }});
  }
#endif
}

}  // namespace cachalot::perf
