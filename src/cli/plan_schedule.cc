// cachalot plan schedule: a pipeline schedule, simulated, beside its published formula.
#include <fmt/format.h>

#include <cmath>
#include <string>

#include "base/atomic_file.h"
#include "base/error.h"
#include "cli/command.h"
#include "cli/finite.h"
#include "cli/output.h"
#include "cli/output_file.h"
#include "cost/schedule_simulate.h"
#include "plan/schedule_picture.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::string kind = "dualpipe";
  int stages = 8;
  int micro_batches = 20;
  double forward = 1, input_grad = 1, weight_grad = 1;
  double pair = 0;  // 0: the three together
  double send = 0;
  std::string svg;
};

cost::StageTimes times_of(const Options& o) {
  cost::StageTimes t{o.forward, o.input_grad, o.weight_grad};
  const double pair = o.pair > 0 ? o.pair : o.forward + o.input_grad + o.weight_grad;
  t.forward_paired = pair / 2;
  t.backward_paired = pair / 2;
  return t;
}

Json piece_json(const cost::Piece& p) {
  return {{"micro_batch", p.micro_batch}, {"stage", p.stage}};
}

Json items_json(const cost::Schedule& s, const cost::Simulation& sim, std::size_t rank) {
  Json items = Json::array();
  for (std::size_t i = 0; i < s.ranks[rank].size(); ++i) {
    const cost::WorkItem& item = s.ranks[rank][i];
    Json entry = {{"work", cost::symbol(item.work)}};
    entry.update(piece_json(item.piece));
    if (item.work == cost::Work::kOverlapped) entry["backward"] = piece_json(item.backward);
    entry["begin"] = sim.ranks[rank].when[i].begin;
    entry["end"] = sim.ranks[rank].when[i].end;
    items.push_back(std::move(entry));
  }
  return items;
}

// A formula that comes to less than nothing was not made for such times: those of ZB1P and both
// DualPipes take it that weights' gradients (W) fit into the waits that they are to fill.
bool formula_holds(const cost::Schedule& s, const cost::StageTimes& t) {
  return cost::published_bubble(s.kind, s.stages, t) >= 0;
}

Json to_json(const cost::Schedule& s, const cost::Simulation& sim, const cost::StageTimes& t) {
  Json ranks = Json::array();
  for (std::size_t r = 0; r < s.ranks.size(); ++r) {
    const cost::SimulatedRank& rank = sim.ranks[r];
    ranks.push_back({{"rank", r},
                     {"stages", s.stages_of(static_cast<int>(r))},
                     {"busy", rank.work.sum()},
                     {"idle", rank.idle},
                     {"peak_activations", rank.peak_pieces},
                     {"items", items_json(s, sim, r)}});
  }
  return {{"kind", cost::name(s.kind)},
          {"stages", s.stages},
          {"micro_batches", s.micro_batches},
          {"time", sim.seconds},
          {"bubble", sim.mean_idle()},
          {"published_bubble",
           formula_holds(s, t) ? Json(cost::published_bubble(s.kind, s.stages, t)) : Json()},
          {"peak_activations", sim.peak_pieces()},
          {"published_activations", cost::published_pieces(s.kind, s.stages)},
          {"copies_of_weights", cost::copies_of_weights(s.kind)},
          {"ranks", ranks}};
}

std::string formula_text(const cost::Schedule& s, const cost::StageTimes& t) {
  if (!formula_holds(s, t)) {
    return fmt::format("the published formula does not hold for {}",
                       s.kind == cost::ScheduleKind::kZb1p ? "W > F + b" : "2 W > F&B + b");
  }
  return fmt::format("the published formula gives {:.6g}",
                     std::abs(cost::published_bubble(s.kind, s.stages, t)));  // 0 may be -0
}

void print_table(const cost::Schedule& s, const cost::Simulation& sim, const cost::StageTimes& t) {
  print_line(fmt::format("{}: {} stages on {} ranks, {} micro-batches", cost::name(s.kind),
                         s.stages, s.ranks.size(), s.micro_batches));
  print_line(fmt::format("{:<6} {:<8} {:>6} {:>10} {:>10} {:>12}", "rank", "stages", "items",
                         "busy", "idle", "activations"));
  for (std::size_t r = 0; r < s.ranks.size(); ++r) {
    const auto stages = s.stages_of(static_cast<int>(r));
    print_line(fmt::format("{:<6} {:<8} {:>6} {:>10.4g} {:>10.4g} {:>12}", r,
                           fmt::format("{}", fmt::join(stages, ",")), s.ranks[r].size(),
                           sim.ranks[r].work.sum(), sim.ranks[r].idle, sim.ranks[r].peak_pieces));
  }
  print_line("");
  print_line(fmt::format("time               {:.6g}", sim.seconds));
  print_line(fmt::format("bubble per rank    {:.6g}; {}", sim.mean_idle(), formula_text(s, t)));
  print_line(
      fmt::format("activations        {} at most, of one stage and micro-batch; published {}",
                  sim.peak_pieces(), cost::published_pieces(s.kind, s.stages)));
  print_line(fmt::format("weights            {} x", cost::copies_of_weights(s.kind)));
}

void run(const Options& o, const Globals& globals) {
  check_output_file("--svg", o.svg);
  const cost::Schedule schedule =
      cost::make_schedule(cost::parse_schedule_kind(o.kind), o.stages, o.micro_batches);
  cost::check(schedule);
  const cost::StageTimes times = times_of(o);
  const cost::Simulation sim = cost::simulate(schedule, std::span(&times, 1), o.send);
  if (!o.svg.empty()) write_file_atomically(o.svg, plan::schedule_svg(schedule, sim));
  if (globals.json) {
    print_json(to_json(schedule, sim, times));
  } else {
    print_table(schedule, sim, times);
  }
}

}  // namespace

void add_plan_schedule(CLI::App& plan, Globals& globals) {
  CLI::App* command = add_command(plan, globals, "schedule",
                                  "A pipeline schedule: order, bubble and activations per rank");
  auto o = std::make_shared<Options>();
  command->add_option("--kind", o->kind, "1f1b, zb1p, dualpipe or dualpipev")->type_name("KIND");
  command->add_option("--stages", o->stages, "Pieces the model is cut into")
      ->check(CLI::Range(1, 1 << 16))
      ->type_name("N");
  command
      ->add_option("--micro-batches", o->micro_batches, "Micro-batches of a step, both directions")
      ->check(CLI::Range(1, 1 << 16))
      ->type_name("N");
  const auto time = finite_range(0, 1e9);
  command->add_option("--forward", o->forward, "Time of a forward, F")->check(time)->type_name("T");
  command->add_option("--input-grad", o->input_grad, "Of the gradient of the input, b")
      ->check(time)
      ->type_name("T");
  command->add_option("--weight-grad", o->weight_grad, "Of the weights' gradient, W")
      ->check(time)
      ->type_name("T");
  command
      ->add_option("--overlapped", o->pair,
                   "Of an overlapped forward and backward, F&B; 0: F + b + W")
      ->check(time)
      ->type_name("T");
  command->add_option("--send", o->send, "From one rank to the next")->check(time)->type_name("T");
  add_output_file(*command, "--svg", o->svg, "Write a picture of it");
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
