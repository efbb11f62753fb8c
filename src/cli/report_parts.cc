#include "cli/report_parts.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/output.h"

namespace cachalot::cli {

namespace {

std::string value_text(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_float()) return fmt::format("{:g}", value.get<double>());
  if (!value.is_array()) return value.dump();
  std::string list;
  for (const Json& item : value) list += (list.empty() ? "" : ", ") + value_text(item);
  return list;
}

bool known(const Json& value) {
  if (value.is_number()) return value.get<double>() != 0;
  return value.is_boolean() ? value.get<bool>() : !value.empty() && value != "";
}

}  // namespace

report::Facts model_facts(const cost::Decoder& d) {
  const cost::Parameters& p = d.parameters;
  report::Facts facts{
      {{"model", d.name},
       {"parameters", fmt::format("{}, {} active", human_count(static_cast<double>(p.total)),
                                  human_count(static_cast<double>(p.active)))},
       {"shape", fmt::format("{} layers of {}, {} attention with {} heads", d.layers, d.hidden,
                             cost::name(d.attention), d.heads)},
       {"cache", fmt::format("{} bytes per token in BF16", cost::cache_bytes_per_token(d))}}};
  if (d.experts.layers > 0) {
    facts.items.emplace_back(
        "experts", fmt::format("{} of {} for a token and {} shared, in {} layers", d.experts.topk,
                               d.experts.experts, d.experts.shared, d.experts.layers));
  }
  facts.items.emplace_back("MTP layers", fmt::format("{}", d.mtp_layers));
  return facts;
}

report::Table hardware_table(const plan::HardwareProfile& hardware) {
  // The profile lists its own fields, so a new one shows up here by itself.
  const Json all = Json::parse(plan::to_json(hardware));
  report::Table table{fmt::format("Hardware: {}", hardware.name),
                      {{"group", false}, {"figures", false}, {"source", false}},
                      {}};
  for (const auto& [group, fields] : all.items()) {
    if (!fields.is_object()) continue;
    std::string figures;
    for (const auto& [key, value] : fields.items()) {
      if (key == "source" || !known(value)) continue;
      figures += fmt::format("{}{} {}", figures.empty() ? "" : "; ", key, value_text(value));
    }
    const std::string source = fields.value("source", "");
    if (!source.empty() && !figures.empty()) table.rows.push_back({group, figures, source});
  }
  if (!hardware.notes.empty()) table.rows.push_back({"notes", hardware.notes});
  return table;
}

}  // namespace cachalot::cli
