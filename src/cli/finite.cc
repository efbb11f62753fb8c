#include "cli/finite.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>

#include "base/error.h"

namespace cachalot::cli {

std::optional<LeadingNumber> leading_number(const std::string& text) {
  const bool plus = text.starts_with('+') && !text.starts_with("+-");
  const char* const end = text.data() + text.size();
  LeadingNumber number;
  const auto [stopped, error] = std::from_chars(text.data() + (plus ? 1 : 0), end, number.value);
  if (error != std::errc() || !std::isfinite(number.value)) return std::nullopt;
  number.rest.assign(stopped, end);
  return number;
}

CLI::Validator finite_range(double least, double most) {
  const auto check = [least, most](const std::string& text) {
    const auto number = leading_number(text);
    const bool good =
        number && number->rest.empty() && number->value >= least && number->value <= most;
    return good ? std::string()
                : cat("Value ", text, " is no decimal number from ", least, " to ", most);
  };
  return {check, cat("FLOAT in [", least, " - ", most, "]")};
}

CLI::Validator seed_range() {
  const auto check = [](const std::string& text) {
    std::uint64_t seed = 0;
    const char* const end = text.data() + text.size();
    const auto [stopped, error] = std::from_chars(text.data(), end, seed);
    const bool good = error == std::errc() && stopped == end;
    return good ? std::string()
                : cat("Value ", text, " is no whole number from 0 to ",
                      std::numeric_limits<std::uint64_t>::max(), " (2^64 - 1)");
  };
  return {check, "UINT"};
}

}  // namespace cachalot::cli
