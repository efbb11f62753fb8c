#include <algorithm>

#include "grammar/schema_builder.h"

namespace cachalot::grammar {

// What the schemas together ask of the item at that place.
ExprId SchemaBuilder::item(const Shape& shape, std::size_t at) {
  Conjunction value;
  for (const ArrayPart& part : shape.arrays) {
    const bool is_named = part.prefix != nullptr && at < part.prefix->size();
    const Json* schema = is_named ? &(*part.prefix)[at] : part.rest;
    if (schema != nullptr) value.add(reader_.followed(*schema));
  }
  return use(value);
}

ExprId SchemaBuilder::array(const Shape& shape) {
  if (shape.items.is_empty()) return g_.nothing();
  std::size_t named = 0;
  for (const ArrayPart& part : shape.arrays) {
    if (part.prefix != nullptr) named = std::max(named, part.prefix->size());
  }
  const int least = shape.items.least, most = shape.items.most;
  if (shape.arrays.empty() && shape.items.is_free()) return rules_.array();
  if (named == 0) return rules_.list("[", item(shape, 0), "]", least, most);

  // From the last named item to the first: what follows when so many are written.
  int written = static_cast<int>(named);
  if (most != kUnbounded) written = std::min(written, most);
  ExprId after = g_.text("");
  if (most == kUnbounded || written < most) {
    const ExprId more =
        g_.rule("further item of a list", g_.sequence({g_.text(", "), item(shape, named)}));
    after = g_.repeat(more, std::max(0, least - written),
                      most == kUnbounded ? kUnbounded : most - written);
  }
  while (written-- > 0) {
    const ExprId one = g_.sequence(
        {g_.text(written > 0 ? ", " : ""), item(shape, static_cast<std::size_t>(written)), after});
    // A rule, so that a long list does not become a deep expression.
    after = g_.rule("items of a list", written < least ? one : g_.optional(one));
  }
  return g_.sequence({g_.text("["), after, g_.text("]")});
}

}  // namespace cachalot::grammar
