// Declared config fields: a struct lists each field once (name, reference, range, help), and from
// that list come reading, `--set a.b=v`, the dump of resolved values and the help table.
//
//   struct OptimizerRecipe {
//     double lr = 3e-4;
//     void fields(FieldVisitor& f) { f("lr", lr, 0.0, 10.0, "peak learning rate"); }
//   };
//
// Owns:    nothing: a Field points into the struct it was collected from and lives no longer.
// Threads: plain values.
// Errors:  kUsage for an unknown key (names the nearest right one) and for a bad value on the
//          command line; a bad value in a file carries the code the caller asks for.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"

namespace cachalot {

// What a file or a flag can hold.
struct FieldValue {
  std::variant<bool, std::int64_t, double, std::string, std::vector<FieldValue>> value;
  bool operator==(const FieldValue&) const = default;
};

// An upper bound that is the type's own.
struct NoLimit {
  operator int() const noexcept { return std::numeric_limits<int>::max(); }
  operator std::int64_t() const noexcept { return std::numeric_limits<std::int64_t>::max(); }
  operator double() const noexcept { return std::numeric_limits<double>::max(); }
};
inline constexpr NoLimit kNoLimit{};

template <class T>
struct RangedField {
  T* value;
  T low, high;  // inclusive
};
// An enum by the names of its values.
struct ChoiceField {
  void* value;
  std::vector<std::pair<std::string_view, int>> choices;
  int (*get)(const void*);
  void (*set)(void*, int);
};

struct IntListField {
  std::vector<std::int64_t>* value;
  std::int64_t low, high;  // of each element
};
struct RealListField {
  std::vector<double>* value;
  double low, high;  // of each element
};

struct Field {
  std::string path;  // "optimizer.lr"
  std::string help;
  std::variant<RangedField<int>, RangedField<std::int64_t>, RangedField<double>, bool*,
               std::string*, ChoiceField, std::vector<std::string>*, IntListField, RealListField>
      target;
};

template <class Enum>
using Choices = std::initializer_list<std::pair<std::string_view, Enum>>;

class FieldVisitor {
 public:
  void operator()(std::string_view name, int& value, int low, int high, std::string_view help);
  void operator()(std::string_view name, std::int64_t& value, std::int64_t low, std::int64_t high,
                  std::string_view help);
  void operator()(std::string_view name, double& value, double low, double high,
                  std::string_view help);
  void operator()(std::string_view name, bool& value, std::string_view help);
  void operator()(std::string_view name, std::string& value, std::string_view help);
  void operator()(std::string_view name, std::vector<std::string>& value, std::string_view help);
  void operator()(std::string_view name, std::vector<std::int64_t>& value, std::int64_t low,
                  std::int64_t high, std::string_view help);
  void operator()(std::string_view name, std::vector<double>& value, double low, double high,
                  std::string_view help);

  template <class Enum>
  requires std::is_enum_v<Enum>
  void operator()(std::string_view name, Enum& value, std::type_identity_t<Choices<Enum>> choices,
                  std::string_view help) {
    ChoiceField field{&value,
                      {},
                      [](const void* p) { return static_cast<int>(*static_cast<const Enum*>(p)); },
                      [](void* p, int v) { *static_cast<Enum*>(p) = static_cast<Enum>(v); }};
    for (const auto& [text, choice] : choices) {
      field.choices.emplace_back(text, static_cast<int>(choice));
    }
    add(name, std::move(field), help);
  }

  // The fields of `section` as `name.field`.
  template <class Section>
  void section(std::string_view name, Section& section) {
    const std::size_t outer = prefix_.size();
    prefix_.append(name).push_back('.');
    section.fields(*this);
    prefix_.resize(outer);
  }

  std::vector<Field> take() { return std::move(fields_); }

 private:
  void add(std::string_view name, decltype(Field::target) target, std::string_view help);
  std::string prefix_;
  std::vector<Field> fields_;
};

template <class Config>
std::vector<Field> fields_of(Config& config) {
  FieldVisitor visitor;
  config.fields(visitor);
  return visitor.take();
}

FieldValue value_of(const Field& field);
// "integer, 1 .. 4096", "cosine | linear | none", ...: what a value may be.
std::string range_of(const Field& field);

// Sets the field at `path`. `where` names the file or flag for messages; `bad_value` is the code of
// a value of the wrong type or out of range. Integers are taken where a float is wanted, never the
// other way round.
void assign(std::span<const Field> fields, std::string_view path, const FieldValue& value,
            const std::string& where, Code bad_value);
// "a.b=v" as on a command line; lists are separated by commas.
void assign_text(std::span<const Field> fields, std::string_view assignment,
                 const std::string& where);

// The values as TOML and as a JSON object, sections nested; reading them gives the same values.
std::string to_toml(std::span<const Field> fields);
std::string to_json(std::span<const Field> fields);

// One line per field: key, default (the value it has now), range, help.
std::string help_table(std::span<const Field> fields);           // for a terminal
std::string help_table_markdown(std::span<const Field> fields);  // for the docs

}  // namespace cachalot
