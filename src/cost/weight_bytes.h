// Bytes of a model's weights: what a pass reads of them, and what an engine holds.
//
// From sizes alone they are those of a folder that `cachalot convert` or `init` writes in a format
// unless told otherwise: projections in that format, but beside int4 those to the latents in bf16;
// the output head in 8 bits beside int8 and int4; kv_b_proj multiplied out, since absorbed
// attention reads it along both directions (model/weights.h); embedding, router and eh_proj in bf16
// (f32 in f32); vectors held as floats.
//
// Threads: pure functions.
// Errors:  none; the model has been validated.
#pragma once

#include "cost/decoder.h"
#include "model/weight_format.h"
#include "model/weights.h"

namespace cachalot::cost {

// As a loaded model multiplies them, codes and scales.
struct WeightBytes {
  double dense = 0;   // of every pass: all but routed experts, head and embedding
  double expert = 0;  // one routed expert, mean over the layers that have some
  int moe_layers = 0;
  double head = 0;
  double mtp_dense = 0;  // of the MTP layer, its head apart
  double mtp_head = 0;
};
WeightBytes weight_bytes(const model::Model& model);
WeightBytes weight_bytes(const Decoder& d, model::WeightFormat format);

// Bytes of one projection weight in `format`, its share of the scales included.
double bytes_per_weight(model::WeightFormat format) noexcept;

// What an engine holds in the memory of a device, or of a host: the main model and the MTP layers.
// Their copies of embedding and head are taken as equal to the main ones, as published folders have
// them and this program writes them, and are then held once (only tied models hold theirs).
// `packed`: a host that lays bf16 out as products read it (LoadOptions::kPacked, at a level that
// packs pairs) has kv_b_proj a second time, head by head. Padding at the ends of rows is not
// counted.
double held_bytes(const Decoder& d, model::WeightFormat format, bool packed = false);
// Whether MTP layers are counted without tables of their own: there are some, and the head is a
// table of its own (not the embedding).
bool shares_mtp_tables(const Decoder& d);

}  // namespace cachalot::cost
