#include "cli/output.h"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/error.h"

namespace cachalot::cli {

namespace {

[[noreturn]] void fail(int error) {
  if (error == EPIPE) throw ClosedPipe{};
  throw Error(Code::kIo, cat("standard output: ", std::strerror(error),
                             ". The result is incomplete; give it a place with room to write to."));
}

}  // namespace

void print(std::string_view text) {
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) fail(errno);
}

void print_line(std::string_view text) {
  print(text);
  print("\n");
}

void print_json(const Json& value) {
  print_line(value.dump(-1, ' ', false, Json::error_handler_t::replace));
}

void flush_output() {
  errno = 0;
  if (std::fflush(stdout) != 0) fail(errno);
}

Json money_json(double amount) { return amount > 0 ? Json(amount) : Json(nullptr); }

std::string human_bytes(double bytes) {
  static constexpr std::array kUnits{"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.2f} {}", bytes, kUnits[unit]);
}

std::string human_count(double count) {
  static constexpr std::array kUnits{"", " K", " M", " B", " T"};
  std::size_t unit = 0;
  while (count >= 1000 && unit + 1 < kUnits.size()) {
    count /= 1000;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f}", count) : fmt::format("{:.3f}{}", count, kUnits[unit]);
}

}  // namespace cachalot::cli
