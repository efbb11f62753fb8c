// JSON Schema to a grammar: whatever the grammar lets through is JSON that the schema accepts.
//
// The JSON is one line, as Python's json.dumps writes it: ", " between members, ": " after a name,
// no other white space. So what a schema leaves no choice about is known text, which the engine
// need not ask the model for.
//
// Taken as the API of structured outputs has it (draft 2020-12, the subset that generators use; of
// older drafts `definitions` and lists in `items`; of OpenAPI `nullable` beside `type`):
// - Objects write their `properties` in the order of the schema; one that is not `required` may be
//   left out. Without `additionalProperties` an object that names properties has no others, one
//   that names none may have any. Others, where allowed, come after those named, without escapes in
//   their names; of a declared name of 64 characters or more no other name has the beginning.
// - A name may come twice among the others, so minProperties is promised only where those required
//   suffice, or for one member. patternProperties: one pattern, and no other members.
// - A schema without `type` is of the types that its keywords speak of.
// - allOf, $ref and the keywords beside them hold together, also member by member; oneOf is taken
//   as anyOf. A $ref leads to a place in the document: a JSON pointer, no $id, no $anchor.
// - Strings take minLength, maxLength, pattern (ECMA-262 without look-around) and the formats date,
//   time, date-time, duration, uuid, email, ipv4, ipv6, hostname and uri; beside a pattern, or a
//   length that the format does not keep by itself, the format only describes. Other formats do.
// - Integers have up to 18 digits. Bounds are exact, and numbers that have them no exponent.
//   A maxLength or maxItems of more than 100,000 holds as 100,000, of more than a million as none.
// - What cannot be promised (not, uniqueItems, multipleOf, if, dependentSchemas, ...) is refused by
//   name; what only describes (title, description, default, examples, $comment, ...) or is no
//   keyword of JSON Schema is passed over.
//
// Threads: pure functions.
// Errors:  kUsage: no JSON, no schema (with the path of the fault: "#/properties/age/minimum"), or
//          one that nothing satisfies; kUnsupported: a keyword that cannot be obeyed.
// Source:  https://json-schema.org/draft/2020-12/json-schema-core and json-schema-validation;
//          https://platform.openai.com/docs/guides/structured-outputs
#pragma once

#include <string_view>

#include "grammar/grammar.h"

namespace cachalot::grammar {

ExprId add_json_schema(Grammar& grammar, std::string_view schema);
// Any JSON value; any JSON object.
ExprId add_json_value(Grammar& grammar);
ExprId add_json_object(Grammar& grammar);

}  // namespace cachalot::grammar
