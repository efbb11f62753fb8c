// The JSON object that a stranger sent as a request's body, and its members one at a time, each
// checked before it is used.
//
// Threads: values.
// Errors:  ApiError kUsage with the member's name: what was met (cut short, without control
//          characters) and what is needed.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "serve/api_error.h"

namespace cachalot::serve {

// Not Json: that one finds a member by looking at all of them, so that a body of many members would
// take the square of its length.
using BodyJson = nlohmann::json;

// Refuses what is not UTF-8, not JSON, not an object, lies too deep in each other, or has a member
// twice (the first or the last of them would be dropped without a word).
BodyJson parse_json_body(std::string_view body);

// `text` cut to 60 characters, without control characters.
std::string shown_text(std::string_view text);
// A value for a message: "\"hot\"", "2.5", "null", "a list of 3 values", "an object".
std::string shown(const BodyJson& value);

// "temperature is \"hot\", but it must be a number".
[[noreturn]] void refuse_value(const std::string& member, const BodyJson& met,
                               std::string_view needed);

// A whole number between `low` and `high`; one written as a float (1.0) counts where it is exact.
std::optional<std::int64_t> whole_number(const BodyJson& value, std::int64_t low,
                                         std::int64_t high) noexcept;

// The members of an object. null stands for a member that is not there.
class Members {
 public:
  // Borrows `object`.
  explicit Members(const BodyJson& object) : object_(object) {}

  const BodyJson* find(std::string_view name) const;
  bool flag(const std::string& name, bool otherwise) const;
  std::string text(const std::string& name) const;  // "" where missing
  std::optional<std::int64_t> whole(const std::string& name, std::int64_t low,
                                    std::int64_t high) const;
  // `fits` says whether a number is in the range that `needed` describes.
  template <class Fits>
  double number_where(const std::string& name, double otherwise, std::string_view needed,
                      Fits&& fits) const {
    const BodyJson* value = find(name);
    if (value == nullptr) return otherwise;
    if (!value->is_number() || !fits(value->get<double>())) refuse_value(name, *value, needed);
    return value->get<double>();
  }
  double number(const std::string& name, double otherwise, double low, double high) const;

 private:
  const BodyJson& object_;
};

}  // namespace cachalot::serve
