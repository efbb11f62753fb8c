// cachalot plan experts: counted loads to a placement of experts, with the imbalance before and
// after.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/error.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cost/expert_placement.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::string loads;
  int replicas = 0;
  int groups = 1;
  int nodes = 1;
  int devices = 1;
};

// [[loads of a layer's experts], ...], or one layer alone.
std::vector<std::vector<double>> read_loads(const std::string& path) {
  constexpr std::uint64_t kMostBytes = std::uint64_t{64} << 20;
  const auto wrong = [&](const std::string& what) {
    return Error(Code::kFormat, cat(path, ": ", what,
                                    "; a JSON list of loads, or a list of such "
                                    "lists, one per layer, is needed."));
  };
  const auto json = nlohmann::json::parse(read_file(path, kMostBytes), nullptr, false);
  if (!json.is_array() || json.empty()) throw wrong("not a JSON list with something in it");
  std::vector<std::vector<double>> layers;
  const auto add = [&](const nlohmann::json& list) {
    std::vector<double> load;
    for (const auto& x : list) {
      if (!x.is_number()) throw wrong("a load that is no number");
      load.push_back(x.get<double>());
    }
    layers.push_back(std::move(load));
  };
  if (json.front().is_array()) {
    for (const auto& list : json) {
      if (!list.is_array()) throw wrong("layers and loads are mixed");
      add(list);
      const std::size_t first = layers.front().size(), here = layers.back().size();
      if (here != first) {
        throw wrong(cat("layer ", layers.size() - 1, " has ", here, " loads, but layer 0 has ",
                        first, "; all layers have the same experts"));
      }
    }
  } else {
    add(json);
  }
  return layers;
}

// Experts in the order of their numbers; null where they do not divide by the devices.
Json imbalance_in_order(const std::vector<double>& load, int devices) {
  const int experts = static_cast<int>(load.size());
  if (experts % devices != 0) return nullptr;
  return cost::imbalance(cost::place_in_order(experts, devices), load, devices);
}

// Null where one of the layers has none.
Json mean_of(const Json& layers, const char* key) {
  double sum = 0;
  for (const Json& layer : layers) {
    if (layer[key].is_null()) return nullptr;
    sum += layer[key].get<double>();
  }
  return sum / static_cast<double>(layers.size());
}

void run(const Options& o, const Globals& globals) {
  Json layers = Json::array();
  const auto loads = read_loads(o.loads);
  bool hierarchical = false;
  for (const std::vector<double>& load : loads) {
    const int experts = static_cast<int>(load.size());
    const cost::PlacementShape shape{experts, o.replicas > 0 ? o.replicas : experts, o.groups,
                                     o.nodes, o.devices};
    const cost::Placement placed = [&] {
      try {
        return cost::place_experts(load, shape);
      } catch (const Error& e) {
        throw Error(e.code(), cat(o.loads, ": layer ", layers.size(), ": ", e.what()));
      }
    }();
    hierarchical = placed.hierarchical;
    layers.push_back({{"expert_of_slot", placed.expert_of},
                      {"slots_of_expert", placed.slots_of},
                      {"imbalance_before", imbalance_in_order(load, o.devices)},
                      {"imbalance", cost::imbalance(placed, load, o.devices)}});
  }
  const Json before = mean_of(layers, "imbalance_before"), after = mean_of(layers, "imbalance");
  if (globals.json) {
    print_json({{"policy", hierarchical ? "hierarchical" : "global"},
                {"imbalance_before", before},
                {"imbalance", after},
                {"layers", layers}});
    return;
  }
  print_line(fmt::format("{} placement of {} layers on {} devices",
                         hierarchical ? "hierarchical" : "global", loads.size(), o.devices));
  print_line(fmt::format(
      "busiest device over the mean: {:.3f}, in order {}", after.get<double>(),
      before.is_null() ? "does not divide" : fmt::format("{:.3f}", before.get<double>())));
  for (std::size_t i = 0; i < layers.size(); ++i) {
    print_line(fmt::format("layer {}: {}", i, layers[i]["expert_of_slot"].dump()));
  }
}

}  // namespace

void add_plan_experts(CLI::App& plan, Globals& globals) {
  CLI::App* command =
      add_command(plan, globals, "experts",
                  "Places experts on devices by their loads (the published balancer)");
  auto o = std::make_shared<Options>();
  const auto count = CLI::Range(1, 1 << 20);
  command->add_option("loads", o->loads, "JSON: loads of the experts, one list per layer")
      ->required()
      ->type_name("FILE");
  command->add_option("--replicas", o->replicas, "Slots of all devices together; 0: one per expert")
      ->check(CLI::Range(0, 1 << 20))
      ->type_name("N");
  command
      ->add_option("--groups", o->groups,
                   "Groups of experts; where they can be dealt out to the nodes, each stays on one")
      ->check(count)
      ->type_name("N");
  command->add_option("--nodes", o->nodes, "Nodes")->check(count)->type_name("N");
  command->add_option("--devices", o->devices, "Devices of all nodes")
      ->check(count)
      ->type_name("N");
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
