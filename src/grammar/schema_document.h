// A schema's text as JSON, the places that its $refs lead to, and the words about its faults.
//
// Owns:    the JSON; places are references into it and live as long as the document.
// Threads: one caller.
// Errors:  kUsage: no UTF-8, no JSON, a name twice in one object, more than 64 levels, a $ref to
//          nothing; kUnsupported: a $ref out of the document.
// Source:  RFC 6901 (JSON pointers), RFC 3986 (their form as a fragment).
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/error.h"
#include "grammar/json_rules.h"

namespace cachalot::grammar {

class SchemaDocument {
 public:
  explicit SchemaDocument(std::string_view text);
  SchemaDocument(const SchemaDocument&) = delete;
  SchemaDocument& operator=(const SchemaDocument&) = delete;

  const Json& root() const noexcept { return root_; }
  // What the $ref of the schema `from` leads to.
  const Json& target(const Json& from, const Json& ref);
  // Throws "the schema at #/place/keyword: why". `keyword` may be empty.
  [[noreturn]] void refuse(Code code, const Json& place, std::string_view keyword,
                           const std::string& why) const;

 private:
  Json root_;
  std::map<std::string, const Json*> targets_;
};

// A piece of a stranger's text, short and printable.
std::string shown_name(std::string_view name);

}  // namespace cachalot::grammar
