// The numerics section of a recipe: the report's choices, each of them a switch.
#include <optional>

#include "train/recipe.h"

namespace cachalot::train {

namespace {

using nn::Keep;
using Auto = NumericsRecipe::Auto;

bool resolved(Auto choice, bool automatic) {
  return choice == Auto::kAuto ? automatic : choice == Auto::kOn;
}

void auto_field(FieldVisitor& f, std::string_view name, Auto& value, std::string_view help) {
  f(name, value, {{"auto", Auto::kAuto}, {"on", Auto::kOn}, {"off", Auto::kOff}}, help);
}

}  // namespace

void NumericsRecipe::fields(FieldVisitor& f) {
  f("scale", scale,
    {{"pow2", numeric::ScaleKind::kPow2},
     {"plain", numeric::ScaleKind::kPlain},
     {"official", numeric::ScaleKind::kOfficial},
     {"official_ue8m0", numeric::ScaleKind::kOfficialUe8m0}},
    "scales of FP8 tiles: powers of two, or amax / 448");
  const auto tile = [&](std::string_view name, ScaleTile& value, std::string_view help) {
    f(name, value,
      {{"1x128", ScaleTile::kRow}, {"128x128", ScaleTile::kBlock}, {"tensor", ScaleTile::kTensor}},
      help);
  };
  tile("activation_tile", activation_tile, "what shares one scale in FP8 activations");
  tile("gradient_tile", gradient_tile, "what shares one scale in FP8 gradients");
  f("weight_tile", weight_tile, {{"128x128", ScaleTile::kBlock}, {"tensor", ScaleTile::kTensor}},
    "what shares one scale in FP8 weights");
  f("accumulator", accumulator, {{"f32", Accumulator::kFloat}, {"hopper", Accumulator::kHopper}},
    "how FP8 products are summed: in floats, or as Hopper's tensor cores do (slow)");
  f("promotion_interval", promotion_interval, 0, 1 << 20,
    "N_C with accumulator hopper: elements until promotion, a multiple of 32; 0: never");
  f("attention_output", attention_output,
    {{"auto", KeepChoice::kAuto},
     {"f32", KeepChoice::kF32},
     {"bf16", KeepChoice::kBf16},
     {"e5m6", KeepChoice::kE5m6},
     {"fp8", KeepChoice::kFp8}},
    "attention's output between forward and backward; auto: e5m6 with fp8");
  f("swiglu_input", swiglu_input,
    {{"auto", KeepChoice::kAuto},
     {"f32", KeepChoice::kF32},
     {"bf16", KeepChoice::kBf16},
     {"e5m6", KeepChoice::kE5m6},
     {"fp8", KeepChoice::kFp8}},
    "SwiGLU's inputs between forward and backward; auto: fp8 with fp8");
  auto_field(f, "recompute_norms", recompute_norms,
             "compute RMSNorm again in the backward; auto: unless f32");
  auto_field(f, "recompute_swiglu", recompute_swiglu,
             "compute SwiGLU again in the backward; auto: unless f32");
  auto_field(f, "recompute_up_projections", recompute_up_projections,
             "compute attention's up-projections again in the backward; auto: with fp8");
  f("combine", combine,
    {{"auto", CombineChoice::kAuto},
     {"f32", CombineChoice::kF32},
     {"bf16", CombineChoice::kBf16},
     {"e4m3", CombineChoice::kE4m3},
     {"e5m2", CombineChoice::kE5m2},
     {"logfmt8", CombineChoice::kLogFmt8},
     {"logfmt10", CombineChoice::kLogFmt10}},
    "what experts' results are sent in; auto: bf16 with fp8, else f32");
}

static Keep keep_of(NumericsRecipe::KeepChoice choice, Keep automatic) {
  using Choice = NumericsRecipe::KeepChoice;
  switch (choice) {
    case Choice::kAuto:
      return automatic;
    case Choice::kF32:
      return Keep::kF32;
    case Choice::kBf16:
      return Keep::kBf16;
    case Choice::kE5m6:
      return Keep::kE5m6;
    case Choice::kFp8:
      return Keep::kFp8;
  }
  return automatic;
}

static std::optional<numeric::Payload> payload_of(NumericsRecipe::CombineChoice choice) {
  using Choice = NumericsRecipe::CombineChoice;
  switch (choice) {
    case Choice::kBf16:
      return numeric::Payload::kBf16;
    case Choice::kE4m3:
      return numeric::Payload::kE4m3;
    case Choice::kE5m2:
      return numeric::Payload::kE5m2;
    case Choice::kLogFmt8:
      return numeric::Payload::kLogFmt8;
    case Choice::kLogFmt10:
      return numeric::Payload::kLogFmt10;
    case Choice::kAuto:
    case Choice::kF32:
      break;
  }
  return std::nullopt;
}

nn::Numerics Recipe::resolved_numerics() const {
  using Combine = NumericsRecipe::CombineChoice;
  const NumericsRecipe& r = numerics;
  nn::Numerics n = run.precision == RecipePrecision::kF32    ? nn::Numerics::f32()
                   : run.precision == RecipePrecision::kBf16 ? nn::Numerics::bf16()
                                                             : nn::Numerics::report_fp8();
  n.scale = r.scale;
  n.activation_tile = r.activation_tile;
  n.gradient_tile = r.gradient_tile;
  n.weight_tile = r.weight_tile;
  n.accumulation = {r.accumulator, r.promotion_interval};
  n.attention_output = keep_of(r.attention_output, n.attention_output);
  n.swiglu_input = keep_of(r.swiglu_input, n.swiglu_input);
  n.recompute_norms = resolved(r.recompute_norms, n.recompute_norms);
  n.recompute_swiglu = resolved(r.recompute_swiglu, n.recompute_swiglu);
  n.recompute_up_projections = resolved(r.recompute_up_projections, n.recompute_up_projections);
  if (r.combine != Combine::kAuto) {
    const auto payload = payload_of(r.combine);
    n.send_results = payload.has_value();
    n.combine = payload.value_or(n.combine);
  }
  return n;
}

}  // namespace cachalot::train
