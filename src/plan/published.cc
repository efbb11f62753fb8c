#include "plan/published.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>

#include "base/error.h"
#include "cost/decoder.h"
#include "cost/expert_traffic.h"
#include "cost/schedule_simulate.h"

namespace cachalot::plan {

namespace {

using cost::Decoder;

constexpr const char* kReport = "V3 report";
constexpr const char* kCache = "'Insights' table 1";
constexpr const char* kWork = "'Insights' table 2";
constexpr const char* kSpeed = "'Insights' table 4";
constexpr const char* kBound = "'Insights' 2.3.2";
constexpr const char* kReadme = "README of the weights";

// "12.34" with so many decimals.
std::string fixed(double x, int decimals) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", decimals, x);
  return text;
}

double billions(std::int64_t n) { return 1e-9 * static_cast<double>(n); }

std::int64_t part(const Decoder& d, const std::string& name) {
  for (const cost::Part& p : d.parameters.parts) {
    if (p.name == name) return p.total;
  }
  return 0;
}

void sizes(std::vector<Claim>& out) {
  const Decoder v3 = cost::load_decoder("deepseek-v3");
  const cost::Parameters& p = v3.parameters;
  const std::int64_t embedding = part(v3, "embedding");
  out.push_back({"V3, parameters, 1e9", kReport, 671, 1, billions(p.total), ""});
  out.push_back(
      {"V3, activated, 1e9", kReport, 37, 1, billions(p.active - embedding),
       cat("without the input embedding, a lookup; with it ", fixed(billions(p.active), 3))});
  const std::string both = cat("with both ", fixed(billions(p.active), 3), ", with the head alone ",
                               fixed(billions(p.active - embedding), 3));
  out.push_back(
      {"V3, activated with embedding and head, 1e9", kReadme, 36.7, 0.1, billions(p.active), both});
  out.push_back({"V3, MTP layer, 1e9", kReadme, 11.5, 0.1, billions(p.mtp.total),
                 "attention, 257 experts, router, eh_proj and norms, counted one by one"});
  out.push_back({"V3, MTP layer, activated, 1e9", kReadme, 2.4, 0.1, billions(p.mtp.active),
                 "nine experts, attention, eh_proj, and the shared embedding and head"});
  const Decoder v2 = cost::load_decoder("deepseek-v2");
  out.push_back({"V2, parameters, 1e9", "V2 report", 236, 1, billions(v2.parameters.total), ""});
  out.push_back({"V2, activated, 1e9", "V2 report", 21, 1, billions(v2.parameters.active), ""});
  const Decoder lite = cost::load_decoder("deepseek-v2-lite");
  out.push_back({"V2-Lite, parameters, 1e9", "V2 report, appendix B", 15.7, 0.1,
                 billions(lite.parameters.total), ""});
}

void cache_bytes(std::vector<Claim>& out) {
  const auto bytes = [](const char* name) {
    return static_cast<double>(cost::cache_bytes_per_token(cost::load_decoder(name)));
  };
  const double v3 = bytes("deepseek-v3"), qwen = bytes("qwen2.5-72b");
  const double llama = bytes("llama-3.1-405b");
  const auto ratio = [&](double other) {
    return cat(other, " / ", v3, " = ", fixed(other / v3, 3));
  };
  out.push_back({"V3 (MLA), cache per token, KB", kCache, 70.272, 0.001, v3 / 1000, ""});
  out.push_back({"Qwen-2.5 72B (GQA), KB", kCache, 327.680, 0.001, qwen / 1000, ""});
  out.push_back({"LLaMA-3.1 405B (GQA), KB", kCache, 516.096, 0.001, llama / 1000, ""});
  out.push_back({"Qwen-2.5 72B over V3", kCache, 4.66, 0.01, qwen / v3, ratio(qwen)});
  out.push_back({"LLaMA-3.1 405B over V3", kCache, 7.28, 0.01, llama / v3, ratio(llama)});
}

void training_work(std::vector<Claim>& out) {
  const auto gflop = [](const Decoder& d) { return 1e-9 * cost::training_flops_per_token(d); };
  const Decoder v2 = cost::load_decoder("deepseek-v2"), v3 = cost::load_decoder("deepseek-v3");
  const Decoder qwen = cost::load_decoder("qwen2.5-72b");
  const Decoder llama = cost::load_decoder("llama-3.1-405b");
  const auto weights = [](const Decoder& d) {
    return 6e-9 * static_cast<double>(d.parameters.matmul);
  };
  const double head = 6e-9 * static_cast<double>(qwen.vocab) * qwen.hidden;
  out.push_back({"V2, GFLOP per token at 4096", kWork, 155, 1, gflop(v2), ""});
  out.push_back({"V3", kWork, 250, 1, gflop(v3), ""});
  out.push_back({"Qwen-2.5 72B", kWork, 394, 1, gflop(qwen),
                 cat("6 x weights without the head are ", fixed(weights(qwen) - head, 1),
                     " already, attention not counted")});
  const double attention = gflop(llama) - weights(llama);
  out.push_back({"LLaMA-3.1 405B", kWork, 2448, 1, gflop(llama),
                 cat("6 x weights ", fixed(weights(llama), 2), " + causal attention ",
                     fixed(attention, 2), "; with half of that ",
                     fixed(weights(llama) + attention / 2, 2), ", which is what is printed")});
}

void training_speed(std::vector<Claim>& out) {
  constexpr double kTokens = 15360.0 * 4096, kDevices = 2048, kPeak = 989;  // TFLOP/s, BF16
  const Decoder v3 = cost::load_decoder("deepseek-v3");
  struct Network {
    const char* name;
    double step, tokens_per_day, mfu, mfu_causal;
  };
  for (const Network& n : {Network{"MPFT", 19.926, 272.80, 43.73, 38.94},
                           Network{"MRFT", 19.946, 272.52, 43.68, 38.90}}) {
    const double slack = 0.0005 / n.step;       // of the step's time, printed to a millisecond
    const double day = kTokens * 86400 * 1e-9;  // 1e9 tokens per day at a step of one second
    const auto tflops = [&](bool causal) {
      return kTokens / n.step * cost::training_flops_per_token(v3, 4096, causal) / kDevices * 1e-12;
    };
    Claim per_day{cat(n.name, ", 1e9 tokens per day"),
                  kSpeed,
                  n.tokens_per_day,
                  0.01,
                  day / n.step,
                  "",
                  slack * day / n.step};
    if (fixed(per_day.computed, 2) != fixed(n.tokens_per_day, 2)) {
      const std::string step = fixed(day / n.tokens_per_day, 4);
      per_day.note = cat("from the step as printed, ", fixed(n.step, 3), " s; one of ", step,
                         " s, which is printed so too, gives ", fixed(n.tokens_per_day, 2));
    }
    out.push_back(std::move(per_day));
    out.push_back({cat(n.name, ", TFLOPS"), kSpeed, 432, 1, tflops(false), ""});
    out.push_back({cat(n.name, ", TFLOPS, causal"), kSpeed, 385, 1, tflops(true), ""});
    out.push_back({cat(n.name, ", MFU, %"), kSpeed, n.mfu, 0.01, 100 * tflops(false) / kPeak, ""});
    out.push_back({cat(n.name, ", MFU, causal, %"), kSpeed, n.mfu_causal, 0.01,
                   100 * tflops(true) / kPeak, ""});
  }
  const double days = 1e12 / (kTokens / 19.926 * 86400);
  out.push_back({"GPU hours per 1e12 tokens, thousands", "V3 report 1; table 4's step", 180, 1,
                 days * 24 * kDevices / 1000, ""});
  out.push_back(
      {"days for 1e12 tokens on 2,048 GPUs", "V3 report 1; table 4's step", 3.7, 0.1, days, ""});
}

// The bubble by DualPipe's formula, from the other parts of the same step: as many pieces of each
// kind as the schedule of 16 stages and 120 micro-batches has on its first rank.
void training_bubble(std::vector<Claim>& out) {
  const cost::Schedule schedule = cost::make_schedule(cost::ScheduleKind::kDualPipe, 16, 120);
  const auto pieces = [&](cost::Work work) {
    return static_cast<double>(
        std::count_if(schedule.ranks[0].begin(), schedule.ranks[0].end(),
                      [&](const cost::WorkItem& item) { return item.work == work; }));
  };
  const double inputs = pieces(cost::Work::kInputGrad), whole = pieces(cost::Work::kBackward);
  struct Network {
    const char* name;
    double overlapped, bubble;
  };
  for (const Network& n : {Network{"MPFT", 13.95, 2.06}, Network{"MRFT", 14.00, 2.03}}) {
    cost::StageTimes t;
    t.forward = 1.13 / pieces(cost::Work::kForward);
    t.weight_grad = 0.48 / pieces(cost::Work::kWeightGrad);
    t.input_grad = (1.99 - whole * t.weight_grad) / (whole + inputs);
    t.forward_paired = n.overlapped / pieces(cost::Work::kOverlapped);
    t.backward_paired = 0;
    const double bubble = cost::published_bubble(schedule.kind, schedule.stages, t);
    out.push_back(
        {cat(n.name, ", bubble, s"), kSpeed, n.bubble, 0.01, bubble,
         cat("DualPipe's (16/2 - 1) (F&B + B - 3 W) with the F&B = ",
             fixed(1e3 * t.forward_paired, 1), ", B = ", fixed(1e3 * t.backward(), 1),
             " and W = ", fixed(1e3 * t.weight_grad, 1),
             " ms of the table's own parts; why twice as much was measured is not published")});
  }
}

void decoding_bound(std::vector<Claim>& out) {
  // 32 tokens of a device, nine destinations, a hidden state of "7K".
  constexpr double kTokens = 32, kDestinations = 9, kHidden = 7000;
  const cost::ExpertMessage message;
  const Decoder v3 = cost::load_decoder("deepseek-v3");
  const auto stage = [&](double width, double rate) {
    return cost::all_to_all_seconds(kTokens, kDestinations, width, message, rate);
  };
  const auto token = [&](double width, double rate) {
    return cost::bound_per_output_token(kTokens, kDestinations, width, v3.layers, message, rate);
  };
  constexpr double kInfiniBand = 50e9, kNvLink = 900e9;
  const double real = v3.hidden;
  out.push_back({"all-to-alls of a layer, 400G InfiniBand, us", kBound, 120.96, 0.01,
                 1e6 * stage(kHidden, kInfiniBand),
                 cat("with the hidden size ", real,
                     " instead of 7K: ", fixed(1e6 * stage(real, kInfiniBand), 2),
                     "; at 40 GB/s: ", fixed(1e6 * stage(real, 40e9), 1))});
  out.push_back({"time per output token, ms", kBound, 14.76, 0.01,
                 1e3 * token(kHidden, kInfiniBand),
                 cat("with ", real, ": ", fixed(1e3 * token(real, kInfiniBand), 2))});
  out.push_back({"tokens per second", kBound, 67, 1, 1 / token(kHidden, kInfiniBand),
                 cat("1 / ", fixed(1e3 * token(kHidden, kInfiniBand), 2), " ms = ",
                     fixed(1 / token(kHidden, kInfiniBand), 2), ": cut off, not rounded")});
  out.push_back({"all-to-alls of a layer, GB200 NVL72, us", kBound, 6.72, 0.01,
                 1e6 * stage(kHidden, kNvLink), ""});
  out.push_back({"time per output token, ms", kBound, 0.82, 0.01, 1e3 * token(kHidden, kNvLink),
                 "72 GPUs cannot hold one of 256 experts each: bandwidth alone"});
  out.push_back({"tokens per second, about", kBound, 1200, 100, 1 / token(kHidden, kNvLink), ""});
}

}  // namespace

bool Claim::agrees() const noexcept {
  const long long want = std::llround(printed / unit);
  return std::llround((computed - slack) / unit) <= want &&
         want <= std::llround((computed + slack) / unit);
}

std::vector<Claim> published_claims() {
  std::vector<Claim> claims;
  sizes(claims);
  cache_bytes(claims);
  training_work(claims);
  training_speed(claims);
  training_bubble(claims);
  decoding_bound(claims);
  return claims;
}

}  // namespace cachalot::plan
