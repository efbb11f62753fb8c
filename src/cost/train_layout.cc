#include "cost/train_layout.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "cost/divisors.h"

namespace cachalot::cost {

namespace {

std::int64_t stage_count(const Layout& l) noexcept {
  return l.schedule == ScheduleKind::kDualPipeV ? 2 * std::int64_t{l.pipeline} : l.pipeline;
}

std::int64_t devices_of_a_pipeline(const Layout& l) noexcept {
  return std::int64_t{l.pipeline} * l.tensor;
}

// Sequences that all data-parallel copies take at once.
std::int64_t sequences_at_once(const Layout& l) noexcept {
  return std::int64_t{l.data()} * l.micro_batch;
}

// Devices that share a layer's experts out between them.
int devices_of_a_rank(const Layout& l) noexcept { return l.data() * l.tensor; }

bool experts_fit(const model::Config& c, const Layout& l) noexcept {
  if (c.route.experts == 0) return l.expert == 1;
  return c.route.experts % l.expert == 0 && devices_of_a_rank(l) % l.expert == 0;
}

std::string devices_text(const Layout& l) {
  const std::int64_t pipeline = devices_of_a_pipeline(l);
  return cat(l.devices, " devices do not divide into pipeline ", l.pipeline, " x tensor ", l.tensor,
             " = ", pipeline, ": ", l.devices % pipeline, " are left over; take ",
             l.devices < pipeline ? cat(pipeline, " devices, or a smaller pipeline")
                                  : cat(l.devices / pipeline * pipeline, " devices"));
}

std::string stages_text(const model::Config& c, const Layout& l) {
  const std::int64_t stages = stage_count(l);
  return cat("the model has ", c.num_hidden_layers, " layers, fewer than the ", stages,
             " stages of ", name(l.schedule), " on ", l.pipeline,
             " pipeline ranks: ", stages - c.num_hidden_layers,
             " stages would be empty; take at most ",
             l.schedule == ScheduleKind::kDualPipeV ? c.num_hidden_layers / 2 : c.num_hidden_layers,
             " pipeline ranks");
}

std::string tensor_text(const model::Config& c, const Layout& l) {
  if (c.num_attention_heads % l.tensor != 0) {
    return cat(c.num_attention_heads, " attention heads do not divide by tp = ", l.tensor,
               "; take ", divisors_near(c.num_attention_heads, l.tensor));
  }
  return cat("tp = ", l.tensor, " does not fit the ", l.devices_per_node,
             " devices of a node; take ", divisors_near(l.devices_per_node, l.tensor));
}

std::string experts_text(const model::Config& c, const Layout& l) {
  if (c.route.experts == 0) {
    return cat("the model has no experts to deal out to ", l.expert, " devices; ep must be 1");
  }
  if (c.route.experts % l.expert != 0) {
    return cat(c.route.experts, " experts cannot be dealt out evenly to ", l.expert,
               " devices: ", c.route.experts % l.expert,
               " are left over; take ep = ", divisors_near(c.route.experts, l.expert));
  }
  const int group = devices_of_a_rank(l);
  return cat(
      "a pipeline rank has ", group, " devices (", l.data(), " data x ", l.tensor,
      " tensor), which are no whole groups of ", l.expert, " for the experts: ", group % l.expert,
      " are left over; take ep = ", divisors_near(group, l.expert), ", or fewer pipeline ranks");
}

std::string batch_text(const Layout& l) {
  const std::int64_t at_once = sequences_at_once(l), whole = l.batch / at_once * at_once;
  return cat("a batch of ", l.batch, " sequences is no multiple of ", l.data(),
             " data-parallel copies x ", l.micro_batch, " sequences = ", at_once, ": ",
             l.batch - whole, " are left over; take a batch of ",
             whole > 0 ? cat(whole, " or ") : "", whole + at_once,
             l.micro_batch > 1 ? ", or a smaller micro-batch" : "");
}

// The layers of each rank, so that the slowest is as fast as can be: each layer goes to the rank
// that has least to do.
std::vector<int> fill(int layers, std::vector<double> load, double unit) {
  std::vector<int> count(load.size(), 0);
  for (int i = 0; i < layers; ++i) {
    const auto least =
        static_cast<std::size_t>(std::min_element(load.begin(), load.end()) - load.begin());
    ++count[least];
    load[least] += unit;
  }
  return count;
}

// Layers of each stage of a rank pair: of `layers`, so many in the front stage that both halves,
// with what they hold besides, come nearest to each other.
int front_share(int layers, double front, double back, double unit) {
  const double even = (layers * unit + back - front) / (2 * unit);
  return static_cast<int>(std::lround(std::clamp(even, 0.0, static_cast<double>(layers))));
}

std::vector<int> layers_per_stage(int layers, int stages, bool paired, const StageUnits& u) {
  const auto n = static_cast<std::size_t>(stages);
  std::vector<double> fixed(n, 0.0);
  fixed.front() += u.embedding;
  fixed.back() += u.head;
  if (!paired) return fill(layers, fixed, u.layer);
  const std::size_t ranks = n / 2;
  std::vector<double> load(ranks);
  for (std::size_t r = 0; r < ranks; ++r) load[r] = fixed[r] + fixed[n - 1 - r];
  const std::vector<int> pair = fill(layers, load, u.layer);
  std::vector<int> out(n);
  for (std::size_t r = 0; r < ranks; ++r) {
    out[r] = front_share(pair[r], fixed[r], fixed[n - 1 - r], u.layer);
    out[n - 1 - r] = pair[r] - out[r];
  }
  return out;
}

}  // namespace

std::string_view name(TrainPrecision precision) noexcept {
  switch (precision) {
    case TrainPrecision::kF32:
      return "f32";
    case TrainPrecision::kBf16:
      return "bf16";
    case TrainPrecision::kFp8:
      return "fp8";
  }
  return "";
}

std::string_view name(Recompute recompute) noexcept {
  switch (recompute) {
    case Recompute::kNone:
      return "none";
    case Recompute::kSelective:
      return "selective";
    case Recompute::kFull:
      return "full";
  }
  return "";
}

LayoutProblem first_problem(const model::Config& c, const Layout& l) noexcept {
  if (l.devices < 1 || l.pipeline < 1 || l.tensor < 1 || l.expert < 1 || l.batch < 1 ||
      l.micro_batch < 1 || l.sequence < 1 || l.devices_per_node < 1) {
    return LayoutProblem::kCounts;
  }
  if (l.devices % devices_of_a_pipeline(l) != 0) return LayoutProblem::kDevices;
  if (c.num_hidden_layers < stage_count(l)) return LayoutProblem::kStages;
  if (c.num_attention_heads % l.tensor != 0 || l.devices_per_node % l.tensor != 0) {
    return LayoutProblem::kTensor;
  }
  if (!experts_fit(c, l)) return LayoutProblem::kExperts;
  if (l.batch % sequences_at_once(l) != 0) return LayoutProblem::kBatch;
  return is_possible(l.schedule, l.stages(), l.micro_batches()) ? LayoutProblem::kNone
                                                                : LayoutProblem::kSchedule;
}

std::string why_impossible(const model::Config& c, const Layout& l) {
  switch (first_problem(c, l)) {
    case LayoutProblem::kCounts:
      return "every count of a layout must be at least 1";
    case LayoutProblem::kDevices:
      return devices_text(l);
    case LayoutProblem::kStages:
      return stages_text(c, l);
    case LayoutProblem::kTensor:
      return tensor_text(c, l);
    case LayoutProblem::kExperts:
      return experts_text(c, l);
    case LayoutProblem::kBatch:
      return batch_text(l);
    case LayoutProblem::kSchedule:
      return why_impossible(l.schedule, l.stages(), l.micro_batches());
    case LayoutProblem::kNone:
      return "";
  }
  return "";
}

LayerKinds layer_kinds(const model::Config& c, const Stage& stage) noexcept {
  const bool moe = c.is_moe_layer(c.num_hidden_layers);
  return {stage.dense_layers + (moe ? 0 : stage.mtp_layers),
          stage.moe_layers + (moe ? stage.mtp_layers : 0)};
}

std::vector<Stage> split_stages(const model::Config& c, const Layout& l, const StageUnits& units) {
  const int stages = l.stages();
  const bool paired =
      l.schedule == ScheduleKind::kDualPipe || l.schedule == ScheduleKind::kDualPipeV;
  const auto counts = layers_per_stage(c.num_hidden_layers, stages, paired && stages > 1, units);
  std::vector<Stage> out(static_cast<std::size_t>(stages));
  int layer = 0;
  for (std::size_t s = 0; s < out.size(); ++s) {
    out[s].first_layer = layer;
    for (int i = 0; i < counts[s]; ++i, ++layer) {
      ++(c.is_moe_layer(layer) ? out[s].moe_layers : out[s].dense_layers);
    }
  }
  out.front().embedding = true;
  out.back().head = true;
  out.back().mtp_layers = c.num_nextn_predict_layers;
  return out;
}

}  // namespace cachalot::cost
