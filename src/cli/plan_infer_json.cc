#include "cli/plan_infer_report.h"

namespace cachalot::cli {

namespace {

using plan::DecodeCase;
using plan::InferPlan;

Json time_json(const cost::PassTime& t, double communication) {
  return {{"dense_seconds", t.dense},
          {"expert_seconds", t.experts},
          {"attention_seconds", t.attention},
          {"overhead_seconds", t.overhead},
          {"memory_bound_seconds", t.memory},
          {"compute_bound_seconds", t.compute},
          {"communication_seconds", communication}};
}

Json to_json(const DecodeCase& c) {
  return {{"batch", c.batch},
          {"context", c.context},
          {"fits", c.fits},
          {"bytes_too_many", c.fits ? 0.0 : c.over},
          {"step_seconds", c.step},
          {"tokens_per_step", c.tokens_per_step},
          {"tpot_seconds", c.tpot},
          {"tokens_per_s", c.tokens_per_s},
          {"limit", cost::name(c.limit)},
          {"two_micro_batches", c.overlapped},
          {"mtp_gain", c.mtp_gain},
          {"cost_per_million_tokens", money_json(c.per_million)},
          {"parts", time_json(c.time, c.communication)}};
}

// Null where there is no limit.
Json tpot_limit_json(const InferReport& r) {
  if (r.options.tpot <= 0) return nullptr;
  Json contexts = Json::array();
  for (const plan::TpotChoice& choice : r.plan.tpot_choices) {
    Json one = {{"context", choice.context}, {"within", choice.within},
                {"batch", nullptr},          {"tpot_seconds", nullptr},
                {"tokens_per_s", nullptr},   {"seconds_under_limit", nullptr}};
    if (choice.decode) {
      one["batch"] = choice.decode->batch;
      one["tpot_seconds"] = choice.decode->tpot;
      one["tokens_per_s"] = choice.decode->tokens_per_s;
      one["seconds_under_limit"] = r.options.tpot - choice.decode->tpot;
    }
    contexts.push_back(std::move(one));
  }
  return {{"seconds", r.options.tpot}, {"contexts", contexts}};
}

}  // namespace

Json to_json(const InferReport& r) {
  const InferPlan& p = r.plan;
  Json cases = Json::array();
  for (const DecodeCase& c : p.decode) cases.push_back(to_json(c));
  Json out = {{"model", p.model},
              {"hardware", p.hardware},
              {"arithmetic", p.arithmetic},
              {"layout",
               {{"nodes", p.layout.nodes},
                {"devices", p.layout.devices},
                {"tensor", p.layout.tensor},
                {"experts_per_device", p.layout.experts_per_device}}},
              {"memory",
               {{"dense_bytes", p.memory.dense},
                {"expert_bytes", p.memory.experts},
                {"available_bytes", p.memory.available},
                {"free_bytes", p.memory.free()},
                {"cache_bytes_per_token", p.memory.cache_per_token}}},
              {"prefill",
               {{"prompt", p.prefill.prompt},
                {"ttft_seconds", p.prefill.ttft},
                {"tokens_per_s", p.prefill.tokens_per_s},
                {"limit", cost::name(p.prefill.limit)},
                {"cost_per_million_tokens", money_json(p.prefill.per_million)},
                {"parts", time_json(p.prefill.time, p.prefill.communication)}}},
              {"decode", cases},
              {"tpot_limit", tpot_limit_json(r)}};
  if (p.bound) {
    out["expert_bound"] = {{"tokens", p.bound->tokens},
                           {"destinations", p.bound->destinations},
                           {"bytes_per_s", p.bound->rate},
                           {"stage_seconds", p.bound->stage},
                           {"tpot_seconds", p.bound->tpot},
                           {"achieved_bytes_per_s", p.bound->achieved_rate},
                           {"achieved_tpot_seconds", p.bound->achieved_tpot}};
  }
  if (p.split) {
    out["split"] = {{"batch", p.split->decode.batch},
                    {"context", p.split->decode.context},
                    {"tpot_seconds", p.split->decode.tpot},
                    {"prefill_tokens_per_s_and_node", p.split->prefill_per_node},
                    {"decode_tokens_per_s_and_node", p.split->decode_per_node},
                    {"prefill_nodes_per_decode_node", p.split->prefill_per_decode},
                    {"cost_per_million_output_tokens", money_json(p.split->per_million_request)},
                    {"prefill_nodes", p.split->prefill_nodes},
                    {"decode_nodes", p.split->decode_nodes}};
  }
  out["currency"] = r.hardware.price.currency;
  out["notes"] = p.notes;
  return out;
}

}  // namespace cachalot::cli
