// Which layout a model fits on, or by how much it does not.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "plan/infer.h"

namespace cachalot::plan {

namespace {

using cost::Decoder;

double gigabytes(double bytes) { return std::round(bytes / 1e8) / 10; }

double routed_bytes(const Decoder& d, model::WeightFormat format) {
  return cost::bytes_per_weight(format) * static_cast<double>(d.experts.parameters);
}
int layers_with_experts(const Decoder& d) {
  return d.experts.layers == 0 ? 0 : d.experts.layers + d.mtp_layers;
}

// Where the smallest case fits, too.
double smallest_case(const Decoder& d, const InferOptions& o) {
  const int batch = *std::min_element(o.batches.begin(), o.batches.end());
  const int context = *std::min_element(o.contexts.begin(), o.contexts.end());
  return static_cast<double>(cost::cache_bytes_per_token(d, o.cache_bytes)) * batch * context;
}

bool fits(const Decoder& d, const HardwareProfile& h, const InferOptions& o,
          const ServeLayout& layout) {
  const MemoryFit m = memory_fit(d, h, o, layout);
  return m.free() >= smallest_case(d, o) * m.cache_per_token /
                         static_cast<double>(cost::cache_bytes_per_token(d, o.cache_bytes));
}

ServeLayout layout_of(const Decoder& d, const HardwareProfile& h, int nodes, int tensor) {
  ServeLayout layout;
  layout.nodes = nodes;
  layout.devices = nodes * h.device.per_node;
  layout.tensor = tensor;
  if (d.experts.layers > 0) {
    layout.experts_per_device =
        std::max(1, (d.experts.experts + layout.devices - 1) / layout.devices);
  }
  return layout;
}

// The smallest layout that fits with `nodes`; its tensor is 0 where none does.
ServeLayout with_nodes(const Decoder& d, const HardwareProfile& h, const InferOptions& o,
                       int nodes) {
  for (int tensor = 1; tensor <= h.device.per_node; tensor *= 2) {
    if (o.tensor > 0 && tensor != o.tensor) continue;
    if (h.device.per_node % tensor != 0) continue;
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
      d.experts.layers > 0 && h.network_rate() > 0
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

[[noreturn]] void refuse(const Decoder& d, const HardwareProfile& h, const InferOptions& o,
                         int nodes) {
  const int tensor = o.tensor > 0 ? o.tensor : h.device.per_node;
  const ServeLayout layout = layout_of(d, h, nodes, tensor);
  const MemoryFit m = memory_fit(d, h, o, layout);
  const double cache = smallest_case(d, o) * m.cache_per_token /
                       static_cast<double>(cost::cache_bytes_per_token(d, o.cache_bytes));
  std::string what = cat(
      d.name, " with weights in ", model::name(o.weights), " does not fit on ", nodes,
      nodes == 1 ? " node" : " nodes", " of ", h.name, ": each ", h.device.name, " would hold ",
      gigabytes(m.weights()), " GB of weights and ", gigabytes(cache),
      " GB of cache for the smallest case, and has ", gigabytes(m.available), " GB (",
      gigabytes(1e9 * h.device.memory_gb),
      " GB less the reserve): ", gigabytes(m.weights() + cache - m.available), " GB too much. ");
  const int more = fewest_nodes(d, h, o);
  const std::string smaller = smaller_formats(d, h, o, nodes);
  std::string advice;
  const auto advise = [&](const std::string& text) {
    advice += cat(advice.empty() ? "" : "; or ", text);
  };
  if (more > nodes) advise(cat("use --nodes ", more));
  if (!smaller.empty()) advise(cat("store the weights in ", smaller, " (--precision)"));
  if (o.tensor > 0 && o.tensor < h.device.per_node) {
    advise(cat("share the dense weights between more devices than --tensor ", o.tensor));
  }
  if (advice.empty()) {
    advise(
        "take devices with more memory: what is not routed experts is shared within a node at "
        "most");
  }
  throw Error(Code::kUnsupported, what + "To change: " + advice + ".");
}

}  // namespace

MemoryFit memory_fit(const Decoder& d, const HardwareProfile& h, const InferOptions& o,
                     const ServeLayout& layout) {
  MemoryFit m;
  const double each = routed_bytes(d, o.weights);
  const double all = each * layers_with_experts(d) * d.experts.experts;
  m.dense = (cost::stored_bytes(d, o.weights) - all) / layout.tensor;
  m.experts = each * layers_with_experts(d) * layout.experts_per_device;
  m.available = 1e9 * h.device.memory_gb * (1 - o.reserve);
  m.cache_per_token = static_cast<double>(cost::cache_bytes_per_token(d, o.cache_bytes)) /
                      std::max(1, std::min(layout.tensor, d.kv_heads));
  return m;
}

ServeLayout choose_layout(const Decoder& d, const HardwareProfile& h, const InferOptions& o) {
  if (h.device.memory_gb <= 0) {
    throw Error(Code::kConfig, cat("the profile '", h.name,
                                   "' has no device.memory_gb; without it nothing can be said "
                                   "about what fits."));
  }
  if (o.tensor > 0 && h.device.per_node % o.tensor != 0) {
    throw Error(Code::kUsage, cat("--tensor ", o.tensor, " does not divide the ", h.device.per_node,
                                  " devices of a node of ", h.name, "."));
  }
  if (d.experts.layers == 0 && o.nodes > 1) {
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
