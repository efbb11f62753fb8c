#include "cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace cachalot::cli {

Progress::Progress(double seconds_between_lines)
    : terminal_(::isatty(STDERR_FILENO) != 0), between_(seconds_between_lines) {}

Progress::~Progress() {
  if (open_) std::fputc('\n', stderr);
}

void Progress::clear() {
  if (open_) std::fputs("\r\033[K", stderr);
  open_ = false;
}

void Progress::show(const std::string& text, bool last) {
  const auto now = std::chrono::steady_clock::now();
  const double since = std::chrono::duration<double>(now - shown_).count();
  // A terminal needs no more than ten pictures a second.
  if (any_ && !last && since < (terminal_ ? 0.1 : between_)) return;
  any_ = true;
  shown_ = now;
  if (terminal_) {
    std::fprintf(stderr, "\r\033[K%s%s", text.c_str(), last ? "\n" : "");
    open_ = !last;
  } else {
    std::fprintf(stderr, "%s\n", text.c_str());
  }
  std::fflush(stderr);
}

void Progress::message(const std::string& text) {
  clear();
  std::fprintf(stderr, "%s\n", text.c_str());
  std::fflush(stderr);
}

std::string bar(double done, double total, int width) {
  const double share = total > 0 ? std::clamp(done / total, 0.0, 1.0) : 0;
  const auto full = static_cast<std::size_t>(share * width);
  std::string text(static_cast<std::size_t>(width), ' ');
  std::fill_n(text.begin(), full, '=');
  if (full < text.size()) text[full] = '>';
  return "[" + text + "]";
}

std::string clock_text(double seconds) {
  const auto s = static_cast<long long>(std::isfinite(seconds) ? std::max(0.0, seconds) : 0.0);
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

}  // namespace cachalot::cli
