#include "grammar/schema_keywords.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "base/error.h"

namespace cachalot::grammar {

namespace {

unsigned types_named(const std::string& name) {
  if (name == "null") return kNull;
  if (name == "boolean") return kBoolean;
  if (name == "integer") return kInteger;
  if (name == "number") return kNumber;
  if (name == "string") return kString;
  if (name == "array") return kArray;
  return name == "object" ? kObject : kNoType;
}

unsigned types_of(const ShapeReading& r, const Json& at, const Json& value) {
  const auto one = [&](const Json& name) {
    const unsigned type =
        name.is_string() ? types_named(name.get<std::string>()) : unsigned{kNoType};
    if (type == kNoType) {
      r.refuse(Code::kUsage, at, "type",
               cat(name.is_string() ? "\"" + shown_name(name.get<std::string>()) + "\"" : "this",
                   " is no type: give null, boolean, integer, number, string, array, object or a "
                   "list of them"));
    }
    return type;
  };
  unsigned types = kNoType;
  if (!value.is_array()) return one(value);
  for (const Json& name : value) types |= one(name);
  return types;
}

// As a count: never negative; a float, if it is whole.
double count_of(const ShapeReading& r, const Json& at, std::string_view keyword,
                const Json& value) {
  const double n = value.is_number() ? value.get<double>() : -1;
  if (n < 0 || n != std::floor(n)) {
    r.refuse(Code::kUsage, at, keyword, "it must be a whole number, 0 or more");
  }
  return n;
}

void raise_least(const ShapeReading& r, const Json& at, std::string_view keyword, const Json& value,
                 CountRange& range) {
  const double n = count_of(r, at, keyword, value);
  if (n > kMaxRepeat) {
    r.refuse(Code::kUnsupported, at, keyword, cat("at most ", kMaxRepeat, " can be asked for"));
  }
  range.least = std::max(range.least, static_cast<int>(n));
}

// Beyond a million no text of a model comes; what lies between is held to kMaxRepeat.
void lower_most(const ShapeReading& r, const Json& at, std::string_view keyword, const Json& value,
                CountRange& range) {
  constexpr double kNoBound = 1'000'000;
  const double n = count_of(r, at, keyword, value);
  if (n > kNoBound) return;
  const int most = static_cast<int>(std::min<double>(n, kMaxRepeat));
  range.most = range.most == kUnbounded ? most : std::min(range.most, most);
}

Bound bound_of(const ShapeReading& r, const Json& at, std::string_view keyword, const Json& value,
               bool is_open) {
  if (!value.is_number()) {
    const bool is_draft_4 = is_open && value.is_boolean();
    r.refuse(is_draft_4 ? Code::kUnsupported : Code::kUsage, at, keyword,
             is_draft_4 ? "true and false are its form in draft 4 of JSON Schema: give the bound "
                          "itself here, in place of minimum or maximum"
                        : "it must be a number");
  }
  return {decimal_of(value), is_open};
}

void keep_values(ShapeReading& r, const Json& at, const std::vector<const Json*>& values) {
  std::vector<const Json*> kept;
  for (const Json* value : values) {
    const auto is_same = [&](const Json* other) { return *other == *value; };
    if (!r.shape.values) {
      kept.push_back(value);
    } else {
      r.reader.spend(r.shape.values->size());
      if (std::any_of(r.shape.values->begin(), r.shape.values->end(), is_same)) {
        kept.push_back(value);
      }
    }
  }
  r.shape.values = std::move(kept);
  r.shape.values_at = &at;
}

ObjectPart& object_part(ShapeReading& r, const Json& at) {
  if (r.shape.objects.empty() || r.shape.objects.back().schema != &at) {
    // A schema that stands between them ($ref, allOf) may have ended in a part of its own.
    for (ObjectPart& part : r.shape.objects) {
      if (part.schema == &at) return part;
    }
    r.reader.spend(r.shape.objects.size());
    r.shape.objects.push_back({.schema = &at});
  }
  return r.shape.objects.back();
}

ArrayPart& array_part(ShapeReading& r, const Json& at) {
  for (ArrayPart& part : r.shape.arrays) {
    if (part.schema == &at) return part;
  }
  r.reader.spend(r.shape.arrays.size());
  r.shape.arrays.push_back({.schema = &at});
  return r.shape.arrays.back();
}

const Json& list_in(const ShapeReading& r, const Json& at, std::string_view keyword,
                    const Json& value, bool may_be_empty) {
  if (!value.is_array() || (value.empty() && !may_be_empty)) {
    r.refuse(Code::kUsage, at, keyword,
             may_be_empty ? "it must be a list" : "it must be a list of one or more");
  }
  return value;
}

const Json& object_in(const ShapeReading& r, const Json& at, std::string_view keyword,
                      const Json& value) {
  if (!value.is_object()) r.refuse(Code::kUsage, at, keyword, "it must be an object");
  return value;
}

std::string text_in(const ShapeReading& r, const Json& at, std::string_view keyword,
                    const Json& value) {
  if (!value.is_string()) r.refuse(Code::kUsage, at, keyword, "it must be a string");
  return value.get<std::string>();
}

bool says_nothing(const Json& value) {
  return value == Json(true) || (value.is_object() && value.empty());
}

void refuse_keyword(ShapeReading& r, const Json& at, std::string_view keyword, const Json& value) {
  if (says_nothing(value)) return;
  r.refuse(Code::kUnsupported, at, keyword, "this keyword cannot be obeyed: leave it out");
}

void read_choice(ShapeReading& r, const Json& at, std::string_view keyword, const Json& value) {
  list_in(r, at, keyword, value, false);
  const std::vector<const Json*>& taken = r.conjunction.taken;
  if (r.shape.choice != nullptr || std::find(taken.begin(), taken.end(), &value) != taken.end()) {
    return;
  }
  r.shape.choice = &value;
  r.shape.choice_at = &at;
}

constexpr SchemaKeyword kGeneralKeywords[] = {

    {"type", 0,
     [](ShapeReading& r, const Json& at, std::string_view, const Json& v) {
       unsigned types = types_of(r, at, v);
       const auto nullable = at.find("nullable");  // OpenAPI 3.0
       if (nullable != at.end() && *nullable == Json(true)) types |= kNull;
       r.shape.types &= types;
     }},
    {"enum", 0,
     [](ShapeReading& r, const Json& at, std::string_view k, const Json& v) {
       std::vector<const Json*> values;
       for (const Json& value : list_in(r, at, k, v, true)) values.push_back(&value);
       keep_values(r, at, values);
     }},
    {"const", 0,
     [](ShapeReading& r, const Json& at, std::string_view, const Json& v) {
       keep_values(r, at, {&v});
     }},
    {"$ref", 0,
     [](ShapeReading& r, const Json& at, std::string_view, const Json& v) {
       r.reader.read_schema(r, r.document.target(at, v));
     }},
    {"allOf", 0,
     [](ShapeReading& r, const Json& at, std::string_view k, const Json& v) {
       for (const Json& part : list_in(r, at, k, v, false)) r.reader.read_schema(r, part);
     }},
    {"anyOf", 0, read_choice},
    {"oneOf", 0, read_choice},
    {"not", 0,
     [](ShapeReading& r, const Json& at, std::string_view k, const Json& v) {
       if (v == Json(false)) return;
       if (says_nothing(v)) {
         r.shape.types = kNoType;
       } else {
         r.refuse(Code::kUnsupported, at, k, "what must not be cannot be obeyed: leave it out");
       }
     }},
};

constexpr SchemaKeyword kScalarKeywords[] = {
    {"minimum", kNumber,
     [](ShapeReading& r, const Json& at, std::string_view k, const Json& v) {
       r.shape.range.raise_low(bound_of(r, at, k, v, false));
     }},
    {"maximum", kNumber,
     [](ShapeReading& r, const Json& at, std::string_view k, const Json& v) {
       r.shape.range.lower_high(bound_of(r, at, k, v, false));
     }},
    {"exclusiveMinimum", kNumber,
     [](ShapeReading& r, const Json& at, std::string_view k, const Json& v) {
       r.shape.range.raise_low(bound_of(r, at, k, v, true));
     }},
    {"exclusiveMaximum", kNumber,
     [](ShapeReading& r, const Json& at, std::string_view k, const Json& v) {
       r.shape.range.lower_high(bound_of(r, at, k, v, true));
     }},
    {"multipleOf", kNumber,
     [](ShapeReading& r, const Json& at, std::string_view k, const Json& v) {
       if (!v.is_number() || v.get<double>() <= 0) {
         r.refuse(Code::kUsage, at, k, "it must be a number above 0");
       }
       if (v.get<double>() != 1) {
         r.refuse(Code::kUnsupported, at, k, "only 1 can be obeyed: leave it out");
       }
       r.shape.is_whole = true;
     }},
    {"minLength", kString,
     [](ShapeReading& r, const Json& at, std::string_view k, const Json& v) {
       raise_least(r, at, k, v, r.shape.length);
     }},
    {"maxLength", kString,
     [](ShapeReading& r, const Json& at, std::string_view k, const Json& v) {
       lower_most(r, at, k, v, r.shape.length);
     }},
    {"pattern", kString,
     [](ShapeReading& r, const Json& at, std::string_view k, const Json& v) {
       TextAt pattern{&at, text_in(r, at, k, v)};
       for (const TextAt& other : r.shape.patterns) {
         if (other.text == pattern.text) return;
       }
       r.shape.patterns.push_back(std::move(pattern));
     }},
    {"format", kString,
     [](ShapeReading& r, const Json& at, std::string_view k, const Json& v) {
       r.shape.format = text_in(r, at, k, v);
     }},
};

constexpr SchemaKeyword kObjectKeywords[] = {
    {"properties", kObject,
     [](ShapeReading& r, const Json& at, std::string_view k, const Json& v) {
       object_part(r, at).properties = &object_in(r, at, k, v);
     }},
    {"additionalProperties", kObject,
     [](ShapeReading& r, const Json& at, std::string_view, const Json& v) {
       object_part(r, at).additional = &v;
     }},
    {"patternProperties", kObject,
     [](ShapeReading& r, const Json& at, std::string_view k, const Json& v) {
       if (!object_in(r, at, k, v).empty()) object_part(r, at).patterns = &v;
     }},
    {"propertyNames", kObject,
     [](ShapeReading& r, const Json&, std::string_view, const Json& v) {
       if (!says_nothing(v)) r.shape.names.push_back(&v);
     }},
    {"required", kObject,
     [](ShapeReading& r, const Json& at, std::string_view k, const Json& v) {
       for (const Json& name : list_in(r, at, k, v, true)) {
         r.shape.required.push_back({&at, text_in(r, at, k, name)});
       }
     }},
    {"minProperties", kObject,
     [](ShapeReading& r, const Json& at, std::string_view k, const Json& v) {
       raise_least(r, at, k, v, r.shape.members);
     }},
    {"maxProperties", kObject,
     [](ShapeReading& r, const Json& at, std::string_view k, const Json& v) {
       lower_most(r, at, k, v, r.shape.members);
     }},
};

constexpr SchemaKeyword kArrayKeywords[] = {
    {"prefixItems", kArray,
     [](ShapeReading& r, const Json& at, std::string_view k, const Json& v) {
       array_part(r, at).prefix = &list_in(r, at, k, v, false);
     }},
    {"items", kArray,
     [](ShapeReading& r, const Json& at, std::string_view, const Json& v) {
       // A list is how drafts before 2020-12 have prefixItems.
       (v.is_array() ? array_part(r, at).prefix : array_part(r, at).rest) = &v;
     }},
    {"additionalItems", kArray,
     [](ShapeReading& r, const Json& at, std::string_view, const Json& v) {
       const auto items = at.find("items");
       if (items != at.end() && items->is_array()) array_part(r, at).rest = &v;
     }},
    {"minItems", kArray,
     [](ShapeReading& r, const Json& at, std::string_view k, const Json& v) {
       raise_least(r, at, k, v, r.shape.items);
     }},
    {"maxItems", kArray,
     [](ShapeReading& r, const Json& at, std::string_view k, const Json& v) {
       lower_most(r, at, k, v, r.shape.items);
     }},
    {"uniqueItems", kArray,
     [](ShapeReading& r, const Json& at, std::string_view k, const Json& v) {
       if (v == Json(false)) return;
       r.refuse(Code::kUnsupported, at, k, "that items differ cannot be obeyed: leave it out");
     }},
};

constexpr SchemaKeyword kRefusedKeywords[] = {
    {"contains", kArray, refuse_keyword},
    {"unevaluatedItems", kArray, refuse_keyword},
    {"unevaluatedProperties", kObject, refuse_keyword},
    {"dependencies", kObject, refuse_keyword},
    {"dependentRequired", kObject, refuse_keyword},
    {"dependentSchemas", kObject, refuse_keyword},
    {"if", 0, refuse_keyword},
    {"$dynamicRef", 0, refuse_keyword},
    {"$recursiveRef", 0, refuse_keyword},
};

}  // namespace

const SchemaKeyword* find_keyword(std::string_view name) {
  static const std::unordered_map<std::string_view, const SchemaKeyword*> kByName = [] {
    std::unordered_map<std::string_view, const SchemaKeyword*> map;
    const auto add = [&](const auto& table) {
      for (const SchemaKeyword& keyword : table) map.emplace(keyword.name, &keyword);
    };
    add(kGeneralKeywords);
    add(kScalarKeywords);
    add(kObjectKeywords);
    add(kArrayKeywords);
    add(kRefusedKeywords);
    return map;
  }();
  const auto found = kByName.find(name);
  return found == kByName.end() ? nullptr : found->second;
}

}  // namespace cachalot::grammar
