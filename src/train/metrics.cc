#include "train/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/fields_text.h"

namespace cachalot::train {

namespace {

[[noreturn]] void fail(const char* what, const std::filesystem::path& path, int error) {
  throw Error(Code::kIo, cat("cannot ", what, " ", path.string(), ": ",
                             std::generic_category().message(error), "."));
}

std::string json_number(double value) {
  return std::isfinite(value) ? field_text({value}) : std::string("null");
}

nlohmann::json parsed(const std::string& line) {
  return nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
}

// -1: not a line of this file.
std::int64_t step_of(const nlohmann::json& json) {
  if (!json.is_object()) return -1;
  const auto step = json.find("step");
  if (step == json.end() || !step->is_number_unsigned()) return -1;
  const auto value = step->get<std::uint64_t>();
  return value > static_cast<std::uint64_t>(INT64_MAX) ? -1 : static_cast<std::int64_t>(value);
}

}  // namespace

MetricsLine::MetricsLine(std::int64_t step) : text_("{\"step\": " + std::to_string(step)) {}

void MetricsLine::key(std::string_view key) {
  text_ += ", " + field_text({std::string(key)}) + ": ";
}
MetricsLine& MetricsLine::add(std::string_view name, double value) {
  key(name);
  text_ += json_number(value);
  return *this;
}
MetricsLine& MetricsLine::add(std::string_view name, std::int64_t value) {
  key(name);
  text_ += std::to_string(value);
  return *this;
}
MetricsLine& MetricsLine::add(std::string_view name, std::string_view text) {
  key(name);
  text_ += field_text({std::string(text)});
  return *this;
}
MetricsLine& MetricsLine::add(std::string_view name, std::span<const double> values) {
  key(name);
  text_ += "[";
  for (std::size_t i = 0; i < values.size(); ++i) {
    text_ += (i == 0 ? "" : ", ") + json_number(values[i]);
  }
  text_ += "]";
  return *this;
}

MetricsFile::MetricsFile(std::filesystem::path path, std::int64_t last_step)
    : path_(std::move(path)), last_step_(last_step) {
  keep_lines(last_step);
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd_ < 0) fail("open", path_, errno);
}

MetricsFile::~MetricsFile() {
  if (fd_ >= 0) ::close(fd_);
}

// Streams, since a long run's file is long; replaces it only where something goes.
void MetricsFile::keep_lines(std::int64_t last_step) {
  std::ifstream in(path_, std::ios::binary);
  if (!in) {
    std::error_code error;
    if (std::filesystem::exists(path_, error)) fail("read", path_, EACCES);
    return;
  }
  AtomicFile kept(path_);
  std::string line;
  while (std::getline(in, line)) {
    const bool whole = !in.eof();  // the last character was a newline
    const nlohmann::json json = whole ? parsed(line) : nlohmann::json();
    const std::int64_t step = step_of(json);
    if (step >= 0 && step <= last_step) {
      if (step == last_step) {
        for (const auto& [key, value] : json.items()) keys_of_last_step_.insert(key);
      }
      kept.write(line += '\n');
    } else {
      ++dropped_;
    }
  }
  if (in.bad()) fail("read", path_, EIO);
  if (dropped_ > 0) kept.commit();
}

bool MetricsFile::kept(std::int64_t step, const std::string& key) const {
  return step == last_step_ && keys_of_last_step_.contains(key);
}

void MetricsFile::append(const MetricsLine& line) {
  const std::string text = line.text();
  const off_t begin = ::lseek(fd_, 0, SEEK_END);
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t wrote = ::write(fd_, text.data() + done, text.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) {
      const int error = errno;
      [[maybe_unused]] const int ignored = ::ftruncate(fd_, begin);
      fail("write", path_, error);
    }
    done += static_cast<std::size_t>(wrote);
  }
}

}  // namespace cachalot::train
