// metrics.jsonl: one JSON object per line, whole lines only, so that a plot may read it while a run
// writes it.
//
// Owns:    its open file.
// Threads: one writer.
// Errors:  kIo (full disk, permission; a line that did not fit is taken back).
#pragma once

#include <cstdint>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <string_view>

namespace cachalot::train {

// Builds one line. A number that JSON cannot hold (NaN, infinity) becomes null.
class MetricsLine {
 public:
  explicit MetricsLine(std::int64_t step);  // "step" is always there
  MetricsLine& add(std::string_view key, double value);
  MetricsLine& add(std::string_view key, std::int64_t value);
  MetricsLine& add(std::string_view key, int value) {
    return add(key, static_cast<std::int64_t>(value));
  }
  MetricsLine& add(std::string_view key, std::string_view text);
  MetricsLine& add(std::string_view key, const char* text) {
    return add(key, std::string_view(text));
  }
  MetricsLine& add(std::string_view key, std::span<const double> values);
  std::string text() const { return text_ + "}\n"; }

 private:
  void key(std::string_view key);
  std::string text_;
};

class MetricsFile {
 public:
  // Creates the file, or continues it after `last_step`: lines of later steps (of a run that was
  // killed after its last checkpoint), a torn last line and lines that are not JSON objects with a
  // step go. -1: begin anew.
  MetricsFile(std::filesystem::path path, std::int64_t last_step);
  ~MetricsFile();
  MetricsFile(const MetricsFile&) = delete;
  MetricsFile& operator=(const MetricsFile&) = delete;

  void append(const MetricsLine& line);  // in the file when it returns
  std::int64_t dropped_lines() const noexcept { return dropped_; }
  // Whether the file, as it was continued, has a line of its last step with that key.
  bool kept(std::int64_t step, const std::string& key) const;

 private:
  void keep_lines(std::int64_t last_step);
  std::filesystem::path path_;
  int fd_ = -1;
  std::int64_t dropped_ = 0;
  std::int64_t last_step_ = -1;
  std::set<std::string> keys_of_last_step_;
};

}  // namespace cachalot::train
