// One line on stderr that is rewritten in a terminal, and an occasional line elsewhere (a log
// file).
//
// Threads: one caller.
#pragma once

#include <chrono>
#include <string>

namespace cachalot::cli {

class Progress {
 public:
  explicit Progress(double seconds_between_lines = 10);
  ~Progress();  // ends an open line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Shows `text`; where stderr is no terminal, only when some time has passed or `last` is set.
  void show(const std::string& text, bool last = false);
  // A message of its own line, above the progress.
  void message(const std::string& text);
  bool terminal() const noexcept { return terminal_; }

 private:
  void clear();
  bool terminal_;
  bool open_ = false;
  double between_;
  std::chrono::steady_clock::time_point shown_;
  bool any_ = false;
};

std::string bar(double done, double total, int width = 24);  // "[=====>      ]"
std::string clock_text(double seconds);                      // "2:07" or "1:02:07"

}  // namespace cachalot::cli
