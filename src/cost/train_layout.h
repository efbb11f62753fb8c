// How the devices share a training step: pipeline, tensor, expert and data parallelism, and what
// each stage of the pipeline then holds.
//
// A pipeline rank consists of `data * tensor` devices. Tensor groups split every matrix but the
// experts', data groups split the sequences, and the experts of a layer are dealt out to groups of
// `expert` devices of one pipeline rank, whole node by whole node.
//
// Threads: values; pure functions.
// Errors:  kConfig for layouts that cannot be; the message says by how much, and what to change.
// Paper:   V3 report 3.2: PP16, EP64, ZeRO-1, no TP. How 61 layers lie in 16 stages is not
//          published; here stages are filled so that ranks take equal time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cost/schedule.h"
#include "model/config.h"

namespace cachalot::cost {

enum class TrainPrecision : std::uint8_t { kF32, kBf16, kFp8 };
// What is computed again in the backward pass instead of being kept: nothing; the norms, the
// projections out of the latents and SwiGLU (V3 report 3.2.3); or all but a layer's input.
enum class Recompute : std::uint8_t { kNone, kSelective, kFull };
std::string_view name(TrainPrecision precision) noexcept;
std::string_view name(Recompute recompute) noexcept;

struct Layout {
  int devices = 1;
  int devices_per_node = 1;
  int pipeline = 1;  // ranks of the pipeline
  int tensor = 1;
  int expert = 1;
  ScheduleKind schedule = ScheduleKind::k1F1B;
  int batch = 1;        // sequences of a step
  int micro_batch = 1;  // sequences of a micro-batch
  int sequence = 4096;
  TrainPrecision precision = TrainPrecision::kFp8;
  Recompute recompute = Recompute::kSelective;
  bool shard_optimizer = true;  // ZeRO-1

  // These hold for layouts that can be (first_problem): elsewhere they may be 0, or no number.
  int data() const noexcept {
    return static_cast<int>(devices / (std::int64_t{pipeline} * tensor));
  }
  int stages() const noexcept {
    return schedule == ScheduleKind::kDualPipeV ? 2 * pipeline : pipeline;
  }
  int micro_batches() const noexcept {
    return static_cast<int>(batch / (std::int64_t{data()} * micro_batch));
  }
  double tokens_per_step() const noexcept { return static_cast<double>(batch) * sequence; }
  double tokens_per_micro_batch() const noexcept {
    return static_cast<double>(micro_batch) * sequence;
  }
  // Whether the devices that hold copies of a weight lie on several nodes. Those of a pipeline rank
  // lie side by side; DualPipe's second copy is on the rank that mirrors it.
  bool copies_cross_nodes() const noexcept {
    const int span = copies_of_weights(schedule) > 1 ? devices : data() * tensor;
    return span > devices_per_node;
  }
  // Nodes that one group of `expert` devices spans.
  int expert_nodes() const noexcept { return (expert + devices_per_node - 1) / devices_per_node; }
};

// What a layout fails at first, in the order in which it is looked at.
enum class LayoutProblem : std::uint8_t {
  kCounts,
  kDevices,  // no whole pipelines
  kStages,   // more than layers
  kTensor,
  kExperts,
  kBatch,
  kSchedule,
  kNone
};
LayoutProblem first_problem(const model::Config& config, const Layout& layout) noexcept;
// "" where the model can be laid out so; else what does not fit, by how much, and what would.
std::string why_impossible(const model::Config& config, const Layout& layout);

// What a stage holds.
struct Stage {
  int first_layer = 0;
  int dense_layers = 0;
  int moe_layers = 0;
  int mtp_layers = 0;
  bool embedding = false;
  bool head = false;
  int layers() const noexcept { return dense_layers + moe_layers; }
};
// Layers of a stage by their feed-forward part, its MTP layers among them.
struct LayerKinds {
  int dense = 0;
  int moe = 0;
};
LayerKinds layer_kinds(const model::Config& config, const Stage& stage) noexcept;
// Time that a part takes, in any unit.
struct StageUnits {
  double layer = 1;
  double embedding = 0;
  double head = 0;  // with the MTP layers
};
// Contiguous layers, so that no rank takes longer than need be; ranks of DualPipe have a stage from
// either end.
std::vector<Stage> split_stages(const model::Config& config, const Layout& layout,
                                const StageUnits& units);

}  // namespace cachalot::cost
