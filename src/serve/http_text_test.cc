#include "serve/http_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cachalot::serve {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST(HttpText, ThePathOfATargetIsDecodedWithoutItsQuery) {
  EXPECT_EQ("/v1/models", request_path("/v1/models"));
  EXPECT_EQ("/", request_path("/?a=/b"));
  EXPECT_EQ("/a", request_path("/a#b"));
  EXPECT_EQ("/v1/models/a b/c", request_path("/v1/models/a%20b%2Fc"));
  EXPECT_EQ("/x", request_path("http://example.org/x?y"));
  EXPECT_EQ("/", request_path("https://example.org"));
  EXPECT_EQ("/http://x", request_path("/http://x"));
}

TEST(HttpText, TargetsThatAreNoPathAreRefused) {
  for (const char* target : {"", "*", "x", "?a", "/%", "/%2", "/%zz", "/a%00b", "/a%0d", "/%7f"}) {
    EXPECT_EQ(std::nullopt, request_path(target)) << target;
  }
}

TEST(HttpText, TheHeadSaysHowLongTheBodyIsAndWhetherTheConnectionStays) {
  const HttpResponse response{.status = 404, .content_type = "a/b", .headers = {{"X", "y"}}};
  const std::string known = response_head(response, {.length = 12});
  EXPECT_THAT(known, StartsWith("HTTP/1.1 404 Not Found\r\n"));
  EXPECT_THAT(known, EndsWith("X: y\r\n\r\n"));
  EXPECT_THAT(known, HasSubstr("Content-Type: a/b\r\nContent-Length: 12\r\n"));
  EXPECT_THAT(known, Not(HasSubstr("Connection")));
  const std::string open = response_head(response, {.length = {}, .keep_alive = false});
  EXPECT_THAT(open, HasSubstr("Transfer-Encoding: chunked\r\nConnection: close\r\n"));
  const std::string old =
      response_head(response, {.length = {}, .keep_alive = false, .http10 = true});
  EXPECT_THAT(old, StartsWith("HTTP/1.0 404 "));
  EXPECT_THAT(old, Not(HasSubstr("chunked")));
}

TEST(HttpText, AnAnswerWithoutABodyHasNoLength) {
  const std::string head = response_head({.status = 204, .content_type = ""}, {.length = 0});
  EXPECT_THAT(head, StartsWith("HTTP/1.1 204 No Content\r\n"));
  EXPECT_THAT(head, Not(HasSubstr("Content-Length")));
  EXPECT_THAT(head, Not(HasSubstr("Transfer-Encoding")));
}

TEST(HttpText, PiecesAreChunksWithTheirLengthInHexadecimal) {
  std::string out;
  append_piece(out, std::string(26, 'z'), true);
  EXPECT_EQ("1a\r\n" + std::string(26, 'z') + "\r\n", out);
  append_piece(out, "x", false);
  EXPECT_THAT(out, EndsWith("\r\nx"));
}

TEST(HttpText, OnlyBusyErrorsAskToComeAgain) {
  EXPECT_EQ(1u, error_response(503, "{}").headers.size());
  EXPECT_EQ("Retry-After", error_response(503, "{}").headers[0].first);
  EXPECT_TRUE(error_response(400, "{}").headers.empty());
}

}  // namespace
}  // namespace cachalot::serve
