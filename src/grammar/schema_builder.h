// A schema's shapes become rules of a grammar.
//
// Every set of schemas that holds at once is one rule, made once: a recursive schema is a recursive
// rule, and what is referred to often is there once. Rules wait in a queue, so that no depth of a
// schema is a depth of the stack.
//
// Owns:    the document and what is known of it; borrows the grammar.
// Threads: one caller.
// Errors:  as json_schema.h has them.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "grammar/regex.h"
#include "grammar/schema_shape.h"

namespace cachalot::grammar {

class SchemaBuilder {
 public:
  SchemaBuilder(Grammar& grammar, std::string_view schema)
      : g_(grammar), rules_(grammar), document_(schema), reader_(document_) {}

  ExprId build();  // once

 private:
  struct Waiting {
    RuleId rule{};
    Conjunction conjunction;
  };
  struct Member {
    std::string name;
    Conjunction value;
    bool is_required = false;
  };

  ExprId use(const Conjunction& conjunction);
  ExprId body(const Conjunction& conjunction);
  ExprId shaped(const Conjunction& conjunction);
  ExprId alternatives(const Conjunction& conjunction, const Shape& shape);
  ExprId of_types(const Shape& shape);
  [[noreturn]] void refuse(const Shape& shape, std::string_view keyword, const std::string& why);

  // schema_values.cc
  ExprId values(const Shape& shape);
  bool admits(const Shape& shape, const Json& value);
  bool admits_text(const Shape& shape, const std::string& text);
  ExprId number(const Shape& shape);
  // schema_strings.cc
  ExprId string(const Shape& shape);
  ExprId format_text(const std::string& name, const std::string& pattern);
  ExprId pattern_string(const Shape& shape);
  ExprId pattern(Grammar& grammar, const TextAt& pattern, CharForm form);
  // schema_objects.cc
  ExprId object(const Shape& shape);
  ExprId object_of_patterns(const Shape& shape, const Json& patterns);
  std::vector<Member> members_of(const Shape& shape);
  bool others_of(const Shape& shape, Conjunction& value);
  bool settle_most(const Shape& shape, std::vector<Member>& members, int& most_others);
  bool settle_least(const Shape& shape, std::vector<Member>& members, bool has_others,
                    bool& may_be_empty);
  ExprId other_name(const Shape& shape, const std::vector<Member>& members);
  ExprId chain(const std::vector<Member>& members, std::optional<ExprId> other, int most_others,
               bool may_be_empty);
  // schema_arrays.cc
  ExprId array(const Shape& shape);
  ExprId item(const Shape& shape, std::size_t at);

  Grammar& g_;
  JsonRules rules_;
  SchemaDocument document_;
  ShapeReader reader_;
  std::map<Conjunction, RuleId> known_;
  std::map<std::string, RuleId> formats_;
  std::vector<Waiting> waiting_;
  const Json string_schema_ = {{"type", "string"}};
};

// A regular expression of a whole text; empty for formats that are not held to: they only describe.
const std::string& format_pattern(const std::string& format);

// A string of none of `names` between its quotes, without escapes. Of a long name its beginning
// counts: no string that begins like it is let through.
ExprId add_other_names(Grammar& grammar, JsonRules& rules, const std::vector<std::string>& names);

}  // namespace cachalot::grammar
