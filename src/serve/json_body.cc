#include "serve/json_body.h"

#include <cmath>

#include "text/strict_json.h"

namespace cachalot::serve {

namespace {

[[noreturn]] void refuse_body(const std::string& why) {
  throw ApiError(Code::kUsage, "the body " + why, "");
}

class BodyCheck final : public text::StrictJsonCheck<BodyJson> {
  void refuse_twice(const std::string& name) override {
    throw ApiError(Code::kUsage,
                   cat("\"", shown_text(name), "\" is there twice: leave one of them out"),
                   shown_text(name));
  }
};

}  // namespace

BodyJson parse_json_body(std::string_view body) {
  try {
    text::require_json_text(body, "the body");
  } catch (const Error& e) {
    throw ApiError(Code::kUsage, e.what(), "");
  }
  BodyCheck check;
  if (!BodyJson::sax_parse(body, &check)) {
    refuse_body(
        cat("is not JSON: it cannot be read from byte ", check.at(), " of ", body.size(), " on"));
  }
  BodyJson json = BodyJson::parse(body, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) refuse_body(cat("is ", shown(json), ", but it must be a JSON object"));
  return json;
}

std::string shown_text(std::string_view text) { return text::shown_text(text, 60); }

std::string shown(const BodyJson& value) {
  if (value.is_string()) return cat("\"", shown_text(value.get_ref<const std::string&>()), "\"");
  if (value.is_array()) {
    return cat("a list of ", value.size(), value.size() == 1 ? " value" : " values");
  }
  if (value.is_object()) return "an object";
  return value.dump();  // a number, true, false or null
}

void refuse_value(const std::string& member, const BodyJson& met, std::string_view needed) {
  throw ApiError(Code::kUsage, cat(member, " is ", shown(met), ", but it must be ", needed),
                 member);
}

std::optional<std::int64_t> whole_number(const BodyJson& value, std::int64_t low,
                                         std::int64_t high) noexcept {
  std::int64_t number = 0;
  if (value.is_number_unsigned()) {
    const auto wide = value.get<std::uint64_t>();
    if (wide > static_cast<std::uint64_t>(INT64_MAX)) return std::nullopt;
    number = static_cast<std::int64_t>(wide);
  } else if (value.is_number_integer()) {
    number = value.get<std::int64_t>();
  } else if (value.is_number_float()) {
    // Past 2^53 a float stands for several whole numbers.
    const auto real = value.get<double>();
    if (std::abs(real) > 0x1p53 || real != std::trunc(real)) return std::nullopt;
    number = static_cast<std::int64_t>(real);
  } else {
    return std::nullopt;
  }
  if (number < low || number > high) return std::nullopt;
  return number;
}

const BodyJson* Members::find(std::string_view name) const {
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

bool Members::flag(const std::string& name, bool otherwise) const {
  const BodyJson* value = find(name);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) refuse_value(name, *value, "true or false");
  return value->get<bool>();
}

std::string Members::text(const std::string& name) const {
  const BodyJson* value = find(name);
  if (value == nullptr) return {};
  if (!value->is_string()) refuse_value(name, *value, "a string");
  return value->get<std::string>();
}

std::optional<std::int64_t> Members::whole(const std::string& name, std::int64_t low,
                                           std::int64_t high) const {
  const BodyJson* value = find(name);
  if (value == nullptr) return std::nullopt;
  const auto number = whole_number(*value, low, high);
  if (!number) refuse_value(name, *value, cat("a whole number, ", low, " to ", high));
  return number;
}

double Members::number(const std::string& name, double otherwise, double low, double high) const {
  return number_where(name, otherwise, cat("a number, ", low, " to ", high),
                      [&](double x) { return x >= low && x <= high; });
}

}  // namespace cachalot::serve
