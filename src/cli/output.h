// Standard output for results. Progress and messages go to stderr (spdlog).
//
// Errors: kIo where the bytes could not be written (a full disk behind a redirection); a reader
//         that went away (`cachalot ... | head`) throws ClosedPipe, which main takes as an end, not
//         as a failure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace cachalot::cli {

using Json = nlohmann::ordered_json;

struct ClosedPipe {};
// Calls print(); false where the reader went away. What a command writes beside is not his to end.
template <class Print>
bool printed(Print&& print) {
  try {
    print();
    return true;
  } catch (const ClosedPipe&) {
    return false;
  }
}

void print(std::string_view text);  // as it is, no newline added
void print_line(std::string_view text);
void print_json(const Json& value);  // one line; bytes that are not UTF-8 become U+FFFD
void flush_output();

// An amount of money: null where it is 0, for then no price is known.
Json money_json(double amount);

std::string human_bytes(double bytes);  // "1.25 GiB"
std::string human_count(double count);  // "671.03 B"

}  // namespace cachalot::cli
