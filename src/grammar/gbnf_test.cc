#include "grammar/gbnf.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "grammar/accepts.h"
#include "grammar/automaton.h"

namespace cachalot::grammar {
namespace {

using Texts = std::vector<std::string>;

void expect(std::string_view grammar, const Texts& yes, const Texts& no) {
  const Automaton automaton = compile(parse_gbnf(grammar));
  for (const std::string& text : yes)
    EXPECT_TRUE(accepts(automaton, text)) << grammar << ": " << text;
  for (const std::string& text : no)
    EXPECT_FALSE(accepts(automaton, text)) << grammar << ": " << text;
}

void expect_refused(std::string_view grammar, std::string_view code, std::string_view part) {
  try {
    parse_gbnf(grammar);
    ADD_FAILURE() << grammar << " is read";
  } catch (const Error& e) {
    const std::string said = cat(name(e.code()), " ", e.what());
    EXPECT_TRUE(said.starts_with(code)) << grammar << ": " << said;
    EXPECT_NE(said.find(part), std::string::npos) << grammar << ": " << said;
    EXPECT_LT(said.size(), 300u);
  }
}

TEST(GbnfTest, Literals) {
  expect(R"(root ::= "abc")", {"abc"}, {"", "ab", "abcd"});
  expect(R"(root ::= "")", {""}, {"a"});
  expect(R"(root ::= "a" "" "ä€😀")", {"aä€😀"}, {"a"});
  expect(R"(root ::= "\n\r\t\"\\\[\]\-")", {"\n\r\t\"\\[]-"}, {});
  expect(R"(root ::= "\x41\u00e4\u20AC\U0001F600")", {"Aä€😀"}, {});
  expect("root ::= \"two\nlines # and no comment\"", {"two\nlines # and no comment"}, {"two"});
}

TEST(GbnfTest, ClassesAndAnyCharacter) {
  expect("root ::= [abx-z0]", {"a", "b", "y", "0"}, {"c", "-", "", "ab"});
  expect("root ::= [^a-c\\n]", {"d", "ä", "^"}, {"a", "\n", ""});
  expect("root ::= [-a] [a-] [a^]", {"--^", "aaa"}, {"b--"});
  expect(R"(root ::= [\]\[\\"])", {"]", "[", "\\", "\""}, {"a"});
  expect(R"(root ::= [\x41-\u0043\U0001F600-\U0001F64F])", {"B", "😀"}, {"D"});
  expect("root ::= [ぁ-ゟ]+", {"ひらがな"}, {"カ", ""});
  expect("root ::= [.*+?(){}|#<!]+", {".*+?(){}|#<!"}, {"a"});
  expect("root ::= .", {"a", "\n", "😀", std::string(1, '\0')}, {"", "ab", "\xFF"});
}

TEST(GbnfTest, RulesGroupsAndAlternatives) {
  expect("root ::= a | b-2 c_3 | D\na ::= \"a\"\nb-2 ::= \"b\"\nc_3 ::= \"c\"\nD ::= \"d\"",
         {"a", "bc", "d"}, {"b", "ac", ""});
  expect(R"(root ::= "a" ("b" | "c" "d") "e")", {"abe", "acde"}, {"ae", "abde"});
  expect(R"(root ::= "a" | )", {"a", ""}, {"b"});
  expect(R"(root ::= | "a")", {"a", ""}, {"b"});
  expect(R"(root ::= ("a" | ) "b" ())", {"ab", "b"}, {"a"});
  expect("x ::= \"x\"\nroot ::= x 2nd\n2nd ::= x", {"xx"}, {"x"});
  expect(R"g(root ::= "(" root ")" | "")g", {"", "()", "((()))"}, {"(", "(()"});
}

TEST(GbnfTest, Repetitions) {
  expect(R"(root ::= "ab"* "c"+ "d"?)", {"c", "ababccd"}, {"", "abb", "cdd"});
  expect(R"(root ::= [ab]{2})", {"ab"}, {"a", "aba"});
  expect(R"(root ::= "a"{2,})", {"aa", "aaaa"}, {"a"});
  expect(R"(root ::= "a"{1,3})", {"a", "aaa"}, {"", "aaaa"});
  expect(R"(root ::= ("a" | "b" x){ 0 , 2 } "!"
x ::= "x")",
         {"!", "abx!", "bxbx!"}, {"aaa!"});
  expect(R"(root ::= "a" * "b" {2})", {"bb", "aabb"}, {"b"});
  expect(R"(root ::= "a"+? "b"**)", {"", "aab", "bb"}, {"ba"});
  expect(R"(root ::= "a"{0} "b")", {"b"}, {"ab"});
}

TEST(GbnfTest, LinesAndComments) {
  expect("# first\n\n  \nroot ::= # here\n  \"a\" # and there\n\n# last", {"a"}, {""});
  expect("root ::=\r\n \"a\"\r\n\r\n", {"a"}, {""});
  expect("root ::= \"a\"\rx ::= \"b\"", {"a"}, {"b"});
  expect("root ::= (\n  # inside\n  \"a\"\n  \"b\"\n  | \"c\" # or\n)+\n", {"ab", "cabc"},
         {"a", ""});
}

TEST(GbnfTest, ARuleGoesOnBehindABar) {
  expect("root ::= \"a\" |\n  \"b\" |  # more\n\n  \"c\"\n", {"a", "b", "c"}, {""});
  expect("root ::= \"a\"\n  | \"b\" # more\n# still more\n\n  | \"c\"\nx ::= \"x\"",
         {"a", "b", "c"}, {"", "x"});
}

TEST(GbnfTest, TokensAreTheirWholeContent) {
  const Grammar grammar = parse_gbnf("root ::= <think> [a-z]* </think> <｜User｜>");
  Texts contents;
  const Automaton automaton = compile(grammar, [&](std::string_view content) {
    contents.emplace_back(content);
    return std::optional<std::int32_t>(256 + static_cast<std::int32_t>(contents.size()));
  });
  EXPECT_EQ(contents, (Texts{"<think>", "</think>", "<｜User｜>"}));
  const auto token = [](char low) { return std::string{'\xFF', low, '\x01', '\0', '\0'}; };
  EXPECT_TRUE(accepts(automaton, token(1) + "ab" + token(2) + token(3)));
  EXPECT_FALSE(accepts(automaton, "<think>ab</think><｜User｜>"));
}

TEST(GbnfTest, Arithmetic) {
  expect(R"g(
root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*
)g",
         {"x=1\n", "1 +(2*x_1)/3 = y\n", "1=1\n2=2\n"}, {"", "1+=2\n", "(1=1\n", "1=1"});
}

TEST(GbnfTest, Json) {
  expect(R"(
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws (
             string ":" ws value
             ("," ws string ":" ws value)*
           )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [1-9] [0-9]{0,15})? ws
ws     ::= | " " | "\n" [ \t]{0,20}
)",
         {"{}", R"({"a": [1, -2.5e3, "x\u00e4\n", {}], "b":null})", "{\n  \"a\": true\n}"},
         {"", "[]", "{a: 1}", R"({"a": 1,})", R"({"a": "\x"})"});
}

TEST(GbnfTest, ListsAndMoves) {
  expect(
      "root ::= item+\n\n# one line each\nitem ::= \"- \" [^\\r\\n\\x0b\\x0c\\u0085\\u2028]+ "
      "\"\\n\"\n",
      {"- a\n- b c\n"}, {"", "- \n", "a\n"});
  expect(R"(# moves of a game
root    ::= (
    "1. " move " " move "\n"
    # later ones
    ([1-9] [0-9]? ". " move " " move "\n")+
)
move    ::= (pawn | nonpawn | castle) [+#]?
nonpawn ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
pawn    ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
castle  ::= "O-O" "-O"?
)",
         {"1. e4 e5\n2. Nf3 Nc6\n3. O-O exd4+\n"},
         {"1. e4 e5\n", "1. e4\n", "1. i4 e5\n2. e4 e4\n"});
}

TEST(GbnfTest, MistakesAreToldWithLineAndColumn) {
  expect_refused("", "usage", "no rule is called root");
  expect_refused("a ::= \"a\"", "usage", "no rule is called root");
  expect_refused("a ::= root", "usage", "line 1, column 7: the rule \"root\" is used here");
  expect_refused("root ::= a\n  | b\na ::= \"a\"", "usage",
                 "line 2, column 5: the rule \"b\" is used here and defined nowhere");
  expect_refused("root ::= a\na ::= \"a\"\r\na ::= \"b\"", "usage",
                 "line 3, column 1: the rule \"a\" is defined in line 2 already");
  expect_refused("root = \"a\"", "usage", "line 1, column 6: met '=', needed ::= behind");
  expect_refused("root", "usage", "met the end, needed ::=");
  expect_refused("root ::= \"a\"\n= b", "usage", "line 2, column 1: met '=', needed the name");
  expect_refused("root ::= \"ä\" )", "usage", "line 1, column 14: met ')', needed a literal");
  expect_refused("root ::= a ::= b", "usage", "column 12: met ':'");
  expect_refused("root ::= \"abc", "usage", "column 10: this literal has no closing");
  expect_refused("root ::= \"\\", "usage", "no such escape");
  expect_refused("root ::= \"\\q\"", "usage", "column 11: no such escape");
  expect_refused("root ::= \"\\x4\"", "usage", "2 hexadecimal digits");
  expect_refused("root ::= \"\\u12G4\"", "usage", "4 hexadecimal digits");
  expect_refused("root ::= [\\U00110000]", "usage", "last character");
  expect_refused("root ::= [\\UFFFFFFFF]", "usage", "last character");
  expect_refused("root ::= \"\\uD83D\\uDE00\"", "usage", "surrogate");
  expect_refused("root ::= [a", "usage", "no closing ]");
  expect_refused("root ::= [a-", "usage", "no closing ]");
  expect_refused("root ::= []", "usage", "empty class");
  expect_refused("root ::= [^]", "usage", "empty class");
  expect_refused("root ::= [z-a]", "usage", "column 11: this range ends before");
  expect_refused("root ::= (\"a\"\nx ::= \"b\"", "usage", "line 2, column 3: met ':'");
  expect_refused("root ::= (\"a\"", "usage", "column 10: this group has no closing )");
  expect_refused("root ::= * \"a\"", "usage", "column 10: nothing stands before");
  expect_refused("root ::= \"a\" | +", "usage", "nothing stands before");
  expect_refused("root ::= \"a\"{", "usage", "met the end, needed a count");
  expect_refused("root ::= \"a\"{,3}", "usage", "met ',', needed a count");
  expect_refused("root ::= \"a\"{3 4}", "usage", "met '4', needed a count");
  expect_refused("root ::= \"a\"{3,2}", "usage", "larger number");
  expect_refused("root ::= \"a\"{100001}", "usage", "at most 100000");
  expect_refused("root ::= \"a\"{1,18446744073709551617}", "usage", "at most 100000");
  expect_refused("root ::= <[1000]>", "unsupported", "by their number");
  expect_refused("root ::= !<think>", "unsupported", "excluded");
  expect_refused("root ::= <think", "usage", "no closing >");
  expect_refused("root ::= <think\n>", "usage", "no closing >");
  expect_refused("root ::= <>", "usage", "no token");
  expect_refused("root ::= \"a\xC3\"", "usage", "not UTF-8");
  expect_refused(std::string("root ::= \0", 10), "usage", "needed a literal");
  expect_refused(std::string(5000, 'x') + " = ", "usage", "needed ::=");
}

TEST(GbnfTest, StrangersGrammarsAreBounded) {
  expect_refused(std::string((1 << 20) + 1, ' '), "usage", "at most 1048576");
  expect_refused("root ::= " + std::string(201, '('), "usage", "groups lie at most 200 deep");
  expect_refused("root ::= \"a\"" + std::string(201, '*'), "usage", "at most 200 repetitions");
  expect("root ::= " + std::string(200, '(') + "\"a\"" + std::string(200, ')'), {"a"}, {""});
  EXPECT_THROW(compile(parse_gbnf(R"(root ::= (("a"{1000}){1000}){1000})")), Error);
  try {
    compile(parse_gbnf("root ::= <a\x01" + std::string(5000, 'b') + ">"));
    ADD_FAILURE() << "a token without a vocabulary";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("\"<a?bbb"), std::string::npos) << e.what();
    EXPECT_LT(std::string(e.what()).size(), 300u);
  }
  EXPECT_THROW(compile(parse_gbnf("root ::= root \"a\" | \"a\"")), Error);
}

}  // namespace
}  // namespace cachalot::grammar
