#include <algorithm>
#include <set>
#include <unordered_map>

#include "base/error.h"
#include "grammar/schema_builder.h"

namespace cachalot::grammar {

namespace {

std::size_t count_required(const auto& members) {
  return static_cast<std::size_t>(
      std::count_if(members.begin(), members.end(), [](const auto& m) { return m.is_required; }));
}

}  // namespace

ExprId SchemaBuilder::object(const Shape& shape) {
  if (shape.members.is_empty()) return g_.nothing();
  for (const ObjectPart& part : shape.objects) {
    if (part.patterns != nullptr) return object_of_patterns(shape, *part.patterns);
  }
  std::vector<Member> members = members_of(shape);
  Conjunction other_value;
  bool has_others = others_of(shape, other_value);
  int most_others = has_others ? kUnbounded : 0;
  if (!settle_most(shape, members, most_others)) return g_.nothing();
  has_others = most_others != 0;
  bool may_be_empty = true;
  if (!settle_least(shape, members, has_others, may_be_empty)) return g_.nothing();
  if (members.empty() && shape.names.empty() && other_value.schemas.empty() && may_be_empty &&
      most_others == kUnbounded) {
    return rules_.object();
  }
  std::optional<ExprId> other;
  if (has_others) {
    other = g_.sequence({other_name(shape, members_of(shape)), g_.text(": "), use(other_value)});
  }
  return chain(members, other, most_others, may_be_empty);
}

// Those that are named, in the order of the schemas, then those that are only required.
std::vector<SchemaBuilder::Member> SchemaBuilder::members_of(const Shape& shape) {
  std::vector<Member> members;
  std::unordered_map<std::string, std::size_t> places;
  const auto place_of = [&](const std::string& name) {
    const auto [place, is_new] = places.try_emplace(name, members.size());
    if (is_new) members.push_back({.name = name, .value = {}});
    return place->second;
  };
  for (const ObjectPart& part : shape.objects) {
    if (part.properties == nullptr) continue;
    for (const auto& property : part.properties->items()) place_of(property.key());
  }
  for (const TextAt& name : shape.required) members[place_of(name.text)].is_required = true;
  for (const ObjectPart& part : shape.objects) {
    reader_.spend(members.size());
    std::vector<bool> is_named(members.size(), false);
    if (part.properties != nullptr) {
      for (const auto& property : part.properties->items()) {
        const std::size_t at = places.at(property.key());
        members[at].value.add(reader_.followed(property.value()));
        is_named[at] = true;
      }
    }
    for (std::size_t i = 0; part.additional != nullptr && i < members.size(); ++i) {
      if (!is_named[i]) members[i].value.add(reader_.followed(*part.additional));
    }
  }
  if (!members.empty() && !shape.names.empty()) {
    refuse(shape, "propertyNames",
           "it can be obeyed only where no member is named: leave it out, or the names");
  }
  return members;
}

// Whether there may be members that are not named, and what they are.
bool SchemaBuilder::others_of(const Shape& shape, Conjunction& value) {
  bool is_said = false, names_some = false;
  for (const ObjectPart& part : shape.objects) {
    names_some = names_some || (part.properties != nullptr && !part.properties->empty());
    if (part.additional == nullptr) continue;
    is_said = true;
    if (*part.additional == Json(false)) return false;
    const Json& schema = reader_.followed(*part.additional);
    if (schema != Json(true)) value.add(schema);
  }
  return is_said || !names_some;
}

// maxProperties: false where no object has so few.
bool SchemaBuilder::settle_most(const Shape& shape, std::vector<Member>& members,
                                int& most_others) {
  if (shape.members.most == kUnbounded) return true;
  const auto most = static_cast<std::size_t>(shape.members.most);
  const std::size_t required = count_required(members);
  if (most < required) return false;
  if (members.size() > most) {
    if (most > required) {
      refuse(shape, "maxProperties",
             cat("of ", members.size(), " members that are named, at most ", most,
                 " cannot be promised: require so many or name no more"));
    }
    std::erase_if(members, [](const Member& m) { return !m.is_required; });
  }
  if (most_others != 0) most_others = static_cast<int>(most - members.size());
  return true;
}

// minProperties: false where no object has so many.
bool SchemaBuilder::settle_least(const Shape& shape, std::vector<Member>& members, bool has_others,
                                 bool& may_be_empty) {
  const auto least = static_cast<std::size_t>(shape.members.least);
  if (least <= count_required(members)) return true;
  if (!has_others && least > members.size()) return false;
  if (!has_others && least == members.size()) {
    for (Member& member : members) member.is_required = true;
    return true;
  }
  if (least > 1) {
    refuse(shape, "minProperties",
           "more than one member that is not required cannot be promised: name and require them");
  }
  may_be_empty = false;
  return true;
}

ExprId SchemaBuilder::other_name(const Shape& shape, const std::vector<Member>& members) {
  if (!shape.names.empty()) {
    Conjunction name;
    name.add(string_schema_);
    for (const Json* schema : shape.names) name.add(reader_.followed(*schema));
    return use(name);
  }
  if (members.empty()) return rules_.string();
  std::vector<std::string> names;
  for (const Member& member : members) names.push_back(member.name);
  return add_other_names(g_, rules_, names);
}

// From the last member to the first: `rest` is the members from here on, at least one of them;
// `after` is what follows a member. So each is there once, whatever was written before it.
ExprId SchemaBuilder::chain(const std::vector<Member>& members, std::optional<ExprId> other,
                            int most_others, bool may_be_empty) {
  std::optional<ExprId> rest;
  if (other) rest = g_.rule("other members", rules_.list("", *other, "", 1, most_others));
  const ExprId comma = g_.text(", ");
  bool is_needed = false;
  for (std::size_t i = members.size(); i-- > 0;) {
    const Member& member = members[i];
    ExprId after = g_.text("");
    if (rest) after = g_.sequence({comma, *rest});
    if (rest && !is_needed) after = g_.optional(after);
    std::vector<ExprId> parts{
        g_.sequence({g_.text(Json(member.name).dump() + ": "), use(member.value), after})};
    if (rest && !member.is_required) parts.push_back(*rest);
    is_needed = is_needed || member.is_required;
    rest = g_.rule("members", g_.choice(std::move(parts)));
  }
  if (!rest) return may_be_empty ? g_.text("{}") : g_.nothing();
  const bool is_optional = !is_needed && may_be_empty;
  return g_.sequence({g_.text("{"), is_optional ? g_.optional(*rest) : *rest, g_.text("}")});
}

// Names of one pattern, and no others.
ExprId SchemaBuilder::object_of_patterns(const Shape& shape, const Json& patterns) {
  const auto names_none = [](const ObjectPart& part) {
    return part.properties == nullptr || part.properties->empty();
  };
  const bool is_simple = shape.objects.size() == 1 && names_none(shape.objects.front()) &&
                         shape.required.empty() && shape.names.empty() && patterns.size() == 1;
  if (!is_simple || shape.members.least > 1) {
    refuse(shape, "patternProperties",
           "it can be obeyed only with one pattern, and where no member is named or required");
  }
  const auto& pattern_of_names = patterns.items().begin();
  const ExprId quote = g_.text("\"");
  const TextAt at{shape.place, pattern_of_names.key()};
  Conjunction value;
  value.add(reader_.followed(pattern_of_names.value()));
  const ExprId member = g_.sequence(
      {quote, pattern(g_, at, CharForm::kJsonString), quote, g_.text(": "), use(value)});
  return rules_.list("{", member, "}", shape.members.least, shape.members.most);
}

}  // namespace cachalot::grammar
