#include <map>

#include "base/error.h"
#include "grammar/schema_builder.h"

namespace cachalot::grammar {

namespace {

// Years from 0001 on; RFC 3339 has 0000, which most calendars of programs do not.
std::string date() {
  const std::string year = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])";
  const std::string fours = "(?:0[48]|[2468][048]|[13579][26])";  // 04, 08, ... 96
  const std::string leap = cat("(?:[0-9]{2}", fours, "|", fours, "00)");
  return cat("(?:", year, "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])",
             "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|", leap,
             "-02-29)");
}

// Without leap seconds: which days have one nobody knows before.
std::string time() {
  const std::string minute = "(?:[01][0-9]|2[0-3]):[0-5][0-9]";
  return cat(minute, ":[0-5][0-9](?:\\.[0-9]{1,9})?(?:Z|[+-]", minute, ")");
}

// RFC 3339, appendix A: units in their order, none left out between two.
std::string duration() {
  const std::string n = "[0-9]{1,9}";
  const std::string minutes = cat(n, "M(?:", n, "S)?");
  const std::string clock = cat("T(?:", n, "H(?:", minutes, ")?|", minutes, "|", n, "S)");
  const std::string months = cat(n, "M(?:", n, "D)?");
  const std::string days = cat("(?:", n, "Y(?:", months, ")?|", months, "|", n, "D)");
  return cat("P(?:", days, "(?:", clock, ")?|", clock, "|", n, "W)");
}

std::string ipv4() {
  const std::string byte = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
  return cat(byte, "(?:\\.", byte, "){3}");
}

// RFC 4291, section 2.2: eight groups, the last two perhaps as IPv4; "::" stands for one or more.
std::string ipv6() {
  const std::string group = "[0-9A-Fa-f]{1,4}";
  const auto last = [&](int groups) {  // that many, each but the last two with ':' behind it
    const auto before = [&](int n) {
      return n == 0 ? std::string() : cat("(?:", group, ":){", n, "}");
    };
    if (groups == 1) return group;
    return cat(before(groups - 2), "(?:", group, ":", group, "|", ipv4(), ")");
  };
  std::string all = last(8);
  for (int before = 0; before <= 7; ++before) {
    all += "|";
    if (before > 0) all += cat(group, "(?::", group, "){", before - 1, "}");
    all += "::";
    std::string after;
    for (int n = 1; n <= 7 - before; ++n) after += cat(n > 1 ? "|" : "", last(n));
    if (!after.empty()) all += cat("(?:", after, ")?");
  }
  return cat("(?:", all, ")");
}

// Eight labels of 30 characters stay below the 253 that a name may have.
std::string hostname() {
  const std::string label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,28}[A-Za-z0-9])?";
  return cat(label, "(?:\\.", label, "){0,7}");
}

std::string email() {
  const std::string atom = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}";
  return cat(atom, "(?:\\.", atom, "){0,2}@", hostname());  // 64 before the @ are allowed
}

// RFC 3986 without user names and addresses in brackets.
std::string uri() {
  const std::string escape = "%[0-9A-Fa-f]{2}";
  const std::string character = cat("(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|", escape, ")");
  const std::string host = cat("(?:[A-Za-z0-9._~!$&'()*+,;=-]|", escape, ")+(?::[0-9]{1,4})?");
  const std::string path = cat("(?:/", character, "*)*");
  const std::string query = cat("(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|", escape, ")*");
  return cat("[A-Za-z][A-Za-z0-9+.-]*:(?://", host, path, "|", character, "+", path, ")(?:\\?",
             query, ")?(?:#", query, ")?");
}

std::string uuid() {
  const std::string hex = "[0-9A-Fa-f]";
  return cat(hex, "{8}(?:-", hex, "{4}){3}-", hex, "{12}");
}

}  // namespace

const std::string& format_pattern(const std::string& format) {
  static const std::map<std::string, std::string> kAll{{"date", date()},
                                                       {"time", time()},
                                                       {"date-time", date() + "T" + time()},
                                                       {"duration", duration()},
                                                       {"uuid", uuid()},
                                                       {"email", email()},
                                                       {"ipv4", ipv4()},
                                                       {"ipv6", ipv6()},
                                                       {"hostname", hostname()},
                                                       {"uri", uri()}};
  static const std::string kNone;
  const auto found = kAll.find(format);
  return found == kAll.end() ? kNone : found->second;
}

}  // namespace cachalot::grammar
