#include "model/config_fields.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/nearest.h"
#include "io/json_object.h"

namespace cachalot::model {

using simdjson::dom::element;

Fields::Fields(const simdjson::dom::object& object, std::string file, std::string prefix)
    : file_(std::move(file)), prefix_(std::move(prefix)) {
  for (const auto& [key, value] : object) {
    if (!fields_.emplace(std::string(key), value).second) {
      throw Error(Code::kFormat, where(key) + " is there twice.");
    }
  }
}

std::string Fields::where(std::string_view key) const {
  return cat(file_, ": ", prefix_, io::printable(key));
}

void Fields::fail(std::string_view key, const std::string& text) const {
  throw Error(Code::kConfig, cat(where(key), " ", text));
}

// The value as the file has it, cut where it is long.
static std::string shown(const element* value) {
  if (value == nullptr) return "missing";
  std::string text = simdjson::minify(*value);
  constexpr std::size_t kMax = 60;
  if (text.size() > kMax) text = text.substr(0, kMax) + "...";
  return text;
}

void Fields::wrong(std::string_view key, const std::string& needed) const {
  fail(key, cat("is ", shown(find(key)), "; ", needed, " is needed."));
}

void Fields::unsupported(std::string_view key, const std::string& needed) const {
  throw Error(Code::kUnsupported,
              cat(where(key), " is ", shown(find(key)), "; this program computes ", needed, "."));
}

const element* Fields::find(std::string_view key) const {
  if (!asked_.contains(key)) asked_.emplace(key);
  const auto found = fields_.find(key);
  return found == fields_.end() ? nullptr : &found->second;
}

std::vector<std::string> Fields::names() const {
  std::vector<std::string> all;
  for (const auto& [name, value] : fields_) all.push_back(name);
  return all;
}

bool Fields::is_written(std::string_view key) const { return find(key) != nullptr; }

bool Fields::has(std::string_view key) const {
  const element* value = find(key);
  return value != nullptr && !value->is_null();
}

std::optional<int> Fields::whole_of(const element& value) const {
  double number = 0;
  if (value.is_bool() || value.get(number) != simdjson::SUCCESS) return std::nullopt;
  if (number != std::floor(number) || std::abs(number) > std::numeric_limits<int>::max()) {
    return std::nullopt;
  }
  return static_cast<int>(number);
}

std::optional<int> Fields::whole(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  const auto number = whole_of(*find(key));
  if (!number) wrong(key, "a whole number below 2^31");
  return number;
}

std::optional<double> Fields::real(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  double number = 0;
  if (find(key)->is_bool() || find(key)->get(number) != simdjson::SUCCESS) wrong(key, "a number");
  return number;
}

std::optional<bool> Fields::boolean(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  bool value = false;
  if (find(key)->get(value) != simdjson::SUCCESS) wrong(key, "true or false");
  return value;
}

std::optional<std::string> Fields::text(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  std::string_view value;
  if (find(key)->get(value) != simdjson::SUCCESS) wrong(key, "a string");
  return std::string(value);
}

std::optional<Fields> Fields::object(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  simdjson::dom::object value;
  if (find(key)->get(value) != simdjson::SUCCESS) wrong(key, "an object");
  return Fields(value, file_, cat(prefix_, key, "."));
}

std::optional<simdjson::dom::array> Fields::list(std::string_view key) const {
  simdjson::dom::array value;
  if (!has(key) || find(key)->get(value) != simdjson::SUCCESS) return std::nullopt;
  return value;
}

void Fields::missing(std::string_view key, const std::string& advice) const {
  std::vector<std::string_view> names;
  for (const auto& [name, value] : fields_) names.push_back(name);
  const std::string near = nearest(key, names.data(), names.data() + names.size());
  fail(key, cat("is missing", advice, near.empty() ? "" : "; the nearest field there is ",
                io::printable(near), "."));
}

int Fields::required_whole(std::string_view key) const {
  if (!has(key)) missing(key, "; a whole number is needed");
  return *whole(key);
}

int Fields::whole_or_null(std::string_view key) const {
  if (!is_written(key)) missing(key, "; a whole number, or null for none, is needed");
  return whole(key).value_or(0);
}

void Fields::remark_misspelt(std::vector<std::string>& remarks) const {
  constexpr std::size_t kMostEdits = 2;
  std::vector<std::string_view> in_vain;
  for (const std::string& key : asked_) {
    if (!fields_.contains(key)) in_vain.push_back(key);
  }
  for (const auto& [key, value] : fields_) {
    if (asked_.contains(key)) continue;
    const std::string near =
        nearest_within(kMostEdits, key, in_vain.data(), in_vain.data() + in_vain.size());
    if (near.empty()) continue;
    remarks.push_back(
        cat(file_, ": unknown key \"", prefix_, io::printable(key), "\", did you mean \"", near,
            "\"? That one is absent, so its default is used; correct the spelling, or "
            "remove the key"));
  }
}

void Fields::only(std::initializer_list<std::string_view> known) const {
  for (const auto& [key, value] : fields_) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const std::string near = nearest(key, known.begin(), known.end());
    throw Error(Code::kUnsupported,
                cat(where(key), " is not a field this program knows, and it might change results",
                    near.empty() ? "" : "; the nearest known one is ", near, "."));
  }
}

}  // namespace cachalot::model
