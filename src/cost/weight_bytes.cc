#include "cost/weight_bytes.h"

namespace cachalot::cost {

namespace {

using model::WeightFormat;

double bytes_of(const nn::WeightRef& w) { return nn::bytes_read(w); }

double bytes_of(const nn::MlaWeights& w) {
  return bytes_of(w.q_proj) + bytes_of(w.q_a) + bytes_of(w.q_b) + bytes_of(w.kv_a) +
         bytes_of(w.kv_b) + bytes_of(w.o);
}
double bytes_of(const nn::MlpWeights& w) {
  return bytes_of(w.gate) + bytes_of(w.up) + bytes_of(w.down);
}
// Without the routed experts.
double dense_bytes(const nn::BlockWeights& w) {
  return bytes_of(w.mla) +
         (w.is_moe ? bytes_of(w.moe.router) + bytes_of(w.moe.shared) : bytes_of(w.mlp));
}

// Bytes of one weight, by what it belongs to.
struct PerWeight {
  explicit PerWeight(WeightFormat format)
      : code(bytes_per_weight(format)), plain(format == WeightFormat::kF32 ? 4 : 2) {
    const bool integers = format == WeightFormat::kInt8 || format == WeightFormat::kInt4;
    head = integers ? bytes_per_weight(WeightFormat::kInt8) : plain;
    latent = format == WeightFormat::kInt4 ? plain : code;
  }
  double code, plain, head = 0;
  double latent = 0;  // of the projections to the latents
  // What a layer's attention takes beyond as many codes.
  double beyond_codes(const Decoder& d) const {
    return (plain - code) * static_cast<double>(d.absorbed) +
           (latent - code) * static_cast<double>(d.latent_inputs);
  }
};
constexpr double kVector = 4;  // a number of a norm or a bias: float

double table_size(const Decoder& d) { return static_cast<double>(d.vocab) * d.hidden; }
double eh_proj_size(const Decoder& d) { return 2.0 * d.hidden * d.hidden; }

// The router of one layer.
double router_bytes(const Decoder& d, const PerWeight& w) {
  const double experts = d.experts.experts;
  const bool bias = d.experts.method == TopkMethod::kNoauxTc;
  return w.plain * experts * d.hidden + (bias ? kVector * experts : 0);
}

double main_bytes(const Decoder& d, const PerWeight& w) {
  double bytes = 0;
  for (const Part& part : d.parameters.parts) {
    const auto total = static_cast<double>(part.total);
    if (part.name == "router") {
      bytes += part.layers * router_bytes(d, w);
    } else if (part.name == "embedding") {
      bytes += w.plain * total;
    } else if (part.name == "head") {
      bytes += w.head * total;  // nothing where it is the embedding
    } else {
      bytes += (part.matmul > 0 ? w.code : kVector) * total;
    }
  }
  return bytes + d.layers * w.beyond_codes(d);
}

double norms_size(const Decoder& d) {
  for (const Part& part : d.parameters.parts) {
    if (part.name == "norms") return static_cast<double>(part.total) / part.layers;
  }
  return 0;
}

// One MTP layer.
double mtp_bytes(const Decoder& d, const PerWeight& w) {
  const double all = static_cast<double>(d.parameters.mtp.total) / d.mtp_layers;
  const double norms = norms_size(d) + 3.0 * d.hidden;  // and enorm, hnorm, shared_head.norm
  const double experts = d.mtp_moe ? d.experts.experts : 0;
  const bool bias = d.mtp_moe && d.experts.method == TopkMethod::kNoauxTc;
  const double router = experts * d.hidden + (bias ? experts : 0);
  const double codes = all - norms - router - eh_proj_size(d);
  return w.code * codes + w.beyond_codes(d) + kVector * norms +
         (d.mtp_moe ? router_bytes(d, w) : 0) + w.plain * eh_proj_size(d) +
         (shares_mtp_tables(d) ? 0 : (w.plain + w.head) * table_size(d));
}

}  // namespace

WeightBytes weight_bytes(const model::Model& model) {
  const nn::Weights& w = model.weights();
  WeightBytes bytes;
  double experts = 0;
  int count = 0;
  for (const nn::BlockWeights& block : w.layers) {
    bytes.dense += dense_bytes(block);
    if (!block.is_moe) continue;
    ++bytes.moe_layers;
    for (const nn::MlpWeights& expert : block.moe.experts) experts += bytes_of(expert);
    count += static_cast<int>(block.moe.experts.size());
  }
  if (count > 0) bytes.expert = experts / count;
  bytes.head = bytes_of(w.head);
  if (!w.mtp.empty()) {
    bytes.mtp_dense = dense_bytes(w.mtp.front().block) + bytes_of(w.mtp.front().eh_proj);
    bytes.mtp_head = bytes_of(w.mtp.front().head);
  }
  return bytes;
}

double bytes_per_weight(WeightFormat format) noexcept {
  switch (format) {
    case WeightFormat::kF32:
      return 4;
    case WeightFormat::kBf16:
      return 2;
    case WeightFormat::kFp8:
      return 1 + 4.0 / (QuantView::kBlockRows * 128);
    case WeightFormat::kInt8:
      return 1 + 2.0 / 128;
    case WeightFormat::kInt4:
      return 0.5 + 2.0 / 32;
  }
  return 2;
}

WeightBytes weight_bytes(const Decoder& d, WeightFormat format) {
  const PerWeight w(format);
  WeightBytes bytes;
  for (const Part& part : d.parameters.parts) {
    const auto count = static_cast<double>(part.matmul);
    if (part.name == "head") {
      bytes.head = w.head * count;
    } else if (part.name == "router") {
      bytes.dense += w.plain * static_cast<double>(part.total);
    } else if (part.name != "routed_experts") {
      bytes.dense += w.code * count;
    }
  }
  bytes.dense += d.layers * w.beyond_codes(d);
  bytes.moe_layers = d.experts.layers;
  bytes.expert = w.code * static_cast<double>(d.experts.parameters);
  if (d.mtp_layers == 0) return bytes;
  // One layer: what one token uses of it besides embedding, head and routed experts.
  const auto used = static_cast<double>(d.parameters.mtp.matmul) / d.mtp_layers - table_size(d);
  const double routed =
      d.mtp_moe ? static_cast<double>(d.experts.topk * d.experts.parameters) : 0.0;
  bytes.mtp_dense =
      w.code * (used - routed - eh_proj_size(d)) + w.plain * eh_proj_size(d) + w.beyond_codes(d);
  bytes.mtp_head = w.head * table_size(d);
  return bytes;
}

bool shares_mtp_tables(const Decoder& d) {
  if (d.mtp_layers == 0) return false;
  for (const Part& part : d.parameters.parts) {
    if (part.name == "head") return part.total > 0;
  }
  return false;
}

double held_bytes(const Decoder& d, WeightFormat format, bool packed) {
  const PerWeight w(format);
  double bytes = main_bytes(d, w);
  if (d.mtp_layers > 0) bytes += d.mtp_layers * mtp_bytes(d, w);
  // Products in f32 read it as it lies.
  if (packed && format != WeightFormat::kF32) {
    bytes += w.plain * static_cast<double>(d.absorbed) * (d.layers + d.mtp_layers);
  }
  return bytes;
}

}  // namespace cachalot::cost
