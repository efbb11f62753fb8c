#include "base/fields.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "base/fields_text.h"

namespace cachalot {

namespace {

template <class... Ts>
struct Overload : Ts... {
  using Ts::operator()...;
};
template <class... Ts>
Overload(Ts...) -> Overload<Ts...>;

template <class T>
std::string number(T x) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, x).ptr;
  return {text, end};
}

template <class T>
std::string range_text(std::string_view kind, T low, T high) {
  std::string text(kind);
  const bool open_low = low == std::numeric_limits<T>::lowest();
  const bool open_high = high == std::numeric_limits<T>::max();
  if (open_low && open_high) return text;
  if (open_high) return text + ", at least " + number(low);
  if (open_low) return text + ", at most " + number(high);
  return text + ", " + number(low) + " .. " + number(high);
}

[[noreturn]] void refuse(const Field& field, const FieldValue& value, const std::string& where,
                         Code code) {
  throw Error(code, cat(where, ": ", field.path, " = ", field_text(value), " cannot be; needed is ",
                        range_of(field), " (", field.help, ")."));
}

// All keys where they are few, else those of the section that was named, else the sections.
std::string list_of_keys(std::span<const Field> fields, std::string_view path) {
  constexpr std::size_t kFew = 24;
  const auto section = [](std::string_view p) {
    const auto dot = p.rfind('.');
    return dot == std::string_view::npos ? std::string_view() : p.substr(0, dot);
  };
  const auto list = [&](const char* what, auto&& keep, auto&& text_of) {
    std::string text;
    std::string_view last;
    for (const Field& field : fields) {
      const std::string_view word = text_of(field);
      if (!keep(field) || word == last) continue;
      text += cat(text.empty() ? "" : ", ", last = word);
    }
    return text.empty() ? text : cat("; ", what, " ", text, ".");
  };
  const auto whole = [](const Field& field) { return std::string_view(field.path); };
  if (fields.size() <= kFew) {
    return list(
        "the keys are", [](const Field&) { return true; }, whole);
  }
  const std::string_view named = section(path);
  if (!named.empty()) {
    const std::string text = list(
        "the keys there are", [&](const Field& f) { return section(f.path) == named; }, whole);
    if (!text.empty()) return text;
  }
  return list(
      "the sections of keys are", [&](const Field& f) { return !section(f.path).empty(); },
      [&](const Field& f) { return section(f.path); });
}

const Field& find(std::span<const Field> fields, std::string_view path, const std::string& where) {
  const auto last_part = [](std::string_view p) {
    const auto dot = p.rfind('.');
    return dot == std::string_view::npos ? p : p.substr(dot + 1);
  };
  std::vector<std::string_view> paths, last_parts;
  for (const Field& field : fields) {
    if (field.path == path) return field;
    paths.push_back(field.path);
    last_parts.push_back(last_part(field.path));
  }
  // The right name in the wrong section first, then the nearest spelling.
  std::string hint;
  const auto same = std::find(last_parts.begin(), last_parts.end(), last_part(path));
  if (same != last_parts.end()) hint = paths[static_cast<std::size_t>(same - last_parts.begin())];
  if (hint.empty()) hint = nearest(path, paths.data(), paths.data() + paths.size());
  if (hint.empty()) {
    const auto near =
        nearest(last_part(path), last_parts.data(), last_parts.data() + last_parts.size());
    const auto at = std::find(last_parts.begin(), last_parts.end(), near);
    if (at != last_parts.end()) hint = paths[static_cast<std::size_t>(at - last_parts.begin())];
  }
  throw Error(Code::kUsage,
              cat(where, ": unknown key '", printable(path), "'",
                  hint.empty() ? list_of_keys(fields, path) : "; did you mean '" + hint + "'?"));
}

template <class T>
std::optional<T> whole(const FieldValue& value, T low, T high) {
  const auto* number = std::get_if<std::int64_t>(&value.value);
  if (number == nullptr || *number < static_cast<std::int64_t>(low) ||
      *number > static_cast<std::int64_t>(high)) {
    return std::nullopt;
  }
  return static_cast<T>(*number);
}

std::optional<double> real(const FieldValue& value) {
  if (const auto* x = std::get_if<double>(&value.value)) return *x;
  if (const auto* n = std::get_if<std::int64_t>(&value.value)) return static_cast<double>(*n);
  return std::nullopt;
}

// False: the value is of the wrong type or out of range.
bool store(const Field& field, const FieldValue& value) {
  return std::visit(
      Overload{[&]<class T>(const RangedField<T>& f) {
                 std::optional<T> x;
                 if constexpr (std::is_same_v<T, double>) {
                   x = real(value);
                   if (x && !(*x >= f.low && *x <= f.high)) x.reset();  // NaN too
                 } else {
                   x = whole<T>(value, f.low, f.high);
                 }
                 if (x) *f.value = *x;
                 return x.has_value();
               },
               [&](bool* f) {
                 const auto* x = std::get_if<bool>(&value.value);
                 if (x != nullptr) *f = *x;
                 return x != nullptr;
               },
               [&](std::string* f) {
                 const auto* x = std::get_if<std::string>(&value.value);
                 if (x == nullptr || !valid_utf8(*x)) return false;
                 *f = *x;
                 return true;
               },
               [&](const ChoiceField& f) {
                 const auto* x = std::get_if<std::string>(&value.value);
                 if (x == nullptr) return false;
                 for (const auto& [text, choice] : f.choices) {
                   if (text != *x) continue;
                   f.set(f.value, choice);
                   return true;
                 }
                 return false;
               },
               [&](std::vector<std::string>* f) {
                 const auto* list = std::get_if<std::vector<FieldValue>>(&value.value);
                 if (list == nullptr) return false;
                 std::vector<std::string> all;
                 for (const FieldValue& item : *list) {
                   const auto* x = std::get_if<std::string>(&item.value);
                   if (x == nullptr || !valid_utf8(*x)) return false;
                   all.push_back(*x);
                 }
                 *f = std::move(all);
                 return true;
               },
               [&](const IntListField& f) {
                 const auto* list = std::get_if<std::vector<FieldValue>>(&value.value);
                 if (list == nullptr) return false;
                 std::vector<std::int64_t> all;
                 for (const FieldValue& item : *list) {
                   const auto x = whole<std::int64_t>(item, f.low, f.high);
                   if (!x) return false;
                   all.push_back(*x);
                 }
                 *f.value = std::move(all);
                 return true;
               },
               [&](const RealListField& f) {
                 const auto* list = std::get_if<std::vector<FieldValue>>(&value.value);
                 if (list == nullptr) return false;
                 std::vector<double> all;
                 for (const FieldValue& item : *list) {
                   const auto x = real(item);
                   if (!x || !(*x >= f.low && *x <= f.high)) return false;  // NaN too
                   all.push_back(*x);
                 }
                 *f.value = std::move(all);
                 return true;
               }},
      field.target);
}

template <class T>
FieldValue list_value(const std::vector<T>& items) {
  std::vector<FieldValue> list;
  for (const T& item : items) list.emplace_back().value = item;
  return {std::move(list)};
}

// What a flag's text means is known from the field it is for; a text that does not fit stays text,
// and `store` refuses it.
FieldValue read_as(const Field& field, std::string_view text) {
  const FieldValue as_text{std::string(text)};
  const auto parse = [&]<class T>(T x, std::string_view part) -> FieldValue {
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), x);
    if (error != std::errc() || end != part.data() + part.size()) return {std::string(part)};
    return {x};
  };
  const auto parts = [&] {
    std::vector<std::string_view> all;
    for (std::string_view rest = text; !rest.empty();) {
      const auto comma = std::min(rest.find(','), rest.size());
      all.push_back(rest.substr(0, comma));
      rest.remove_prefix(std::min(comma + 1, rest.size()));
    }
    return all;
  };
  return std::visit(
      Overload{[&]<class T>(const RangedField<T>&) {
                 if constexpr (std::is_same_v<T, double>) return parse(0.0, text);
                 return parse(std::int64_t{0}, text);
               },
               [&](bool*) {
                 if (text == "true") return FieldValue{true};
                 return text == "false" ? FieldValue{false} : as_text;
               },
               [&](std::string*) { return as_text; }, [&](const ChoiceField&) { return as_text; },
               [&](std::vector<std::string>*) {
                 std::vector<FieldValue> list;
                 for (const auto part : parts()) list.emplace_back().value = std::string(part);
                 return FieldValue{std::move(list)};
               },
               [&](const IntListField&) {
                 std::vector<FieldValue> list;
                 for (const auto part : parts()) list.emplace_back() = parse(std::int64_t{0}, part);
                 return FieldValue{std::move(list)};
               },
               [&](const RealListField&) {
                 std::vector<FieldValue> list;
                 for (const auto part : parts()) list.emplace_back() = parse(0.0, part);
                 return FieldValue{std::move(list)};
               }},
      field.target);
}

}  // namespace

void FieldVisitor::add(std::string_view name, decltype(Field::target) target,
                       std::string_view help) {
  fields_.push_back({prefix_ + std::string(name), std::string(help), std::move(target)});
}
void FieldVisitor::operator()(std::string_view name, int& value, int low, int high,
                              std::string_view help) {
  add(name, RangedField<int>{&value, low, high}, help);
}
void FieldVisitor::operator()(std::string_view name, std::int64_t& value, std::int64_t low,
                              std::int64_t high, std::string_view help) {
  add(name, RangedField<std::int64_t>{&value, low, high}, help);
}
void FieldVisitor::operator()(std::string_view name, double& value, double low, double high,
                              std::string_view help) {
  add(name, RangedField<double>{&value, low, high}, help);
}
void FieldVisitor::operator()(std::string_view name, bool& value, std::string_view help) {
  add(name, &value, help);
}
void FieldVisitor::operator()(std::string_view name, std::string& value, std::string_view help) {
  add(name, &value, help);
}
void FieldVisitor::operator()(std::string_view name, std::vector<std::string>& value,
                              std::string_view help) {
  add(name, &value, help);
}
void FieldVisitor::operator()(std::string_view name, std::vector<std::int64_t>& value,
                              std::int64_t low, std::int64_t high, std::string_view help) {
  add(name, IntListField{&value, low, high}, help);
}
void FieldVisitor::operator()(std::string_view name, std::vector<double>& value, double low,
                              double high, std::string_view help) {
  add(name, RealListField{&value, low, high}, help);
}

FieldValue value_of(const Field& field) {
  return std::visit(Overload{[]<class T>(const RangedField<T>& f) {
                               if constexpr (std::is_same_v<T, double>) return FieldValue{*f.value};
                               return FieldValue{static_cast<std::int64_t>(*f.value)};
                             },
                             [](const bool* f) { return FieldValue{*f}; },
                             [](const std::string* f) { return FieldValue{*f}; },
                             [](const ChoiceField& f) {
                               const int now = f.get(f.value);
                               for (const auto& [text, choice] : f.choices) {
                                 if (choice == now) return FieldValue{std::string(text)};
                               }
                               throw Error(Code::kInternal, cat("an enum field holds ", now,
                                                                ", which is none of its choices."));
                             },
                             [](const std::vector<std::string>* f) { return list_value(*f); },
                             [](const IntListField& f) { return list_value(*f.value); },
                             [](const RealListField& f) { return list_value(*f.value); }},
                    field.target);
}

std::string range_of(const Field& field) {
  return std::visit(
      Overload{
          [](const RangedField<double>& f) { return range_text("number", f.low, f.high); },
          []<class T>(const RangedField<T>& f) { return range_text("integer", f.low, f.high); },
          [](const bool*) { return std::string("true | false"); },
          [](const std::string*) { return std::string("text"); },
          [](const ChoiceField& f) {
            std::string text;
            for (const auto& [choice, value] : f.choices) {
              text.append(text.empty() ? "" : " | ").append(choice);
            }
            return text;
          },
          [](const std::vector<std::string>*) { return std::string("list of texts"); },
          [](const IntListField& f) { return range_text("list of integers, each", f.low, f.high); },
          [](const RealListField& f) {
            return range_text("list of numbers, each", f.low, f.high);
          }},
      field.target);
}

void assign(std::span<const Field> fields, std::string_view path, const FieldValue& value,
            const std::string& where, Code bad_value) {
  const Field& field = find(fields, path, where);
  if (!store(field, value)) refuse(field, value, where, bad_value);
}

void assign_text(std::span<const Field> fields, std::string_view assignment,
                 const std::string& where) {
  const auto equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    throw Error(Code::kUsage, cat(where, ": '", printable(assignment),
                                  "' is not an assignment; write section.key=value."));
  }
  const Field& field = find(fields, assignment.substr(0, equals), where);
  const FieldValue value = read_as(field, assignment.substr(equals + 1));
  if (!store(field, value)) refuse(field, value, where, Code::kUsage);
}

}  // namespace cachalot
