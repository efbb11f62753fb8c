// Which layout a model fits on, or by how much it does not.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "cost/divisors.h"
#include "plan/infer.h"

namespace cachalot::plan {

namespace {

using cost::Decoder;

double gigabytes(double bytes) { return std::round(bytes / 1e8) / 10; }
// All digits of a count.
std::int64_t whole(double count) {
  constexpr double kMost = 0x1p53;
  return static_cast<std::int64_t>(std::min(count, kMost));
}

double routed_bytes(const Decoder& d, model::WeightFormat format) {
  return cost::bytes_per_weight(format) * static_cast<double>(d.experts.parameters);
}

// Tokens that a device caches in the smallest case, as decode_case counts them.
double smallest_case(const InferOptions& o) {
  const int batch = *std::min_element(o.batches.begin(), o.batches.end());
  const int context = *std::min_element(o.contexts.begin(), o.contexts.end());
  return static_cast<double>(batch) * (context + 1.0);
}

bool fits(const Decoder& d, const HardwareProfile& h, const InferOptions& o,
          const ServeLayout& layout) {
  const MemoryFit m = memory_fit(d, h, o, layout);
  return m.free() >= smallest_case(o) * m.cache_per_token;
}

// Devices that may share the dense weights: within a node, each with as many heads.
int most_tensor(const Decoder& d, const HardwareProfile& h) {
  return std::gcd(h.device.per_node, d.heads);
}

ServeLayout layout_of(const Decoder& d, const HardwareProfile& h, int nodes, int tensor) {
  ServeLayout layout;
  layout.nodes = nodes;
  layout.devices = devices_of(h, nodes);
  layout.tensor = tensor;
  if (d.expert_layers() > 0) {
    layout.experts_per_device = 1 + (d.experts.experts - 1) / layout.devices;
  }
  return layout;
}

// The smallest layout that fits with `nodes`; its tensor is 0 where none does.
ServeLayout with_nodes(const Decoder& d, const HardwareProfile& h, const InferOptions& o,
                       int nodes) {
  for (const int tensor : cost::divisors(most_tensor(d, h))) {
    if (o.tensor > 0 && tensor != o.tensor) continue;
    const ServeLayout layout = layout_of(d, h, nodes, tensor);
    if (fits(d, h, o, layout)) return layout;
  }
  ServeLayout none = layout_of(d, h, nodes, std::max(o.tensor, 1));
  none.tensor = 0;
  return none;
}

// The fewest nodes that fit, 0 where no number does (what is not experts is on every node).
int fewest_nodes(const Decoder& d, const HardwareProfile& h, const InferOptions& o) {
  constexpr int kMostNodes = 1 << 14;
  const int useful =
      d.expert_layers() > 0 && h.network_rate() > 0
          ? std::max(1, (d.experts.experts + h.device.per_node - 1) / h.device.per_node)
          : 1;
  for (int nodes = 1; nodes <= std::min(useful, kMostNodes); ++nodes) {
    if (with_nodes(d, h, o, nodes).tensor > 0) return nodes;
  }
  return 0;
}

std::string smaller_formats(const Decoder& d, const HardwareProfile& h, InferOptions o, int nodes) {
  std::string list;
  const double now = cost::bytes_per_weight(o.weights);
  for (const auto format : {model::WeightFormat::kBf16, model::WeightFormat::kFp8,
                            model::WeightFormat::kInt8, model::WeightFormat::kInt4}) {
    if (cost::bytes_per_weight(format) >= now) continue;
    o.weights = format;
    if (with_nodes(d, h, o, nodes).tensor > 0) {
      list += cat(list.empty() ? "" : " or ", model::name(format));
    }
  }
  return list;
}

// "a; or b".
void advise(std::string& list, const std::string& text) {
  list += cat(list.empty() ? "" : "; or ", text);
}

std::string advice(const Decoder& d, const HardwareProfile& h, const InferOptions& o, int nodes,
                   const MemoryFit& m) {
  std::string list;
  // Weights that leave room are not what is in the way.
  const double tokens = std::floor(m.free() / m.cache_per_token);
  if (tokens >= 1) {
    advise(list,
           cat("lower --batch or --context: beside the weights there is room for ", whole(tokens),
               " tokens on each device, and the smallest case has ", whole(smallest_case(o))));
  }
  const int more = fewest_nodes(d, h, o);
  if (more > nodes) advise(list, cat("use --nodes ", more));
  const std::string smaller = smaller_formats(d, h, o, nodes);
  if (!smaller.empty()) advise(list, cat("store the weights in ", smaller, " (--precision)"));
  if (o.tensor > 0 && o.tensor < most_tensor(d, h) && tokens < 1) {
    advise(list, cat("share the dense weights between more devices than --tensor ", o.tensor));
  }
  if (!list.empty()) return list;
  return "take devices with more memory or nodes with more devices (--hardware): what is not "
         "routed experts is shared within a node at most";
}

[[noreturn]] void refuse(const Decoder& d, const HardwareProfile& h, const InferOptions& o,
                         int nodes) {
  const int tensor = o.tensor > 0 ? o.tensor : most_tensor(d, h);
  const MemoryFit m = memory_fit(d, h, o, layout_of(d, h, nodes, tensor));
  const double cache = smallest_case(o) * m.cache_per_token;
  throw Error(Code::kUnsupported,
              cat(d.name, " with weights in ", model::name(o.weights), " does not fit on ", nodes,
                  nodes == 1 ? " node" : " nodes", " of ", h.name, ": each ", h.device.name,
                  " would hold ", gigabytes(m.weights()), " GB of weights and ", gigabytes(cache),
                  " GB of cache for the smallest case, and has ", gigabytes(m.available), " GB (",
                  gigabytes(1e9 * h.device.memory_gb),
                  " GB less the reserve): ", gigabytes(m.weights() + cache - m.available),
                  " GB too much. To change: ", advice(d, h, o, nodes, m), "."));
}

void check_tensor(const Decoder& d, const HardwareProfile& h, int tensor) {
  const int most = most_tensor(d, h);
  if (tensor == 0 || most % tensor == 0) return;
  const bool heads = h.device.per_node % tensor == 0;
  throw Error(Code::kUsage, cat("--tensor ", tensor, " does not divide the ",
                                heads ? cat(d.heads, " attention heads of ", d.name)
                                      : cat(h.device.per_node, " devices of a node of ", h.name),
                                "; take ", cost::divisors_near(most, tensor), "."));
}

// A host packs its weights where two thirds of its memory hold them (as `placement` of
// cli/inputs.cc decides). If it multiplies bf16, it then has kv_b_proj twice.
double held_bytes(const Decoder& d, const HardwareProfile& h, model::WeightFormat format) {
  const double once = cost::held_bytes(d, format);
  const bool packed =
      h.is_host() && h.device.bf16_tflops > 0 && once < 1e9 * h.device.memory_gb / 3 * 2;
  return packed ? cost::held_bytes(d, format, true) : once;
}

}  // namespace

MemoryFit memory_fit(const Decoder& d, const HardwareProfile& h, const InferOptions& o,
                     const ServeLayout& layout) {
  MemoryFit m;
  const double each = routed_bytes(d, o.weights);
  const double all = each * d.expert_layers() * d.experts.experts;
  m.dense = (held_bytes(d, h, o.weights) - all) / layout.tensor;
  m.experts = each * d.expert_layers() * layout.experts_per_device;
  m.available = 1e9 * h.device.memory_gb * (1 - o.reserve);
  // The MTP layer keeps rows too where it drafts.
  const double layers = d.layers + (o.drafts > 0 ? d.mtp_layers : 0);
  m.cache_per_token = static_cast<double>(cost::cache_bytes_per_token(d, o.cache)) * layers /
                      d.layers / std::max(1, std::min(layout.tensor, d.kv_heads));
  return m;
}

ServeLayout choose_layout(const Decoder& d, const HardwareProfile& h, const InferOptions& o) {
  if (h.device.memory_gb <= 0) {
    throw Error(Code::kConfig, cat("the profile '", h.name,
                                   "' has no device.memory_gb; without it nothing can be said "
                                   "about what fits."));
  }
  check_tensor(d, h, o.tensor);
  if (d.expert_layers() == 0 && o.nodes > 1) {
    // Nodes then are copies of each other, but that is no layout of one model.
    throw Error(Code::kUsage,
                cat(d.name,
                    " has no experts to spread over nodes: plan one node, every further "
                    "one adds the same again (--nodes 1)."));
  }
  const int nodes = o.nodes > 0 ? o.nodes : std::max(1, fewest_nodes(d, h, o));
  const ServeLayout layout = with_nodes(d, h, o, nodes);
  if (layout.tensor == 0) refuse(d, h, o, nodes);
  return layout;
}

}  // namespace cachalot::plan
