// TOML as a flat list of assignments, for declared fields (base/fields.h) to take.
//
// Threads: plain functions.
// Errors:  kFormat (not TOML, with file, line and column; not UTF-8; nested absurdly deep), kUsage
//          for what TOML has and no field can hold: dates, tables inside lists, dots inside keys.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/fields.h"

namespace cachalot::io {

struct TomlEntry {
  std::string path;  // "optimizer.lr"
  FieldValue value;
  int line = 0;
};

// In the order of the file. `file_name` is for messages.
std::vector<TomlEntry> parse_toml(std::string_view text, const std::string& file_name);

}  // namespace cachalot::io
