// The products of other libraries, for comparison only: y[M, N] = x[M, K] w[N, K]^T. A library that
// was not found at build time gives no peers.
//
// Threads: each library brings its own, told to sleep soon after a product.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernels/context.h"
#include "tensor/mat.h"

namespace cachalot::perf {

struct Peer {
  std::string name;
  std::function<void()> run;
};

struct PeerProduct {
  MatView<const float> x;
  MatView<const float> w;
  MatView<float> y;
  Precision precision = Precision::kF32;
  int threads = 1;
};

// Views must outlive the peers. What a library cannot do is said in `notes`.
std::vector<Peer> make_peers(const PeerProduct& product, std::vector<std::string>& notes);

}  // namespace cachalot::perf
