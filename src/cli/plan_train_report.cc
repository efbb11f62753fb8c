#include "cli/plan_train_report.h"

#include "cli/plan_train_rows.h"

namespace cachalot::cli {

namespace {

double mfu(const plan::TrainPlan& p, const plan::HardwareProfile& hardware, bool causal) {
  const auto best =
      hardware.device.bf16_tflops > 0 ? plan::Arithmetic::kBf16 : plan::Arithmetic::kF32;
  const double peak = hardware.peak(best);
  return peak > 0 ? p.flops_per_device(causal) / peak : 0;
}

}  // namespace

double measured_mfu(const plan::TrainPlan& p, const plan::MeasuredStep& m, bool causal) {
  if (m.step_seconds <= 0 || m.peak_tflops <= 0) return 0;
  const double flops = causal ? p.flops_per_token : p.flops_per_token_non_causal;
  return p.layout.tokens_per_step() / m.step_seconds * flops / p.layout.devices /
         (1e12 * m.peak_tflops);
}

std::vector<TrainRow> rows(const TrainReport& r, const plan::TrainPlan& p) {
  const plan::MeasuredStep m = r.beside.value_or(plan::MeasuredStep{});
  const cost::SimulatedRank& first = p.simulation.ranks.front();
  const auto same = [](const char* name, double x, double measured, const char* unit) {
    return TrainRow{name, x, x, measured, unit};
  };
  return {
      same("step", p.seconds, m.step_seconds, "s"),
      {"forward alone (F)", p.work.forward, first.work.forward, m.forward_seconds, "s"},
      {"backward alone (B, b)", p.work.backward, first.work.backward, m.backward_seconds, "s"},
      {"weight gradients (W)", p.work.weight_grad, first.work.weight_grad, m.weight_seconds, "s"},
      {"overlapped (F&B)", p.work.overlapped, first.work.overlapped, m.overlapped_seconds, "s"},
      {"bubble", p.bubble, first.idle, m.bubble_seconds, "s"},
      same("optimizer", p.optimizer, m.optimizer_seconds, "s"),
      same("tokens per day", p.tokens_per_second() * 86400 / 1e9, m.tokens_per_day / 1e9, "1e9"),
      same("causal, per device", p.flops_per_device(true) / 1e12, m.tflops_causal, "TFLOPS"),
      same("not causal", p.flops_per_device(false) / 1e12, m.tflops_non_causal, "TFLOPS"),
      same("MFU causal", 100 * mfu(p, r.hardware, true), m.mfu_causal, "%"),
      same("MFU not causal", 100 * mfu(p, r.hardware, false), m.mfu_non_causal, "%")};
}

plan::Bill bill(const TrainReport& r, const plan::TrainPlan& p) {
  if (r.device_hours <= 0) return plan::bill_for(p, r.hardware, r.tokens);
  plan::Bill b;
  b.device_hours = r.device_hours;
  b.money = r.device_hours * r.hardware.device_hour();
  b.seconds = r.device_hours * 3600 / p.layout.devices;
  b.steps = b.seconds / p.seconds;
  b.tokens = b.steps * p.layout.tokens_per_step();
  return b;
}

namespace {

Json layout_json(const cost::Layout& l) {
  return {{"devices", l.devices},
          {"pipeline", l.pipeline},
          {"tensor", l.tensor},
          {"expert", l.expert},
          {"data", l.data()},
          {"schedule", cost::name(l.schedule)},
          {"stages", l.stages()},
          {"batch", l.batch},
          {"micro_batch", l.micro_batch},
          {"micro_batches", l.micro_batches()},
          {"sequence", l.sequence},
          {"precision", cost::name(l.precision)},
          {"recompute", cost::name(l.recompute)}};
}

Json memory_json(const cost::TrainMemory& m) {
  return {{"weights", m.weights},         {"gradients", m.gradients}, {"optimizer", m.optimizer},
          {"activations", m.activations}, {"working", m.working},     {"total", m.sum()}};
}

Json stages_json(const plan::TrainPlan& p) {
  Json stages = Json::array();
  for (std::size_t s = 0; s < p.stages.size(); ++s) {
    const cost::Stage& stage = p.stages[s];
    const cost::StageTimes& t = p.times[s];
    stages.push_back({{"first_layer", stage.first_layer},
                      {"dense_layers", stage.dense_layers},
                      {"moe_layers", stage.moe_layers},
                      {"mtp_layers", stage.mtp_layers},
                      {"embedding", stage.embedding},
                      {"head", stage.head},
                      {"forward", t.forward},
                      {"input_grad", t.input_grad},
                      {"weight_grad", t.weight_grad},
                      {"overlapped_with_itself", cost::pair_seconds(t, t)}});
  }
  return stages;
}

Json kept_json(const TrainReport& r, const plan::TrainPlan& p) {
  Json out = Json::object();
  for (const bool moe : {false, true}) {
    if (moe && r.config.route.experts == 0) continue;
    Json kinds = Json::object();
    for (const cost::KeptBytes& k : cost::kept_per_token(r.config, p.layout, moe)) {
      kinds[std::string(k.kind)] = k.bytes;
    }
    out[moe ? "moe_layer" : "dense_layer"] = kinds;
  }
  return out;
}

// A share like the predicted `mfu`; null where nothing was measured.
Json measured_mfu_json(const TrainReport& r, bool causal) {
  const double share = r.beside ? measured_mfu(r.plans.front(), *r.beside, causal) : 0;
  return share > 0 ? Json(share) : Json(nullptr);
}

}  // namespace

Json to_json(const TrainReport& r) {
  const plan::TrainPlan& p = r.plans.front();
  const plan::Bill b = bill(r, p);
  Json parts = Json::object();
  for (const TrainRow& row : rows(r, p)) {
    parts[row.name] = {{"predicted", row.predicted}, {"rank_0", row.first}, {"unit", row.unit}};
    if (row.measured > 0) parts[row.name]["measured"] = row.measured;
  }
  Json traffic = Json::array();
  for (const cost::Traffic& t : p.traffic) {
    traffic.push_back({{"purpose", t.purpose},
                       {"link", t.link == cost::Link::kNetwork ? "network" : "node"},
                       {"bytes", t.bytes}});
  }
  Json others = Json::array();
  for (std::size_t i = 1; i < r.plans.size(); ++i) {
    others.push_back({{"layout", layout_json(r.plans[i].layout)},
                      {"seconds", r.plans[i].seconds},
                      {"memory", r.plans[i].memory_bytes()}});
  }
  return {{"hardware", r.hardware.name},
          {"layout", layout_json(p.layout)},
          {"batch_reason", r.batch_reason.empty() ? Json(nullptr) : Json(r.batch_reason)},
          {"step",
           {{"seconds", p.seconds},
            {"forward", p.work.forward},
            {"backward", p.work.backward},
            {"weight_grad", p.work.weight_grad},
            {"overlapped", p.work.overlapped},
            {"bubble", p.bubble},
            {"formula_bubble", p.formula_bubble},
            {"optimizer", p.optimizer}}},
          {"tokens_per_second", p.tokens_per_second()},
          {"tflops_per_device", p.flops_per_device(true) / 1e12},
          {"mfu", mfu(p, r.hardware, true)},
          {"mfu_non_causal", mfu(p, r.hardware, false)},
          {"memory", memory_json(p.memory[static_cast<std::size_t>(p.fullest_rank())])},
          {"memory_limit", plan::usable_memory(r.hardware)},
          {"kept_bytes_per_token", kept_json(r, p)},
          {"stages", stages_json(p)},
          {"traffic", traffic},
          {"bill",
           {{"tokens", b.tokens},
            {"steps", b.steps},
            {"seconds", b.seconds},
            {"device_hours", b.device_hours},
            {"money", money_json(b.money)},
            {"currency", r.hardware.price.currency}}},
          {"compared", parts},
          {"measured_mfu", measured_mfu_json(r, true)},
          {"measured_mfu_non_causal", measured_mfu_json(r, false)},
          {"other_layouts", others}};
}

}  // namespace cachalot::cli
