// What a profile's single ranges cannot say: figures that contradict each other, or that nobody
// vouches for.
#include <algorithm>
#include <functional>
#include <utility>

#include "base/checker.h"
#include "plan/hardware.h"

namespace cachalot::plan {

namespace {

bool is_figure(const Field& field) {
  const FieldValue value = value_of(field);
  if (const auto* x = std::get_if<double>(&value.value)) return *x != 0;
  if (const auto* list = std::get_if<std::vector<FieldValue>>(&value.value)) return !list->empty();
  return false;  // names, counts
}

// A section with a measured or published figure says where it comes from.
void check_sources(const HardwareProfile& profile, const Checker& check) {
  HardwareProfile copy = profile;
  const auto fields = fields_of(copy);
  const auto section = [](const Field& field) {
    return field.path.substr(0, std::min(field.path.find('.'), field.path.size()));
  };
  for (const Field& source : fields) {
    if (!source.path.ends_with(".source")) continue;
    if (!std::get<std::string>(value_of(source).value).empty()) continue;
    for (const Field& field : fields) {
      check.need(
          section(field) != section(source) || !is_figure(field), field.path, " is given, but ",
          source.path,
          " is empty; every figure needs its source (a data sheet, a paper, a measurement, or "
          "\"assumed: ...\")");
    }
  }
}

void check_list(const Checker& check, const std::string& key, const std::vector<double>& list,
                const std::string& of, const std::vector<double>& steps) {
  check.need(list.empty() || list.size() == steps.size(), key, " has ", list.size(), " figures, ",
             of, " has ", steps.size(), "; each needs one");
  for (const double x : list) check.need(x > 0, key, " has a figure that is 0; leave it out");
}

void check_rising(const Checker& check, const std::string& key, const std::vector<double>& list) {
  check.need(std::adjacent_find(list.begin(), list.end(), std::greater_equal<>()) == list.end(),
             key, " must rise");
}

void check_rates(const Checker& check, const std::string& section, const RatesProfile& r) {
  const std::string rows = section + ".rows";
  check_rising(check, rows, r.rows);
  for (const auto& [key, list] : {std::pair{".f32_gflops", &r.f32_gflops},
                                  {".bf16_gflops", &r.bf16_gflops},
                                  {".fp8_gflops", &r.fp8_gflops},
                                  {".int8_gflops", &r.int8_gflops},
                                  {".int4_gflops", &r.int4_gflops},
                                  {".attention_gflops", &r.attention_gflops}}) {
    check_list(check, section + key, *list, rows, r.rows);
  }
}

void check_achieved(const Checker& check, const char* key, double achieved, double nominal) {
  check.need(achieved <= nominal, key, ".achieved_gbps is ", achieved, ", more than ", key,
             ".gbps = ", nominal, "; what is measured cannot exceed what the data sheet allows");
}

}  // namespace

void validate(const HardwareProfile& p, const std::string& file_name) {
  const Checker check(file_name);
  check.need(!p.name.empty(), "name is missing; say what the profile describes");
  check.need(!p.device.name.empty(), "device.name is missing; say which device computes");
  check_sources(p, check);
  check_rates(check, "rates", p.rates);
  check_rates(check, "pass_rates", p.pass_rates);
  check_rates(check, "expert_rates", p.expert_rates);
  check_rising(check, "bandwidth.threads", p.bandwidth.threads);
  check_list(check, "bandwidth.read_gbps", p.bandwidth.read_gbps, "bandwidth.threads",
             p.bandwidth.threads);
  check.need(p.bandwidth.read_gbps.size() == p.bandwidth.threads.size(),
             "bandwidth.threads has no bandwidth.read_gbps beside it");
  check_rising(check, "training.expert_ranks", p.training.expert_ranks);
  check_list(check, "training.dispatch_gbps", p.training.dispatch_gbps, "training.expert_ranks",
             p.training.expert_ranks);
  check_list(check, "training.combine_gbps", p.training.combine_gbps, "training.expert_ranks",
             p.training.expert_ranks);
  const double memory = p.device.memory_gb, reserve = p.training.reserve_gb;
  check.need(memory == 0 || reserve < memory, "training.reserve_gb is ", reserve,
             ", which leaves nothing of device.memory_gb = ", memory,
             " for a model: lower it by more than ", reserve - memory);
  check_achieved(check, "link", p.link.achieved_gbps, p.link.gbps);
  check_achieved(check, "network", p.network.achieved_gbps, p.network.gbps);
  check.need(
      p.network.gbps == 0 || p.network.nics_per_node > 0,
      "network.gbps is given, but network.nics_per_node is 0; say how many cards a node has");
  check.need(p.network.planes == 0 || p.network.nics_per_node % p.network.planes == 0,
             "network.planes is ", p.network.planes,
             ", which does not divide nics_per_node = ", p.network.nics_per_node,
             "; each plane has as many cards of a node");
  const double all = p.price.device_hour * p.device.per_node;
  check.need(p.price.device_hour == 0 || p.price.node_hour == 0 ||
                 (p.price.node_hour >= 0.999 * all && p.price.node_hour <= 1.001 * all),
             "price.node_hour is ", p.price.node_hour, ", but ", p.device.per_node,
             " devices at price.device_hour = ", p.price.device_hour, " are ", all,
             "; give one of the two");
}

}  // namespace cachalot::plan
