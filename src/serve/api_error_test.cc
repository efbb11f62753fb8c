#include "serve/api_error.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace cachalot::serve {
namespace {

TEST(ApiErrorTest, TheClientsFaultsTheServersAndTheWaitEachHaveAStatus) {
  for (const Code code : {Code::kUsage, Code::kUnsupported}) EXPECT_EQ(http_status(code), 400);
  for (const Code code : {Code::kBusy, Code::kInterrupted}) EXPECT_EQ(http_status(code), 503);
  for (const Code code :
       {Code::kConfig, Code::kFormat, Code::kIo, Code::kShape, Code::kNumeric, Code::kInternal}) {
    EXPECT_EQ(http_status(code), 500) << name(code);
  }
}

TEST(ApiErrorTest, HasTheFourMembersOfTheApi) {
  EXPECT_EQ(error_json(400, "n is 0", "n", "bad_n").dump(),
            R"({"error":{"message":"n is 0","type":"invalid_request_error","param":"n",)"
            R"("code":"bad_n"}})");
  EXPECT_EQ(error_json(500, "x").dump(),
            R"({"error":{"message":"x","type":"server_error","param":null,"code":null}})");
}

TEST(ApiErrorTest, TheTypeFollowsTheStatus) {
  const auto type = [](int status) { return error_json(status, "x")["error"]["type"]; };
  for (const int status : {400, 404, 405, 413, 415}) {
    EXPECT_EQ(type(status), "invalid_request_error") << status;
  }
  EXPECT_EQ(type(401), "authentication_error");
  EXPECT_EQ(type(503), "overloaded_error");
  EXPECT_EQ(type(500), "server_error");
  EXPECT_EQ(type(507), "server_error");
}

TEST(ApiErrorTest, RepliesWithWhatAnErrorKnows) {
  const ErrorReply api =
      error_reply(ApiError(Code::kUsage, "too long", "messages", "context_length_exceeded"));
  EXPECT_EQ(api.status, 400);
  EXPECT_EQ(api.body, error_json(400, "too long", "messages", "context_length_exceeded"));

  const ErrorReply busy = error_reply(Error(Code::kBusy, "64 requests wait: try again"));
  EXPECT_EQ(busy.status, 503);
  EXPECT_EQ(busy.body, error_json(503, "64 requests wait: try again"));
}

TEST(ApiErrorTest, DoesNotTellStrangersAboutThisMachine) {
  const std::string secret = "/srv/models/secret.safetensors";
  for (const Code code : {Code::kIo, Code::kFormat, Code::kConfig, Code::kInternal}) {
    const ErrorReply reply = error_reply(Error(code, "cannot read " + secret));
    EXPECT_EQ(reply.status, 500);
    const std::string message = reply.body["error"]["message"];
    EXPECT_EQ(message.find(secret), std::string::npos);
    EXPECT_NE(message.find(name(code)), std::string::npos) << message;
  }
  const ErrorReply other = error_reply(std::runtime_error(secret));
  EXPECT_EQ(other.status, 500);
  EXPECT_EQ(other.body.dump().find(secret), std::string::npos);
}

}  // namespace
}  // namespace cachalot::serve
