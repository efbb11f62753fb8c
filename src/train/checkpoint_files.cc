#include "train/checkpoint_files.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/fields_text.h"

namespace cachalot::train {

namespace fs = std::filesystem;

static constexpr std::string_view kStepPrefix = "step-";
static constexpr int kChecksumsFormat = 1;

std::string step_folder(std::int64_t step) { return cat(kStepPrefix, step); }

std::vector<std::int64_t> list_steps(const fs::path& checkpoints) {
  std::vector<std::int64_t> steps;
  checked("list", checkpoints, [&](std::error_code& error) {
    for (fs::directory_iterator it(checkpoints, error), end; !error && it != end;
         it.increment(error)) {
      const std::string name = it->path().filename().string();
      std::int64_t step = 0;
      const char* last = name.data() + name.size();
      if (!name.starts_with(kStepPrefix)) continue;
      const auto parsed = std::from_chars(name.data() + kStepPrefix.size(), last, step);
      // "step-007" is nobody's: each step has one name.
      if (parsed.ec == std::errc() && parsed.ptr == last && step_folder(step) == name) {
        steps.push_back(step);
      }
    }
  });
  std::sort(steps.begin(), steps.end());
  return steps;
}

void clean_leftovers(const fs::path& checkpoints) {
  std::vector<fs::path> leftovers;
  checked("list", checkpoints, [&](std::error_code& error) {
    for (fs::directory_iterator it(checkpoints, error), end; !error && it != end;
         it.increment(error)) {
      if (it->path().filename().string().starts_with(kTemporaryPrefix)) {
        leftovers.push_back(it->path());
      }
    }
  });
  for (const fs::path& path : leftovers) {
    checked("remove", path, [&](std::error_code& error) { fs::remove_all(path, error); });
  }
}

std::string to_json(const Checksums& checksums) {
  nlohmann::json files = nlohmann::json::object();
  for (const auto& [name, sum] : checksums) {
    files[name] = {{"bytes", sum.bytes}, {"xxh3_128", sum.xxh3_128}};
  }
  const nlohmann::json all = {{"format", kChecksumsFormat}, {"files", files}};
  return all.dump(1);  // ends with its bracket, so that a cut always shows
}

static bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\0", 2)) == std::string::npos;
}

// A file of the checkpoint, or of a folder in it: nothing that leads out of it.
static bool is_inside(const std::string& name) {
  const std::size_t slash = name.find('/');
  if (slash == std::string::npos) return is_plain_name(name);
  return is_plain_name(name.substr(0, slash)) && is_plain_name(name.substr(slash + 1));
}

Checksums read_checksums(const fs::path& file) {
  constexpr std::uint64_t kMostBytes = 16 << 20;
  const std::string text = read_file(file, kMostBytes);
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto refuse = [&](const std::string& what) {
    throw Error(Code::kFormat, cat(file.filename().string(), ": ", what));
  };
  if (!json.is_object()) refuse("not a JSON object");
  const auto format = json.find("format"), files = json.find("files");
  if (format == json.end() || !format->is_number_integer() || *format != kChecksumsFormat) {
    refuse(cat("'format' is not ", kChecksumsFormat));
  }
  if (files == json.end() || !files->is_object()) refuse("'files' is not an object");
  Checksums checksums;
  for (const auto& [name, entry] : files->items()) {
    if (!is_inside(name)) refuse(cat("'", printable(name), "' is not a file name"));
    const bool good = entry.is_object() && entry.contains("bytes") && entry.contains("xxh3_128") &&
                      entry["bytes"].is_number_unsigned() && entry["xxh3_128"].is_string();
    if (!good) refuse(cat("the entry of ", printable(name), " lacks bytes or xxh3_128"));
    checksums[name] = {entry["bytes"].get<std::uint64_t>(), entry["xxh3_128"].get<std::string>()};
  }
  return checksums;
}

}  // namespace cachalot::train
