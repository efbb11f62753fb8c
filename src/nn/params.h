// The parameters of a DeepSeek model as a tree, once for weights and once for gradients.
//
// `M` stands for a matrix ([out, in], as checkpoints have it) and `V` for a vector:
//   Weights   = WeightRef and span<const float>: memory of any supported type, training's or a
//               file's, and FP8 codes of it where there are any
//   Gradients = MatView<float> and span<float>
// Views only: `model/` owns the memory they point into.
#pragma once

#include <span>
#include <vector>

#include "base/memory_piece.h"
#include "tensor/fp8.h"
#include "tensor/mat.h"
#include "tensor/quantized.h"

namespace cachalot {
struct PackedB;
}

namespace cachalot::nn {

struct PackedHeads;

template <class M, class V>
struct MlaParams {
  M q_proj;   // [H * (N + R), D]        only without a query latent
  M q_a;      // [Q, D]                  only with one
  V q_norm;   // [Q]
  M q_b;      // [H * (N + R), Q]
  M kv_a;     // [L + R, D]
  V kv_norm;  // [L]
  M kv_b;     // [H * (N + V), L]
  M o;        // [D, H * V]
};

template <class M, class V>
struct MlpParams {
  M gate;  // [F, D]
  M up;    // [F, D]
  M down;  // [D, F]
};

template <class M, class V>
struct MoeParams {
  M router;  // [E, D]
  V bias;    // [E], empty where the method has none. Moved by the balance rule, not by gradients.
  std::vector<MlpParams<M, V>> experts;
  MlpParams<M, V> shared;  // width n_shared_experts * expert width; empty without shared experts
};

template <class M, class V>
struct BlockParams {
  V input_norm;  // [D]
  MlaParams<M, V> mla;
  V post_norm;  // [D]
  bool is_moe = false;
  MlpParams<M, V> mlp;  // dense layers
  MoeParams<M, V> moe;  // the others
};

template <class M, class V>
struct MtpParams {
  V enorm, hnorm;  // [D]
  M eh_proj;       // [D, 2 D]  embedding half first
  BlockParams<M, V> block;
  V head_norm;  // [D]
  M embed;      // [vocab, D]  the main one where the file has no copy
  M head;       // [vocab, D]  likewise
};

template <class M, class V>
struct ModelParams {
  M embed;  // [vocab, D]
  std::vector<BlockParams<M, V>> layers;
  V norm;                            // [D]
  M head;                            // [vocab, D]
  std::vector<MtpParams<M, V>> mtp;  // none or one
};

// A matrix of weights; with its codes where FP8 products are to read them, or, without memory of
// its own, in 8 or 4 bits (then products read `quant`) or packed for products.
struct WeightRef : MatRef {
  Fp8View fp8;         // no rows: none
  Fp8View fp8_turned;  // likewise: those codes transposed, as the gradient of an input reads them
  QuantView quant;     // likewise
  const PackedB* packed = nullptr;         // kernels/gemm.h
  const PackedHeads* heads = nullptr;      // nn/mla.h; of kv_b_proj, beside its own memory
  std::span<const MemoryPiece> read_next;  // by a pass, after this one; empty: not known

  WeightRef() = default;
  WeightRef(const MatRef& m) : MatRef(m) {}  // NOLINT(google-explicit-constructor): adds nothing
  explicit WeightRef(const QuantView& q)
      : MatRef(nullptr, DType::kF32, q.rows, q.cols, q.cols), quant(q) {}
};

// What a pass that uses it has to read of it, in bytes: codes with their scales, packed words (not
// their padding), or its own memory.
double bytes_read(const WeightRef& w);

// The memory it lies in, wherever that is, added to `to`.
void add_memory(const WeightRef& w, std::vector<MemoryPiece>& to);
void add_memory(std::span<const PackedB> packed, std::vector<MemoryPiece>& to);

using VecRef = std::span<const float>;
using VecView = std::span<float>;

using MlaWeights = MlaParams<WeightRef, VecRef>;
using MlpWeights = MlpParams<WeightRef, VecRef>;
using MoeWeights = MoeParams<WeightRef, VecRef>;
using BlockWeights = BlockParams<WeightRef, VecRef>;
using MtpWeights = MtpParams<WeightRef, VecRef>;
using Weights = ModelParams<WeightRef, VecRef>;

using MlaGradients = MlaParams<MatView<float>, VecView>;
using MlpGradients = MlpParams<MatView<float>, VecView>;
using MoeGradients = MoeParams<MatView<float>, VecView>;
using BlockGradients = BlockParams<MatView<float>, VecView>;
using MtpGradients = MtpParams<MatView<float>, VecView>;
using Gradients = ModelParams<MatView<float>, VecView>;

}  // namespace cachalot::nn
