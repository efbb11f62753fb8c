#include "serve/api_keys.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "base/error.h"

namespace cachalot::serve {
namespace {

// 16 characters, the fewest there may be, and ones that differ from it in one place.
const std::string kKey = "abcdefgh12345678";
const std::string kFirstDiffers = "Xbcdefgh12345678";
const std::string kLastDiffers = "abcdefgh12345679";

std::optional<std::string> name_of(const ApiKeys& keys, const std::string& key) {
  return keys.name_of("Bearer " + key);
}

// What parse says of `text`, and that it does not say a key.
std::string refusal(const std::string& text, Code code) {
  try {
    ApiKeys::parse(text, "keys.txt");
  } catch (const Error& error) {
    EXPECT_EQ(name(code), name(error.code())) << error.what();
    EXPECT_EQ(std::string::npos, std::string(error.what()).find("abcdefgh")) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "not refused: " << text;
  return "";
}

class TemporaryFile {
 public:
  TemporaryFile() {
    std::string pattern = (std::filesystem::temp_directory_path() / "keys-XXXXXX").string();
    const int fd = ::mkstemp(pattern.data());
    EXPECT_GE(fd, 0);
    ::close(fd);
    path_ = pattern;
  }
  ~TemporaryFile() { std::filesystem::remove(path_); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::filesystem::path& path() const { return path_; }
  void write(const std::string& text) const { std::ofstream(path_, std::ios::binary) << text; }

 private:
  std::filesystem::path path_;
};

TEST(ApiKeys, WithoutAFileNobodyNeedsOne) {
  const ApiKeys keys;
  EXPECT_FALSE(keys.required());
  EXPECT_EQ(std::nullopt, name_of(keys, kKey));
}

TEST(ApiKeys, NamesKeysCommentsAndBlankLines) {
  const ApiKeys keys =
      ApiKeys::parse("# who may ask\n\n  \t\nalice " + kKey + "\n" + kFirstDiffers +
                         "   # a script\n\tbob\t" + kLastDiffers + "  ",
                     "keys.txt");
  EXPECT_TRUE(keys.required());
  EXPECT_EQ(3U, keys.size());
  EXPECT_EQ("alice", name_of(keys, kKey));
  EXPECT_EQ("line 5", name_of(keys, kFirstDiffers));
  EXPECT_EQ("bob", name_of(keys, kLastDiffers));  // the last line needs no end
}

TEST(ApiKeys, LinesMayEndAsWindowsEndsThemAndTheFileBeginWithAByteOrderMark) {
  const ApiKeys keys =
      ApiKeys::parse("\xEF\xBB\xBF# keys\r\nalice " + kKey + "\r\n\r\n", "keys.txt");
  EXPECT_EQ(1U, keys.size());
  EXPECT_EQ("alice", name_of(keys, kKey));
}

TEST(ApiKeys, ANumberSignInsideAWordBelongsToIt) {
  const ApiKeys keys = ApiKeys::parse("a#1 " + kKey + "#9 #b", "keys.txt");
  EXPECT_EQ("a#1", name_of(keys, kKey + "#9"));
  EXPECT_EQ(std::nullopt, name_of(keys, kKey));
}

TEST(ApiKeys, OnlyTheWholeKeyIsRight) {
  const ApiKeys keys = ApiKeys::parse("alice " + kKey, "keys.txt");
  for (const std::string& wrong :
       {kFirstDiffers, kLastDiffers, kKey.substr(1), kKey.substr(0, kKey.size() - 1), kKey + "9",
        kKey + std::string(1, '\0'), std::string("alice"), std::string(),
        std::string(1 << 20, 'a')}) {
    EXPECT_EQ(std::nullopt, name_of(keys, wrong)) << wrong.substr(0, 40);
  }
}

TEST(ApiKeys, TheSchemeIsBearerInAnyCaseWithBlanksAround) {
  const ApiKeys keys = ApiKeys::parse(kKey, "keys.txt");
  for (const std::string& right :
       {"Bearer " + kKey, "bearer " + kKey, "BEARER " + kKey, " \tBearer \t  " + kKey + " \t"}) {
    EXPECT_EQ("line 1", keys.name_of(right)) << right;
  }
  for (const std::string& wrong :
       {kKey, "Basic " + kKey, "Bearer" + kKey, "Bearers " + kKey, "Beare " + kKey,
        "Bearer " + kKey + " " + kKey, "Bearer x " + kKey, "Bearer:" + kKey, "Bearer #" + kKey,
        "Bearer " + kKey + " #", std::string("Bearer"), std::string("Bearer "), std::string(" "),
        std::string()}) {
    EXPECT_EQ(std::nullopt, keys.name_of(wrong)) << wrong;
  }
}

TEST(ApiKeys, RefusesWhatIsNoLineOfKeysAndNeverShowsAKey) {
  const std::string first = "alice " + kKey + "\n";
  EXPECT_NE(std::string::npos,
            refusal(first + "bob " + kKey + "\n", Code::kFormat).find("keys.txt:2: "));
  EXPECT_NE(std::string::npos, refusal(first + "bob " + kKey, Code::kFormat).find("key of line 1"));
  EXPECT_NE(std::string::npos,
            refusal(first + "\nalice " + kLastDiffers, Code::kFormat).find("name of line 1"));
  EXPECT_NE(std::string::npos, refusal(kKey + " and more", Code::kFormat).find("3 words"));
  EXPECT_NE(
      std::string::npos,
      refusal(kKey.substr(0, 15), Code::kFormat).find("15 characters, but a key must have 16"));
  EXPECT_NE(std::string::npos,
            refusal("alice " + kKey.substr(0, 15), Code::kFormat).find("15 characters"));
  EXPECT_NE(std::string::npos, refusal(kKey + "\x01", Code::kFormat).find("control character"));
  EXPECT_NE(std::string::npos,
            refusal(kKey + "\r" + kKey, Code::kFormat).find("control character"));
  EXPECT_NE(std::string::npos,
            refusal(kKey + std::string(1, '\0'), Code::kFormat).find("control character"));
  EXPECT_NE(std::string::npos, refusal(kKey + "\xC3\xA9", Code::kFormat).find("not ASCII"));
  EXPECT_NE(std::string::npos,
            refusal("a\x1B[2J " + kKey, Code::kFormat).find("control character"));
}

TEST(ApiKeys, LengthsHaveBounds) {
  const std::string longest = std::string(ApiKeys::kMostKeyBytes, 'k');
  EXPECT_EQ("line 1", name_of(ApiKeys::parse(longest, "keys.txt"), longest));
  EXPECT_NE(std::string::npos, refusal(longest + "k", Code::kFormat).find("513 characters"));
  const std::string name = std::string(ApiKeys::kMostNameBytes, 'n');
  EXPECT_EQ(name, name_of(ApiKeys::parse(name + " " + kKey, "keys.txt"), kKey));
  // A key in the place of the name is not shown either.
  EXPECT_NE(std::string::npos,
            refusal(longest.substr(0, 65) + " " + kKey, Code::kFormat).find("65 characters"));

  std::string many;
  for (std::size_t i = 0; i < ApiKeys::kMostKeys; ++i) many += kKey + std::to_string(i) + "\n";
  EXPECT_EQ(ApiKeys::kMostKeys, ApiKeys::parse(many, "keys.txt").size());
  EXPECT_NE(std::string::npos, refusal(many + kKey, Code::kFormat).find("more than 4096 keys"));
}

TEST(ApiKeys, AFileWithoutKeysIsAMistake) {
  for (const char* text : {"", "\n\n", "# nothing yet\n", "\xEF\xBB\xBF"}) {
    EXPECT_NE(std::string::npos, refusal(text, Code::kUsage).find("keys.txt has no key"));
  }
}

TEST(ApiKeys, LoadsAFileAndSaysWhyNot) {
  const TemporaryFile file;
  file.write("alice " + kKey + "\n");
  EXPECT_EQ("alice", name_of(ApiKeys::load(file.path()), kKey));
  file.write("#" + std::string(1 << 20, '-'));  // one byte too long
  try {
    ApiKeys::load(file.path());
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(Code::kFormat, error.code());
    EXPECT_NE(std::string::npos, std::string(error.what()).find(file.path().string()));
  }
  try {
    ApiKeys::load(file.path().string() + ".none");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(Code::kIo, error.code());
    EXPECT_NE(std::string::npos, std::string(error.what()).find(".none"));
  }
}

TEST(ApiKeys, WarnsOfAFileThatOthersMayReadOrChange) {
  const TemporaryFile file;
  for (const mode_t mode : {0600U, 0400U, 0700U}) {
    ASSERT_EQ(0, ::chmod(file.path().c_str(), mode));
    EXPECT_EQ(std::nullopt, ApiKeys::warning(file.path())) << mode;
  }
  for (const auto& [mode, shown] :
       {std::pair(0604U, "604"), {0640U, "640"}, {0620U, "620"}, {0602U, "602"}, {0777U, "777"}}) {
    ASSERT_EQ(0, ::chmod(file.path().c_str(), mode));
    const std::optional<std::string> warning = ApiKeys::warning(file.path());
    ASSERT_TRUE(warning) << shown;
    EXPECT_NE(std::string::npos, warning->find(std::string("mode ") + shown)) << *warning;
    EXPECT_NE(std::string::npos, warning->find("chmod 600 " + file.path().string())) << *warning;
  }
  EXPECT_EQ(std::nullopt, ApiKeys::warning(file.path().string() + ".none"));  // load says that
}

}  // namespace
}  // namespace cachalot::serve
