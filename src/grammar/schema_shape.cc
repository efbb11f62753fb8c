#include "grammar/schema_shape.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "grammar/schema_keywords.h"

namespace cachalot::grammar {

namespace {

constexpr std::size_t kMostWork = 5'000'000;
constexpr std::size_t kMostRefs = 500;  // that lead to each other

template <typename T>
bool contains(const std::vector<T>& list, const T& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

}  // namespace

void Conjunction::add(const Json& schema) {
  if (!contains(schemas, &schema)) schemas.push_back(&schema);
}

void ShapeReader::spend(std::size_t work) {
  spent_ += work;
  if (spent_ > kMostWork) {
    throw Error(Code::kUsage,
                "the schema is too large: what holds together in it (allOf, anyOf, long lists in "
                "enum) multiplies; make it flatter");
  }
}

bool ShapeReader::is_only(const Json& schema, std::string_view keyword) {
  if (!schema.is_object()) return false;
  for (const auto& member : schema.items()) {
    if (member.key() != keyword && find_keyword(member.key()) != nullptr) return false;
  }
  return keyword.empty() || schema.contains(keyword);
}

const Json& ShapeReader::followed(const Json& schema) {
  const Json* at = &schema;
  for (std::size_t i = 0; is_only(*at, "$ref"); ++i) {
    spend(1 + at->size());
    if (i > kMostRefs) {
      document_.refuse(Code::kUsage, schema, "$ref",
                       "it leads only to itself, or through too many others: let it lead to a "
                       "schema");
    }
    at = &document_.target(*at, *at->find("$ref"));
  }
  return *at;
}

bool ShapeReader::comes_to(const Json& schema, const std::vector<const Json*>& lists) {
  std::vector<const Json*> open{&schema};
  std::set<const Json*> seen;
  while (!open.empty()) {
    const Json& at = *open.back();
    open.pop_back();
    if (!at.is_object() || !seen.insert(&at).second) continue;
    spend(at.size());
    if (const auto ref = at.find("$ref"); ref != at.end()) {
      open.push_back(&document_.target(at, *ref));
    }
    for (const char* keyword : {"allOf", "anyOf", "oneOf"}) {
      const auto list = at.find(keyword);
      if (list == at.end() || !list->is_array()) continue;
      if (contains<const Json*>(lists, &*list)) return true;
      for (const Json& part : *list) open.push_back(&part);
    }
  }
  return false;
}

Shape ShapeReader::read(const Conjunction& conjunction) {
  ShapeReading reading{*this, document_, conjunction};
  if (!conjunction.schemas.empty()) reading.shape.place = conjunction.schemas.front();
  for (const Json* schema : conjunction.schemas) read_schema(reading, *schema);
  return std::move(reading.shape);
}

void ShapeReader::read_schema(ShapeReading& reading, const Json& schema) {
  if (schema.is_boolean()) {
    if (schema == Json(false)) reading.shape.types = kNoType;
    return;
  }
  if (!schema.is_object()) {
    document_.refuse(Code::kUsage, schema, "", "a schema is an object, true or false");
  }
  if (contains<const Json*>(reading.open, &schema) || reading.open.size() > kMostRefs) {
    document_.refuse(Code::kUsage, schema, "",
                     "its $ref or allOf leads only to itself, or through too many others: let it "
                     "lead to a schema");
  }
  if (!reading.read.insert(&schema).second) return;
  spend(1 + schema.size());
  reading.open.push_back(&schema);
  for (const auto& member : schema.items()) {
    const SchemaKeyword* keyword = find_keyword(member.key());
    if (keyword == nullptr) continue;
    reading.shape.implied |= keyword->implied;
    keyword->read(reading, schema, keyword->name, member.value());
  }
  reading.open.pop_back();
}

}  // namespace cachalot::grammar
