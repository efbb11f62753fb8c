// What one schema asks of a value, all keywords together: its own, those of what it refers to and
// of its allOf. A Conjunction is the schemas that hold at once; a ShapeReader makes its Shape.
//
// Owns:    Shape: copies of small values; all else points into the SchemaDocument.
// Threads: one caller.
// Errors:  kUsage: a keyword's value that is none; kUnsupported: one that cannot be promised.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "grammar/json_numbers.h"
#include "grammar/schema_document.h"

namespace cachalot::grammar {

// Sets of JSON's types.
enum Types : std::uint8_t {
  kNoType = 0,
  kNull = 1,
  kBoolean = 2,
  kInteger = 4,
  kFraction = 8,  // numbers that are no integers
  kNumber = kInteger | kFraction,
  kString = 16,
  kArray = 32,
  kObject = 64,
  kEveryType = 127,
};

struct Conjunction {
  std::vector<const Json*> schemas;
  // Lists of anyOf or oneOf for which one of `schemas` stands already.
  std::vector<const Json*> taken;
  void add(const Json& schema);
  bool operator==(const Conjunction&) const = default;
  auto operator<=>(const Conjunction&) const = default;
};

// Counts of characters, items or members.
struct CountRange {
  int least = 0;
  int most = kUnbounded;
  bool is_free() const { return least == 0 && most == kUnbounded; }
  bool is_empty() const { return most != kUnbounded && most < least; }
  bool has(std::size_t n) const {
    return n >= static_cast<std::size_t>(least) &&
           (most == kUnbounded || n <= static_cast<std::size_t>(most));
  }
};

// additionalProperties and items speak only of what the same schema does not name.
struct ObjectPart {
  const Json* schema = nullptr;
  const Json* properties = nullptr;  // or nullptr: no such keyword
  const Json* additional = nullptr;
  const Json* patterns = nullptr;
};
struct ArrayPart {
  const Json* schema = nullptr;
  const Json* prefix = nullptr;  // a list of schemas
  const Json* rest = nullptr;
};
// A keyword's text, and the schema that has it.
struct TextAt {
  const Json* schema = nullptr;
  std::string text = {};
};

struct Shape {
  const Json* place = nullptr;  // the first of its schemas, for messages
  unsigned types = kEveryType;
  unsigned implied = kNoType;                           // types that keywords speak of
  bool is_whole = false;                                // multipleOf 1
  std::optional<std::vector<const Json*>> values = {};  // enum, const
  const Json* values_at = nullptr;
  NumberRange range = {};
  CountRange length = {}, items = {}, members = {};
  std::vector<TextAt> patterns = {}, required = {};
  std::string format = {};
  std::vector<ObjectPart> objects = {};
  std::vector<ArrayPart> arrays = {};
  std::vector<const Json*> names = {};  // propertyNames
  // The first anyOf or oneOf that is not taken, and the schema that has it.
  const Json* choice = nullptr;
  const Json* choice_at = nullptr;
};

struct ShapeReading;

class ShapeReader {
 public:
  explicit ShapeReader(SchemaDocument& document) : document_(document) {}

  Shape read(const Conjunction& conjunction);
  // Whether `schema` comes to one of `lists` (of anyOf or oneOf) without reading anything.
  bool comes_to(const Json& schema, const std::vector<const Json*>& lists);
  // What a schema stands for that is nothing but a $ref.
  const Json& followed(const Json& schema);
  // Whether a schema has no keyword but `keyword` that says anything.
  static bool is_only(const Json& schema, std::string_view keyword);
  // Bounds what a schema may cost: sizes of conjunctions multiply.
  void spend(std::size_t work);

  // Into what was read so far; for $ref and allOf (schema_keywords.h).
  void read_schema(ShapeReading& reading, const Json& schema);

 private:
  SchemaDocument& document_;
  std::size_t spent_ = 0;
};

}  // namespace cachalot::grammar
