#include "grammar/json_schema.h"

#include <algorithm>

#include "base/error.h"
#include "grammar/schema_builder.h"

namespace cachalot::grammar {

namespace {

// An error that has no place yet: of a pattern, a bound or the grammar itself.
bool has_place(const Error& e) { return std::string_view(e.what()).starts_with("the schema"); }

}  // namespace

ExprId SchemaBuilder::build() {
  Conjunction root;
  root.add(reader_.followed(document_.root()));
  const ExprId start = use(root);
  while (!waiting_.empty()) {
    const Waiting next = std::move(waiting_.back());
    waiting_.pop_back();
    g_.define(next.rule, body(next.conjunction));
  }
  return start;
}

ExprId SchemaBuilder::use(const Conjunction& conjunction) {
  const auto is_free = [](const Json* schema) {
    return *schema == Json(true) || ShapeReader::is_only(*schema, "");
  };
  if (std::all_of(conjunction.schemas.begin(), conjunction.schemas.end(), is_free)) {
    return rules_.value();
  }
  reader_.spend(conjunction.schemas.size());
  const auto [known, is_new] = known_.try_emplace(conjunction);
  if (is_new) {
    known->second = g_.declare(cat("part ", known_.size(), " of the schema"));
    waiting_.push_back({known->second, conjunction});
  }
  return g_.use(known->second);
}

ExprId SchemaBuilder::body(const Conjunction& conjunction) {
  try {
    return shaped(conjunction);
  } catch (const Error& e) {
    if (has_place(e)) throw;
    document_.refuse(e.code(), *conjunction.schemas.front(), "", e.what());
  }
}

ExprId SchemaBuilder::shaped(const Conjunction& conjunction) {
  Shape shape = reader_.read(conjunction);
  if (shape.types == kNoType) return g_.nothing();
  if (shape.choice != nullptr) return alternatives(conjunction, shape);
  if (shape.values) return values(shape);
  // Keywords of one type let all others through; whoever writes them means that type.
  if (shape.types == kEveryType && shape.implied == kNoType) return rules_.value();
  if (shape.types == kEveryType) shape.types = shape.implied;
  return of_types(shape);
}

ExprId SchemaBuilder::alternatives(const Conjunction& conjunction, const Shape& shape) {
  const Json& at = *shape.choice_at;
  const bool is_alone = conjunction.schemas.size() == 1 && conjunction.schemas.front() == &at &&
                        (ShapeReader::is_only(at, "anyOf") || ShapeReader::is_only(at, "oneOf"));
  std::vector<const Json*> lists = conjunction.taken;
  lists.push_back(shape.choice);
  std::vector<ExprId> parts;
  for (const Json& schema : *shape.choice) {
    if (reader_.comes_to(schema, lists)) {
      document_.refuse(Code::kUsage, schema, "",
                       "it leads only back to the choice that it is part of: leave it out");
    }
    Conjunction part;
    if (!is_alone) {
      part.schemas = conjunction.schemas;
      part.taken = lists;
    }
    part.add(reader_.followed(schema));
    parts.push_back(use(part));
  }
  return g_.choice(std::move(parts));
}

ExprId SchemaBuilder::of_types(const Shape& shape) {
  std::vector<ExprId> parts;
  if ((shape.types & kObject) != 0) parts.push_back(object(shape));
  if ((shape.types & kArray) != 0) parts.push_back(array(shape));
  if ((shape.types & kString) != 0) parts.push_back(string(shape));
  if ((shape.types & kNumber) != 0) parts.push_back(number(shape));
  if ((shape.types & kBoolean) != 0) parts.push_back(rules_.boolean());
  if ((shape.types & kNull) != 0) parts.push_back(g_.text("null"));
  return g_.choice(std::move(parts));
}

void SchemaBuilder::refuse(const Shape& shape, std::string_view keyword, const std::string& why) {
  document_.refuse(Code::kUnsupported, *shape.place, keyword, why);
}

ExprId add_json_schema(Grammar& grammar, std::string_view schema) {
  return SchemaBuilder(grammar, schema).build();
}

}  // namespace cachalot::grammar
