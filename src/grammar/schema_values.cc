#include <set>

#include "base/error.h"
#include "grammar/accepts.h"
#include "grammar/schema_builder.h"
#include "text/utf8.h"

namespace cachalot::grammar {

namespace {

unsigned type_of(const Json& value) {
  if (value.is_null()) return kNull;
  if (value.is_boolean()) return kBoolean;
  if (value.is_number()) return decimal_of(value).is_whole() ? kInteger : kFraction;
  if (value.is_string()) return kString;
  return value.is_array() ? kArray : kObject;
}

std::size_t characters(const std::string& text) {
  std::size_t n = 0;
  for (std::size_t at = 0; at < text.size(); ++n) text::next_code_point(text.data(), at);
  return n;
}

}  // namespace

// enum and const: those that all else lets through.
ExprId SchemaBuilder::values(const Shape& shape) {
  std::set<std::string> texts;
  std::vector<ExprId> parts;
  for (const Json* value : *shape.values) {
    if (!admits(shape, *value)) continue;
    const std::string text = one_line(*value);
    if (texts.insert(text).second) parts.push_back(g_.text(text));
  }
  return g_.choice(std::move(parts));
}

bool SchemaBuilder::admits(const Shape& shape, const Json& value) {
  const unsigned type = type_of(value);
  if ((shape.types & type) == 0) return false;
  if (value.is_number()) {
    return shape.range.has(decimal_of(value)) && (!shape.is_whole || type == kInteger);
  }
  if (value.is_string()) return admits_text(shape, value.get_ref<const std::string&>());
  if ((type & (kArray | kObject)) != 0 && (shape.implied & type) != 0) {
    document_.refuse(Code::kUnsupported, *shape.values_at, "",
                     "lists or objects in enum or const beside other keywords about them cannot be "
                     "checked: leave one of both out");
  }
  return true;
}

bool SchemaBuilder::admits_text(const Shape& shape, const std::string& text) {
  if (!shape.length.has(characters(text))) return false;
  for (const TextAt& at : shape.patterns) {
    constexpr std::size_t kCostOfMatching = 1000;
    reader_.spend(kCostOfMatching);
    Grammar plain;
    plain.set_root(pattern(plain, at, CharForm::kPlain));
    if (!accepts(compile(plain), text)) return false;
  }
  return true;
}

ExprId SchemaBuilder::number(const Shape& shape) {
  if ((shape.types & kFraction) == 0 || shape.is_whole) {
    return shape.range.is_free() ? rules_.integer() : add_integers(g_, shape.range);
  }
  return shape.range.is_free() ? rules_.number() : add_numbers(g_, shape.range);
}

}  // namespace cachalot::grammar
