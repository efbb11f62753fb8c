#include "plan/infer.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace cachalot::plan {

namespace {

using cost::Decoder;
using cost::Limit;
using cost::PassTime;

[[noreturn]] void lacks(const HardwareProfile& h, const std::string& key, const char* why) {
  throw Error(Code::kConfig, cat("the profile '", h.name, "' has no ", key, "; ", why,
                                 ". Add it to a copy of the "
                                 "profile, with its source."));
}

void check(const InferOptions& o, const Decoder& d) {
  const auto need = [](bool good, const std::string& text) {
    if (!good) throw Error(Code::kUsage, text);
  };
  need(!o.batches.empty() && !o.contexts.empty(), "a plan needs a batch and a context");
  for (const int b : o.batches) need(b >= 1, cat("--batch ", b, " must be at least 1"));
  for (const int c : o.contexts) need(c >= 0, cat("--context ", c, " must not be negative"));
  need(o.drafts == 0 || d.mtp_layers > 0,
       cat(d.name, " has no MTP layer, so nothing drafts: leave ",
           o.acceptance <= 0 ? "--drafts"
           : o.drafts > 1    ? "--drafts and --mtp-acceptance"
                             : "--mtp-acceptance",  // makes one draft where --drafts says none
           " out."));
}

// One device's part of passes, and the links between devices.
class Planner {
 public:
  Planner(const Decoder& d, const HardwareProfile& h, const InferOptions& o,
          const ServeLayout& layout)
      : d_(d),
        h_(h),
        o_(o),
        layout_(layout),
        weights_(cost::weight_bytes(d, o.weights)),
        rates_(device_rates(h, o.weights)),
        paths_(cost::expert_paths(d, layout.nodes, h.device.per_node)),
        links_{h.network_rate(), 1e-6 * h.network.latency_us, h.link_rate(),
               1e-6 * h.link.latency_us} {
    if (d.expert_layers() > 0 && layout.nodes > 1 && links_.network <= 0) {
      lacks(h, "network.gbps and network.nics_per_node", "experts on several nodes need a network");
    }
    if (h.device.per_node > 1 && layout.devices > 1 && links_.link <= 0 &&
        (layout.tensor > 1 || d.expert_layers() > 0)) {
      lacks(h, "link.gbps", "devices of a node that share a model need a link");
    }
  }

  // A decode pass of `sequences` with `each` rows, in full or as two halves that hide each other's
  // communication: whichever ends first.
  DecodeCase decode(int batch, int context, int each) const {
    DecodeCase full = decode_parts(batch, context, each, 1);
    if (batch < 2 || full.communication <= 0) return full;
    const DecodeCase halves = decode_parts(batch, context, each, 2);
    return halves.step < full.step ? halves : full;
  }

  // The MTP layer over the rows of each sequence's last token, `drafts` times.
  double draft(int batch, int context) const {
    if (o_.drafts == 0) return 0;
    const cost::PassShape rows = decode_shape(batch, context, 1, 1);
    const cost::PassCost all = cost::pass_cost(d_, weights_, rows);
    const double table = static_cast<double>(d_.vocab) * d_.hidden;
    const auto matmul = static_cast<double>(d_.parameters.mtp.matmul) / d_.mtp_layers;
    const double routed = d_.mtp_moe ? static_cast<double>(d_.experts.topk) *
                                           static_cast<double>(d_.experts.parameters)
                                     : 0.0;
    cost::PassCost one;
    one.dense = {weights_.mtp_dense / layout_.tensor,
                 2.0 * batch * (matmul - table - routed) / layout_.tensor, double(batch)};
    one.head = {weights_.mtp_head / layout_.tensor, 2.0 * batch * table / layout_.tensor,
                double(batch)};
    if (d_.mtp_moe) one.expert = cost::expert_layer_cost(d_, weights_, rows).products;
    one.cache_bytes = all.cache_bytes / d_.layers;
    one.attention_flops = all.attention_flops / d_.layers;
    one.attention_rows = all.attention_rows;
    const double sending = (d_.mtp_moe ? direct(batch) : 0) + tensor_layer_seconds(batch);
    return o_.drafts * (cost::pass_time(one, 1, rates_).total() - rates_.pass_seconds + sending);
  }

  PrefillCase prefill(int prompt) const {
    PrefillCase c;
    c.prompt = prompt;
    const cost::PassCost cost = cost::pass_cost(d_, weights_, shape(prompt, 1, 0, 1, false));
    c.time = cost::pass_time(cost, d_.layers, rates_);
    c.communication =
        d_.experts.layers * cost::forwarded_seconds(paths_, tokens_of_a_device(prompt), d_.hidden,
                                                    message_, links_) +
        tensor_seconds(prompt);
    // Two micro-batches alternate (V3 report 3.4.1): the longer one counts.
    c.ttft = std::max(c.time.total(), c.communication);
    c.limit = c.communication > c.time.total() ? Limit::kCommunication : c.time.limit();
    c.tokens_per_s = groups() * prompt / c.ttft;
    c.per_million = money(c.tokens_per_s);
    return c;
  }

  ExpertBound bound() const {
    ExpertBound b;
    b.destinations = d_.experts.topk + d_.experts.shared;
    const bool network = layout_.nodes > 1;
    b.rate = 1e9 * (network ? h_.network.gbps * h_.network.nics_per_node / h_.device.per_node
                            : h_.link.gbps);
    b.achieved_rate = network ? h_.network_rate() : h_.link_rate();
    b.stage = cost::all_to_all_seconds(b.tokens, b.destinations, d_.hidden, message_, b.rate);
    b.tpot = cost::bound_per_output_token(b.tokens, b.destinations, d_.hidden, d_.layers, message_,
                                          b.rate);
    b.achieved_tpot = cost::bound_per_output_token(b.tokens, b.destinations, d_.hidden, d_.layers,
                                                   message_, b.achieved_rate);
    return b;
  }

  int groups() const { return layout_.devices / layout_.tensor; }
  double money(double tokens_per_s) const {
    return h_.node_hour() * layout_.nodes / 3600 / tokens_per_s * 1e6;
  }

 private:
  cost::PassShape shape(int rows, int sequences, int context, int logits, bool decode) const {
    cost::PassShape s;
    s.rows = rows;
    s.sequences = sequences;
    s.context = context;
    s.logits = logits;
    s.cache_bytes_per_token = static_cast<double>(cost::cache_bytes_per_token(d_, o_.cache));
    s.absorbed = decode || h_.achieved.absorbed_prefill;
    // More devices than experts: some hold copies, and each then sees its share of the tokens.
    s.expert_devices = std::min(layout_.devices, std::max(1, d_.experts.experts));
    s.expert_tokens = static_cast<double>(rows) * groups() * s.expert_devices / layout_.devices;
    s.tensor_devices = layout_.tensor;
    return s;
  }
  cost::PassShape decode_shape(int batch, int context, int each, int parts) const {
    const int sequences = (batch + parts - 1) / parts;
    const int rows = sequences * each;
    return shape(rows, sequences, context, rows, true);
  }
  double tokens_of_a_device(double rows) const { return rows / layout_.tensor; }
  double direct(double rows) const {
    return cost::direct_seconds(paths_, tokens_of_a_device(rows), d_.hidden, message_, links_);
  }
  // Two sums over the group in each layer, in bf16.
  double tensor_layer_seconds(double rows) const {
    if (layout_.tensor == 1) return 0;
    const double share = 2.0 * (layout_.tensor - 1) / layout_.tensor;
    return 2 * (share * rows * d_.hidden * 2 / links_.link + 2 * links_.link_latency);
  }
  double tensor_seconds(double rows) const { return d_.layers * tensor_layer_seconds(rows); }

  DecodeCase decode_parts(int batch, int context, int each, int parts) const {
    DecodeCase c;
    c.batch = batch;
    c.context = context;
    c.overlapped = parts > 1;
    const cost::PassCost cost =
        cost::pass_cost(d_, weights_, decode_shape(batch, context, each, parts));
    c.time = cost::pass_time(cost, d_.layers, rates_);
    for (double* x : {&c.time.dense, &c.time.experts, &c.time.attention, &c.time.overhead,
                      &c.time.memory, &c.time.compute}) {
      *x *= parts;
    }
    const auto share = (batch + parts - 1) / parts;  // of a micro-batch
    const double rows = static_cast<double>(share) * each;
    c.communication = parts * (d_.experts.layers * direct(rows) + tensor_seconds(rows));
    const double computing = c.time.total();
    c.step = parts > 1 ? std::max(computing, c.communication) : computing + c.communication;
    const double largest = std::max({c.time.memory, c.time.compute, c.time.overhead});
    const bool waits = parts > 1 ? c.communication > computing : c.communication > largest;
    c.limit = waits ? Limit::kCommunication : c.time.limit();
    return c;
  }

  const Decoder& d_;
  const HardwareProfile& h_;
  const InferOptions& o_;
  const ServeLayout& layout_;
  cost::WeightBytes weights_;
  cost::DeviceRates rates_;
  cost::ExpertPaths paths_;
  cost::ExpertLinks links_;
  cost::ExpertMessage message_;
};

// 1 + a + a^2 + ...: a draft counts only if all before it were right.
double expected_tokens(int drafts, double acceptance) {
  double sum = 1, chain = 1;
  for (int i = 0; i < drafts; ++i) sum += (chain *= acceptance);
  return sum;
}

DecodeCase decode_case(const Planner& planner, const InferOptions& o, const MemoryFit& memory,
                       int batch, int context) {
  const DecodeCase plain = planner.decode(batch, context, 1);
  DecodeCase c = o.drafts > 0 ? planner.decode(batch, context, 1 + o.drafts) : plain;
  c.cache = static_cast<double>(batch) * (context + 1) * memory.cache_per_token;
  c.over = c.cache - memory.free();
  c.fits = c.over <= 0;
  if (o.drafts > 0) {
    c.step += planner.draft(batch, context);
    c.tokens_per_step = expected_tokens(o.drafts, o.acceptance);
    c.mtp_gain = c.tokens_per_step * plain.step / c.step;
  }
  c.tpot = c.step / c.tokens_per_step;
  c.tokens_per_s = batch * planner.groups() / c.tpot;
  c.per_million = planner.money(c.tokens_per_s);
  return c;
}

cost::RateCurve curve_of(const std::vector<double>& rows, const std::vector<double>& gflops) {
  cost::RateCurve curve;
  if (gflops.empty()) return curve;
  curve.rows = rows;
  for (const double x : gflops) curve.flops.push_back(1e9 * x);
  return curve;
}

cost::RateCurve curve_of(const RatesProfile& r, model::WeightFormat weights) {
  switch (weights) {
    case model::WeightFormat::kF32:
      return curve_of(r.rows, r.f32_gflops);
    case model::WeightFormat::kBf16:
      return curve_of(r.rows, r.bf16_gflops);
    case model::WeightFormat::kFp8:
      return curve_of(r.rows, r.fp8_gflops);
    case model::WeightFormat::kInt8:
      return curve_of(r.rows, r.int8_gflops);
    case model::WeightFormat::kInt4:
      return curve_of(r.rows, r.int4_gflops);
  }
  return {};
}

// Nodes of as many layouts as so many nodes of work keep busy.
std::int64_t whole_layouts(double nodes, const ServeLayout& layout) {
  constexpr double kMostNodes = 0x1p53;
  if (!(nodes <= kMostNodes)) {
    throw Error(Code::kUsage, cat("--requests would keep ", nodes, " nodes busy; at most ",
                                  kMostNodes, " can be counted."));
  }
  return layout.nodes * static_cast<std::int64_t>(std::ceil(nodes / layout.nodes));
}

Split split_of(const Planner& planner, const InferOptions& o, const MemoryFit& memory,
               const ServeLayout& layout, const HardwareProfile& h, const PrefillCase& prefill) {
  Split s;
  // The longest a sequence gets, so that none has to leave; among the batches that then fit, and
  // keep to a limit on the time per token, the one with the most tokens per second.
  const int context = o.prompt + o.output / 2;
  for (const int batch : o.batches) {
    const DecodeCase c = decode_case(planner, o, memory, batch, context);
    const double longest = static_cast<double>(batch) * (o.prompt + o.output);
    if (longest * memory.cache_per_token > memory.free()) continue;
    if (o.tpot > 0 && c.tpot > o.tpot) continue;
    if (c.tokens_per_s > s.decode.tokens_per_s) s.decode = c;
  }
  if (s.decode.tokens_per_s <= 0) return s;
  s.prefill_per_node = prefill.tokens_per_s / layout.nodes;
  s.decode_per_node = s.decode.tokens_per_s / layout.nodes;
  const double computed = o.prompt * (1 - o.hit_rate);
  const double prefill_work = computed / s.prefill_per_node;  // node seconds of a request
  const double decode_work = o.output / s.decode_per_node;
  s.prefill_per_decode = prefill_work / decode_work;
  s.per_million_request = (prefill_work + decode_work) * h.node_hour() / 3600 / o.output * 1e6;
  if (o.requests_per_s > 0) {
    s.prefill_nodes = whole_layouts(prefill_work * o.requests_per_s, layout);
    s.decode_nodes = whole_layouts(decode_work * o.requests_per_s, layout);
  }
  return s;
}

}  // namespace

Arithmetic arithmetic_of(const HardwareProfile& h, model::WeightFormat weights) {
  using model::WeightFormat;
  if (weights == WeightFormat::kF32) return Arithmetic::kF32;
  if (weights == WeightFormat::kFp8 && h.device.fp8_tflops > 0) return Arithmetic::kFp8;
  return h.device.bf16_tflops > 0 ? Arithmetic::kBf16 : Arithmetic::kF32;
}

cost::DeviceRates device_rates(const HardwareProfile& h, model::WeightFormat weights) {
  cost::DeviceRates r;
  r.read = h.read_rate();
  if (r.read <= 0) lacks(h, "device.memory_gbps", "decoding is bound by it");
  const Arithmetic arithmetic = arithmetic_of(h, weights);
  r.products = h.product_rate(arithmetic);
  r.attention = h.attention_rate();
  r.curve = curve_of(h.pass_rates, weights);
  if (r.curve.empty()) r.curve = curve_of(h.rates, weights);
  r.expert_curve = curve_of(h.expert_rates, weights);
  r.attention_curve = curve_of(h.rates.rows, h.rates.attention_gflops);
  if (r.products <= 0 && r.curve.empty()) {
    lacks(h, cat("device.", name(arithmetic), "_tflops"),
          "products with such weights are computed in it");
  }
  if (r.attention <= 0) lacks(h, "device.bf16_tflops or f32_tflops", "attention is computed in it");
  r.pass_seconds = 1e-6 * h.overhead.pass_us;
  r.layer_seconds = 1e-6 * h.overhead.layer_us;
  return r;
}

InferPlan plan_infer(const Decoder& d, const HardwareProfile& h, const InferOptions& o) {
  check(o, d);
  InferPlan plan;
  plan.model = d.name;
  plan.hardware = h.name;
  plan.arithmetic = name(arithmetic_of(h, o.weights));
  plan.layout = choose_layout(d, h, o);
  plan.memory = memory_fit(d, h, o, plan.layout);
  const Planner planner(d, h, o, plan.layout);
  for (const int context : o.contexts) {
    for (const int batch : o.batches) {
      plan.decode.push_back(decode_case(planner, o, plan.memory, batch, context));
    }
  }
  if (o.tpot > 0) plan.tpot_choices = choose_by_tpot(plan.decode, o.tpot);
  plan.prefill = planner.prefill(o.prompt);
  if (d.experts.layers > 0 && plan.layout.devices > 1) {
    plan.bound = planner.bound();
    if (plan.layout.devices > d.experts.experts) {
      plan.notes.push_back(cat("there are more devices (", plan.layout.devices, ") than experts (",
                               d.experts.experts, "): some hold copies"));
    }
  }
  const Split split = split_of(planner, o, plan.memory, plan.layout, h, plan.prefill);
  if (split.decode.tokens_per_s > 0) {
    plan.split = split;
  } else {
    plan.notes.push_back(
        cat("no batch fits", o.tpot > 0 ? " within the limit on the time per token" : "", " with ",
            o.prompt, " + ", o.output, " tokens, so prefill and decoding are not sized"));
  }
  if (cost::shares_mtp_tables(d)) {
    plan.notes.push_back(
        "the MTP layer's embedding and head are taken as equal to the model's, so that they are "
        "held once");
  }
  if (h.node_hour() <= 0) {
    plan.notes.push_back(
        "the profile has no price (price.device_hour or price.node_hour), so no cost is known");
  }
  if (h.achieved.memory <= 0 && h.rates.rows.empty()) {
    plan.notes.push_back(
        "the profile does not say which share of its peaks is reached: times are lower bounds");
  }
  return plan;
}

}  // namespace cachalot::plan
