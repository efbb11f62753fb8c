#include "cost/train_layout.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace cachalot::cost {

namespace {

std::string divisors_near(int of, int wanted) {
  int below = 1, above = 0;
  for (int d = 1; d <= of; ++d) {
    if (of % d != 0) continue;
    if (d <= wanted) below = d;
    if (d >= wanted && above == 0) above = d;
  }
  return above > 0 && above != below ? cat(below, " or ", above) : cat(below);
}

std::string experts_problem(const model::Config& c, const Layout& l) {
  const int group = l.data() * l.tensor;
  if (c.route.experts == 0) {
    return l.expert == 1 ? ""
                         : cat("the model has no experts to deal out to ", l.expert,
                               " devices; expert must be 1");
  }
  if (c.route.experts % l.expert != 0) {
    return cat(c.route.experts, " experts cannot be dealt out evenly to ", l.expert,
               " devices: ", c.route.experts % l.expert,
               " are left over; take expert = ", divisors_near(c.route.experts, l.expert));
  }
  if (group % l.expert != 0) {
    return cat("a pipeline rank has ", group, " devices (", l.data(), " data x ", l.tensor,
               " tensor), which are no whole groups of ", l.expert,
               " for the experts: ", group % l.expert,
               " are left over; take expert = ", divisors_near(group, l.expert),
               ", or fewer pipeline ranks");
  }
  return "";
}

std::string tensor_problem(const model::Config& c, const Layout& l) {
  if (c.num_attention_heads % l.tensor != 0) {
    return cat(c.num_attention_heads, " attention heads do not divide by tensor = ", l.tensor,
               "; take ", divisors_near(c.num_attention_heads, l.tensor));
  }
  if (l.devices_per_node % l.tensor != 0) {
    return cat("tensor = ", l.tensor, " does not fit the ", l.devices_per_node,
               " devices of a node; take ", divisors_near(l.devices_per_node, l.tensor));
  }
  return "";
}

std::string batch_problem(const Layout& l) {
  const int at_once = l.data() * l.micro_batch;
  if (l.batch % at_once != 0) {
    return cat("a batch of ", l.batch, " sequences is no multiple of ", l.data(),
               " data-parallel copies x ", l.micro_batch, " sequences = ", at_once, ": ",
               l.batch % at_once, " are left over; take a batch of ",
               l.batch / at_once > 0 ? cat(l.batch / at_once * at_once, " or ") : "",
               (l.batch / at_once + 1) * at_once);
  }
  return "";
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

std::string why_impossible(const model::Config& c, const Layout& l) {
  if (l.devices < 1 || l.pipeline < 1 || l.tensor < 1 || l.expert < 1 || l.batch < 1 ||
      l.micro_batch < 1 || l.sequence < 1 || l.devices_per_node < 1) {
    return "every count of a layout must be at least 1";
  }
  const std::int64_t grid = std::int64_t{l.pipeline} * l.tensor;
  if (l.devices % grid != 0) {
    return cat(l.devices, " devices do not divide into pipeline ", l.pipeline, " x tensor ",
               l.tensor, " = ", grid, ": ", l.devices % grid, " are left over; take ",
               l.devices < grid ? cat(grid, " devices, or a smaller pipeline")
                                : cat(l.devices / grid * grid, " devices"));
  }
  if (c.num_hidden_layers < l.stages()) {
    return cat(
        "the model has ", c.num_hidden_layers, " layers, fewer than the ", l.stages(),
        " stages of ", name(l.schedule), " on ", l.pipeline,
        " pipeline ranks: ", l.stages() - c.num_hidden_layers,
        " stages would be empty; take at most ",
        l.schedule == ScheduleKind::kDualPipeV ? c.num_hidden_layers / 2 : c.num_hidden_layers,
        " pipeline ranks");
  }
  for (const std::string& problem :
       {tensor_problem(c, l), experts_problem(c, l), batch_problem(l)}) {
    if (!problem.empty()) return problem;
  }
  return why_impossible(l.schedule, l.stages(), l.micro_batches());
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
