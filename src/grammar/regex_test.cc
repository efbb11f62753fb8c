#include "grammar/regex.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "grammar/accepts.h"
#include "grammar/automaton.h"

namespace cachalot::grammar {
namespace {

Automaton compiled(std::string_view pattern, RegexMatch match = RegexMatch::kWhole,
                   CharForm form = CharForm::kPlain) {
  Grammar grammar;
  grammar.set_root(add_regex(grammar, pattern, match, form));
  return compile(grammar);
}

using Texts = std::vector<std::string>;

void expect(const Automaton& automaton, std::string_view pattern, const Texts& yes,
            const Texts& no) {
  for (const std::string& text : yes)
    EXPECT_TRUE(accepts(automaton, text)) << pattern << " " << text;
  for (const std::string& text : no)
    EXPECT_FALSE(accepts(automaton, text)) << pattern << " " << text;
}

void whole(std::string_view pattern, const Texts& yes, const Texts& no) {
  expect(compiled(pattern), pattern, yes, no);
}
void anywhere(std::string_view pattern, const Texts& yes, const Texts& no) {
  expect(compiled(pattern, RegexMatch::kAnywhere), pattern, yes, no);
}

// What a pattern is refused with: "CODE text", or "" where it is read.
std::string refusal(std::string_view pattern) {
  try {
    Grammar grammar;
    add_regex(grammar, pattern, RegexMatch::kWhole, CharForm::kPlain);
    return "";
  } catch (const Error& e) {
    return cat(name(e.code()), " ", e.what());
  }
}

void expect_refused(std::string_view pattern, std::string_view code, std::string_view part) {
  const std::string said = refusal(pattern);
  EXPECT_TRUE(said.starts_with(code)) << pattern << ": " << said;
  EXPECT_NE(said.find(part), std::string::npos) << pattern << ": " << said;
  EXPECT_LT(said.size(), 300u);
}

TEST(RegexTest, CharactersStandForThemselves) {
  whole("", {""}, {"a"});
  whole("abc", {"abc"}, {"", "ab", "abcd", "xabc"});
  whole("ä€😀", {"ä€😀"}, {"ä€", "a€😀"});
  whole("-/:,=!<>@#%&~`'\"_", {"-/:,=!<>@#%&~`'\"_"}, {});
}

TEST(RegexTest, EscapesAreOneCharacter) {
  whole(R"(\n\r\t\f\v)", {"\n\r\t\f\v"}, {"nrtfv"});
  whole(R"(\0)", {std::string(1, '\0')}, {"0", ""});
  whole(R"(\x41\u0042\u{43}\u{1F600})", {"ABC😀"}, {"ABC"});
  whole(R"(\uD83D\uDE00)", {"😀"}, {});
  whole(R"(\cA\cz)", {"\x01\x1A"}, {});
  whole(R"(\^\$\\\.\*\+\?\(\)\[\]\{\}\|\/)", {R"(^$\.*+?()[]{}|/)"}, {});
  whole(R"(\-\_\ \@\"\')", {"-_ @\"'"}, {});
  whole("a]b}c", {"a]b}c"}, {});
  whole("{.*}{a}", {"{}{a}", "{xy}{a}"}, {"{}"});
}

TEST(RegexTest, DotIsNoLineEnd) {
  whole(".", {"a", "ä", "😀", " ", "\t", std::string(1, '\0'), "\u0085"},
        {"", "ab", "\n", "\r", "\u2028", "\u2029"});
  whole("[^]", {"\n", "a"}, {""});
}

TEST(RegexTest, Classes) {
  whole("[abc]", {"a", "b", "c"}, {"d", "", "ab"});
  whole("[a-cx0-9]", {"a", "b", "c", "x", "5"}, {"d", "-", "a-c"});
  whole("[^a-c]", {"d", "ä", "\n", "^"}, {"a", "c", ""});
  whole("[a^]", {"a", "^"}, {"b"});
  whole("[-a]", {"-", "a"}, {"b"});
  whole("[a-]", {"-", "a"}, {"b"});
  whole(R"([\]\\\-\^])", {"]", "\\", "-", "^"}, {"a"});
  whole("[.*+?(){}|$/[]", {".", "*", "$", "[", "("}, {"a"});
  whole(R"([\b\n\x41\u{1F600}-\u{1F64F}])", {"\b", "\n", "A", "😀"}, {"b", "n"});
  whole(R"([\uD83D\uDE00-\uD83D\uDE4F])", {"😀"}, {});
  whole("[à-ÿ]", {"é"}, {"e", "z"});
  whole(R"([^\uD800-\uDFFF])", {"a", "😀"}, {""});
}

TEST(RegexTest, SetsAreThoseOfEcma262) {
  whole(R"(\d)", {"0", "9"}, {"a", "٣", "½"});  // ASCII alone
  whole(R"(\D)", {"a", "٣"}, {"0", "9"});
  whole(R"(\w)", {"a", "Z", "0", "_"}, {"-", "ä", " "});
  whole(R"(\W)", {"-", "ä", " "}, {"a", "_"});
  whole(R"(\s)",
        {" ", "\t", "\n", "\v", "\f", "\r", "\u00A0", "\u1680", "\u2003", "\u2028", "\u2029",
         "\u202F", "\u205F", "\u3000", "\uFEFF"},
        {"a", "\u0085", "\u180E", "\u200B"});
  whole(R"(\S)", {"a", "\u0085"}, {" ", "\uFEFF"});
  whole(R"([\d.])", {"1", "."}, {"d", "\\"});
  whole(R"([^\s\d])", {"a"}, {"1", " "});
  whole(R"([\s\S])", {"a", "\n", " "}, {""});
  whole(R"([\w-])", {"a", "-"}, {"."});
}

TEST(RegexTest, Properties) {
  whole(R"(\p{Lu})", {"A", "Ä", "Ж"}, {"a", "ä", "1"});
  whole(R"(\p{L}+)", {"aÄж漢ª"}, {"a1", "_"});
  whole(R"(\P{L})", {"1", "_"}, {"a", "漢"});
  whole(R"(\p{Letter}\p{gc=Ll}\p{General_Category=Uppercase_Letter})", {"xaB"}, {"xAB"});
  whole(R"(\p{Nd})", {"1", "٣"}, {"½", "Ⅷ"});
  whole(R"(\p{N})", {"1", "½", "Ⅷ"}, {"a"});
  whole(R"([\p{P}\p{S}])", {"!", "«", "+", "€"}, {"a", " "});
  whole(R"(\p{Z})", {" ", "\u2028", "\u3000"}, {"\t", "a"});
  whole(R"(\p{LC})", {"a", "A", "ǅ"}, {"漢", "1"});
  whole(R"(\p{Script=Greek})", {"α", "Ω"}, {"a", "ж"});
  whole(R"(\p{sc=Grek}\p{Han}\p{scx=Hira})", {"α漢あ", "α漢ー"}, {"aaa"});
  whole(R"(\p{Alphabetic}\p{White_Space}\p{Emoji_Presentation})", {"a 😀", "ä\u0085😀"}, {"a a"});
  whole(R"(b|[^\p{Any}])", {"b"}, {"a", ""});
  whole(R"(\p{ASCII}\p{Assigned})", {"aä"}, {"ää", "a\u0378"});
  whole(R"(a|\p{Cs})", {"a"}, {});
  expect_refused(R"(\p{Klingon})", "usage", "no such property");
  expect_refused(R"(\p{sc=Klingon})", "usage", "no such property");
  expect_refused(R"(\p{nv=1})", "usage", "no such property");
  expect_refused(R"(\p{})", "usage", "no such property");
  expect_refused(R"(\p{^L})", "usage", "no such property");
  expect_refused(R"(\p{L&})", "usage", "no such property");
  expect_refused(R"(\pL)", "usage", "braces");
  expect_refused(R"(\p{L)", "usage", "ends with }");
  expect_refused(R"(\p{)" + std::string(200, 'x') + "}", "usage", "ends with }");
}

TEST(RegexTest, GroupsAndAlternatives) {
  whole("a|b|", {"a", "b", ""}, {"ab"});
  whole("(a|bc)d", {"ad", "bcd"}, {"a", "abcd"});
  whole("(?:a|b)(?<name>c|)(?<n_2>d)", {"acd", "bd"}, {"ab"});
  whole("((((x))))", {"x"}, {""});
  whole("()", {""}, {"a"});
}

TEST(RegexTest, Repetitions) {
  whole("a*", {"", "a", "aaaa"}, {"b"});
  whole("a+b?", {"a", "aab"}, {"", "b", "abb"});
  whole("a{3}", {"aaa"}, {"aa", "aaaa"});
  whole("a{2,}", {"aa", "aaaaa"}, {"a"});
  whole("a{2,3}", {"aa", "aaa"}, {"a", "aaaa"});
  whole("ba{0}", {"b"}, {"ba"});
  whole("(ab|c){2}", {"abab", "abc", "cc"}, {"ab", "ccc"});
  whole("a*?b+?c??d{1,2}?", {"bd", "aabbcdd"}, {"ad"});
  whole("(a*)*b", {"b", "aab"}, {"a"});
  whole("(a|b?)+", {"", "ab", "bbb"}, {"c"});
  whole("😀+", {"😀😀"}, {""});
  whole("[ab]{2}x", {"abx"}, {"ax"});
  whole("(x{2}){3}", {"xxxxxx"}, {"xxxxx", "xxxxxxx"});
  whole("a{002}", {"aa"}, {"a"});
}

TEST(RegexTest, AnchorsOfAWholeMatch) {
  whole("^abc$", {"abc"}, {"", "xabc", "abc\n"});
  whole("^^a$$", {"a"}, {});
  whole("(^a|b$)", {"a", "b"}, {"ab"});
  whole("a^b|c", {"c"}, {"ab", "a^b"});
  whole("a$b|c", {"c"}, {"ab"});
  whole("a*^b", {"b"}, {"ab"});
  whole("a$b*", {"a"}, {"ab"});
}

TEST(RegexTest, AnywhereInTheText) {
  anywhere("b", {"b", "abc", "\nb\n", "äb😀"}, {"", "ac"});
  anywhere("^b", {"b", "bc"}, {"ab", "\nb"});
  anywhere("b$", {"b", "ab"}, {"bc", "b\n"});
  anywhere("^b$", {"b"}, {"ab", "ba"});
  anywhere("^a|b$", {"a", "ax", "b", "xb", "ab"}, {"bx", "xa"});
  anywhere("(^|,)a(,|$)", {"a", "a,", "x,a", "x,a,y", "b,a"}, {"xa", "ax", "xa,", ",ax"});
  anywhere("", {"", "abc", "\n"}, {});
  anywhere("x*", {"", "abc"}, {});
  anywhere("^", {"", "abc"}, {});
  anywhere("$", {"", "abc"}, {});
  anywhere("^$", {""}, {"a"});
  anywhere("$^", {""}, {"a"});
  anywhere("(^a)?b", {"ab", "b", "xb", "xab"}, {"a"});
  anywhere("(^a|b){2}", {"ab", "abx", "bb", "xbb"}, {"aa", "xab", "ba"});
  anywhere("^(?:[a-z]+(?:,|$))+$", {"a", "ab,c", "a,"}, {"", ",a", "a,,b"});
  anywhere("(^|x){3}y", {"y", "xy", "xxy", "xxxy", "axxxy"}, {"axxy", "ay", "x"});
  anywhere("(a|^){0}b", {"b", "xb"}, {"a"});
  anywhere("(?:^a*$|xa){2,3}", {"", "xaxa"}, {"a", "xa"});  // only nothing is twice the whole text
}

TEST(RegexTest, WhatAutomataCannotDoIsNamed) {
  expect_refused("a(?=b)", "unsupported", "look-around");
  expect_refused("(?!b)", "unsupported", "look-around");
  expect_refused("(?<=b)a", "unsupported", "look-around");
  expect_refused("(?<!b)a", "unsupported", "look-around");
  expect_refused(R"((a)\1)", "unsupported", "references");
  expect_refused(R"((?<x>a)\k<x>)", "unsupported", "references");
  expect_refused(R"(\bword)", "unsupported", "word boundaries");
  expect_refused(R"(\B)", "unsupported", "word boundaries");
  expect_refused("(?i)a", "unsupported", "flags");
  expect_refused("(?i:a)", "unsupported", "flags");
  expect_refused("(?-m:a)", "unsupported", "flags");
  expect_refused("(?>a)", "unsupported", "atomic");
  expect_refused("a*+", "unsupported", "possessive");
  expect_refused("a{2}+", "unsupported", "possessive");
}

TEST(RegexTest, MistakesAreToldWithTheirPlace) {
  expect_refused("a)", "usage", "pattern: ')' at character 2: this ) closes no group");
  expect_refused("ä(b", "usage", "at character 2: this group has no )");
  expect_refused("[a", "usage", "at character 1: this class has no ]");
  expect_refused("[", "usage", "no ]");
  expect_refused("[^", "usage", "no ]");
  expect_refused("[a-", "usage", "no ]");
  expect_refused("[a\\", "usage", "lone \\");
  expect_refused("[b-a]", "usage", "'b-a' at character 2: this range ends before it begins");
  expect_refused(R"([\d-x])", "usage", "plain - is \\-");
  expect_refused(R"([a-\d])", "usage", "plain - is \\-");
  expect_refused("*a", "usage", "nothing stands before it");
  expect_refused("a|+", "usage", "nothing stands before it");
  expect_refused("(?", "usage", "groups begin with");
  expect_refused("(?<", "usage", "name");
  expect_refused("(?<a", "usage", "name");
  expect_refused("(?<>a)", "usage", "empty");
  expect_refused("(?<1a>a)", "usage", "name");
  expect_refused("(?P<a>b)", "usage", "(?<name>...)");
  expect_refused("{2}", "usage", "nothing stands before this count");
  expect_refused("a{,3}", "usage", "a count is {m}");
  expect_refused("a{3", "usage", "a count is {m}");
  expect_refused("a{3,2}", "usage", "larger number");
  expect_refused("a{100001}", "usage", "at most 100000 times");
  expect_refused("a{1,99999999999999999999999999}", "usage", "at most 100000 times");
  expect_refused("a**", "usage", "a repetition is repeated");
  expect_refused("a{2}{3}", "usage", "a repetition is repeated");
  expect_refused("a???", "usage", "a repetition is repeated");
  expect_refused("^*", "usage", "an anchor cannot be repeated");
  expect_refused("a$?", "usage", "an anchor cannot be repeated");
  expect_refused("a\\", "usage", "lone \\");
  expect_refused(R"(\x4)", "usage", "two hexadecimal digits");
  expect_refused(R"(\u12)", "usage", "four hexadecimal digits");
  expect_refused(R"(\u{})", "usage", "hexadecimal digits and }");
  expect_refused(R"(\u{110000})", "usage", "last character");
  expect_refused(R"(\u{ffffffffffffffffff})", "usage", "last character");
  expect_refused(R"(\c1)", "usage", "\\c needs a letter");
  expect_refused(R"(\01)", "usage", "octal");
  expect_refused(R"(\a)", "usage", "no such escape");
  expect_refused(R"(\Ax\Z)", "usage", "write ^ or $");
  expect_refused(R"(\ä)", "usage", "no such escape");
  expect_refused("a\xFF", "usage", "not UTF-8: byte 2");
  expect_refused("\n\x01)\x7F", "usage", "at character 3");
}

TEST(RegexTest, StrangersPatternsAreBounded) {
  expect_refused(std::string(1 << 17, 'a'), "usage", "at most 65536");
  expect_refused(std::string(201, '('), "usage", "groups lie at most 200 deep");
  EXPECT_EQ(refusal(std::string(200, '(') + std::string(200, ')')), "");
  std::string anchors;
  for (int i = 0; i < 33; ++i) anchors += "(^|a$)";
  expect_refused(anchors, "usage", "at most 64 anchors");
  // Wide, not deep.
  std::string wide;
  for (int i = 0; i < 20'000; ++i) wide += "a?|";
  EXPECT_EQ(refusal(wide), "");
  std::string sets = "[";
  for (int i = 0; i < 10'000; ++i) sets += R"(\p{L})";
  EXPECT_EQ(refusal(sets + "]"), "");
  // Counts of counts stay numbers until the automaton refuses what they would become.
  EXPECT_EQ(refusal("((a{1000}){1000}){1000}"), "");
  EXPECT_THROW(compiled("((a{1000}){1000}){1000}"), Error);
}

TEST(RegexTest, InJsonStringsEveryCharacterHasOneForm) {
  const auto json = [](std::string_view pattern, const Texts& yes, const Texts& no) {
    expect(compiled(pattern, RegexMatch::kWhole, CharForm::kJsonString), pattern, yes, no);
  };
  json(R"(a"b\\)", {R"(a\"b\\)"}, {R"(a"b\)"});
  json(R"(\x08\f\n\r\t)", {R"(\b\f\n\r\t)"}, {R"(\u0008\f\n\r\t)", "\b\f\n\r\t"});
  json(R"(\x00\x0b\x1F\x7f)", {"\\u0000\\u000b\\u001f\x7F"}, {"\\u0000\\u000B\\u001F\x7F"});
  json("[^]", {"a", "/", "\\\"", "\\\\", "\\n", "\\u0001", "\\u001f", "ä", "😀"},
       {"\"", "\\", "\n", "\\u0020", "\\/", "\\u000a", "\\u0041", "\\x", std::string(1, '\x1F')});
  json(".", {"\\t", "\\\"", "a"}, {"\\n", "\\r", "\u2028"});
  json(R"(["\\])", {"\\\"", "\\\\"}, {"\"", "\\", "\\n"});
  json(R"(\n+)", {"\\n", "\\n\\n"}, {"\n", "\\"});
  json("[^\"]", {"\\\\", "a"}, {"\\\"", "\""});
  const Automaton within = compiled("^\"|x$", RegexMatch::kAnywhere, CharForm::kJsonString);
  expect(within, "anywhere", {"\\\"", "\\\"\\n\\\\", "\\nx", "\\\\x"},
         {"\"", "\nx", "\\x", "a\\\""});
}

TEST(RegexTest, CharsOfEachForm) {
  Grammar grammar;
  grammar.set_root(add_chars(grammar, {{'a', 'c'}, {'\n', '\n'}}, CharForm::kPlain));
  expect(compile(grammar), "plain", {"a", "c", "\n"}, {"\\n", "d"});
  Grammar quoted;
  quoted.set_root(add_chars(quoted, {{'a', 'c'}, {'\n', '\n'}}, CharForm::kJsonString));
  expect(compile(quoted), "json", {"a", "c", "\\n"}, {"\n", "d", "\\"});
}

TEST(RegexTest, WhatPeopleWrite) {
  whole(R"(^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$)", {"2024-02-29"},
        {"2024-13-01", "24-1-1"});
  whole(R"(^[\w.+-]+@[\w-]+(\.[\w-]+)+$)", {"a.b+c@d-e.org"}, {"a@b", "@b.c"});
  whole(R"(^(\([0-9]{3}\))?[0-9]{3}-[0-9]{4}$)", {"555-1212", "(888)555-1212"},
        {"(888)555-1212 ext. 532", "(800)FLOWERS"});
  whole(R"(^(25[0-5]|2[0-4]\d|1?\d?\d)(\.(25[0-5]|2[0-4]\d|1?\d?\d)){3}$)", {"192.168.0.1"},
        {"256.1.1.1", "1.1.1"});
  whole(R"(^#(?:[0-9a-fA-F]{3}){1,2}$)", {"#fff", "#00FF00"}, {"#ff", "#ffff"});
  whole(R"(^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$)",
        {"f81d4fae-7dec-41d0-a765-00a0c91e6bf6"}, {"f81d4fae-7dec-11d0-a765-00a0c91e6bf6"});
  anywhere("^S_", {"S_25"}, {"xS_25"});
}

}  // namespace
}  // namespace cachalot::grammar
