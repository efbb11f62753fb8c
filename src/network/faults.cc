#include "network/faults.h"

#include <array>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/fields_text.h"

namespace cachalot::network {

namespace {

constexpr std::array<std::string_view, 7> kParts{"plane", "leaf", "spine", "core",
                                                 "links", "nic",  "port"};

// One or many of them: "leaf" or "leafs", "link" or "links".
Part part_of(std::string_view word, std::string_view flag) {
  for (std::size_t i = 0; i < kParts.size(); ++i) {
    const std::string_view one = kParts[i] == "links" ? "link" : kParts[i];
    if (word == one || word == cat(one, "s")) return static_cast<Part>(i);
  }
  const std::string near = nearest(word, kParts.data(), kParts.data() + kParts.size());
  throw Error(Code::kUsage, cat(flag, " ", printable(word),
                                ": what can fail is plane, leaf, spine, core, links, nic and port",
                                near.empty() ? "." : cat("; did you mean `", near, "`?")));
}

Fault parse_fault(std::string_view item, std::string_view flag) {
  const std::size_t colon = item.find(':');
  Fault fault;
  fault.part = part_of(item.substr(0, colon), flag);
  if (colon == std::string_view::npos) return fault;
  std::string_view number = item.substr(colon + 1);
  if (number.ends_with('%')) {
    fault.percent = true;
    number.remove_suffix(1);
  }
  const auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), fault.amount);
  const bool whole = fault.percent || fault.amount == std::floor(fault.amount);
  const bool fits = fault.amount >= 0 && fault.amount <= (fault.percent ? 100 : 1e9);
  if (error != std::errc() || end != number.data() + number.size() || !whole || !fits) {
    throw Error(Code::kUsage,
                cat(flag, " ", printable(item),
                    ": after the colon stands a whole number or a share of 0 % to 100 %, "
                    "as in plane:1 or links:1%."));
  }
  return fault;
}

}  // namespace

std::string_view name(Part part) noexcept { return kParts[static_cast<std::size_t>(part)]; }

std::vector<Fault> parse_faults(std::string_view text, std::string_view flag) {
  std::vector<Fault> faults;
  if (text.empty() || text == "none") return faults;
  for (;;) {
    const std::size_t comma = text.find(',');
    faults.push_back(parse_fault(text.substr(0, comma), flag));
    if (comma == std::string_view::npos) return faults;
    text.remove_prefix(comma + 1);
  }
}

std::string to_string(std::span<const Fault> faults) {
  std::string text;
  for (const Fault& fault : faults) {
    text +=
        cat(text.empty() ? "" : ",", name(fault.part), ":", fault.amount, fault.percent ? "%" : "");
  }
  return text.empty() ? "none" : text;
}

}  // namespace cachalot::network
