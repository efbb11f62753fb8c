// Numbers on the command line: decimal and finite. CLI::Range lets NaN through, which is
// neither below nor above any bound, and CLI11 reads hexadecimal numbers as well.
//
// Threads: pure functions.
// Errors:  the validator's text is one of a wrong usage.
#pragma once

#include <CLI/App.hpp>
#include <optional>
#include <string>

namespace cachalot::cli {

// For the check() of a flag that takes a number from `least` to `most`.
CLI::Validator finite_range(double least, double most);

// For the check() of --seed, any 64 bits: CLI11 takes what is below 0 or too large for another one.
CLI::Validator seed_range();

// What a text begins with, as in "1.5h"; none where that is no such number.
struct LeadingNumber {
  double value = 0;
  std::string rest;
};
std::optional<LeadingNumber> leading_number(const std::string& text);

}  // namespace cachalot::cli
