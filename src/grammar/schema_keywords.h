// The keywords of JSON Schema that assert something, and what each adds to a Shape. All others only
// describe: they are passed over, as the specification has it.
//
// Threads: one caller for each reading.
// Errors:  as schema_shape.h has them.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/schema_shape.h"

namespace cachalot::grammar {

// A Shape while schemas are read into it.
struct ShapeReading {
  ShapeReader& reader;
  SchemaDocument& document;
  const Conjunction& conjunction;
  Shape shape = {};
  std::vector<const Json*> open = {};  // schemas being read, the innermost last
  std::set<const Json*> read = {};

  [[noreturn]] void refuse(Code code, const Json& schema, std::string_view keyword,
                           const std::string& why) const {
    document.refuse(code, schema, keyword, why);
  }
};

struct SchemaKeyword {
  std::string_view name;
  unsigned implied;  // types that it speaks of
  // `at` is the schema, `value` the keyword's.
  void (*read)(ShapeReading& r, const Json& at, std::string_view name, const Json& value);
};

// nullptr: one that asserts nothing.
const SchemaKeyword* find_keyword(std::string_view name);

}  // namespace cachalot::grammar
