#include "base/atomic_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "base/error.h"

namespace cachalot {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

template <class Run>
std::string error_of(Code code, Run run) {
  try {
    run();
  } catch (const Error& e) {
    EXPECT_EQ(name(e.code()), name(code)) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

class AtomicFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "cachalot-base-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override { fs::remove_all(dir_); }

  int entries() const {
    return static_cast<int>(std::distance(fs::directory_iterator(dir_), fs::directory_iterator()));
  }

  fs::path dir_;
};

TEST_F(AtomicFileTest, WritesAndReplaces) {
  write_file_atomically(dir_ / "a", "one");
  EXPECT_EQ(read_file(dir_ / "a", 100), "one");
  const std::string binary("\0\n\xFF", 3);
  write_file_atomically(dir_ / "a", binary);
  EXPECT_EQ(read_file(dir_ / "a", 100), binary);
  write_file_atomically(dir_ / "a", "");
  EXPECT_EQ(read_file(dir_ / "a", 0), "");
  EXPECT_EQ(entries(), 1);
}

TEST_F(AtomicFileTest, NothingIsThereBeforeCommit) {
  write_file_atomically(dir_ / "a", "old");
  {
    AtomicFile file(dir_ / "a");
    file.write("new");
    EXPECT_EQ(read_file(dir_ / "a", 100), "old");
  }
  EXPECT_EQ(read_file(dir_ / "a", 100), "old");
  EXPECT_EQ(entries(), 1);  // the temporary went
}

TEST_F(AtomicFileTest, RelativePath) {
  const fs::path before = fs::current_path();
  fs::current_path(dir_);
  write_file_atomically("plain-name", "x");
  fs::current_path(before);
  EXPECT_EQ(read_file(dir_ / "plain-name", 1), "x");
}

TEST_F(AtomicFileTest, MissingFolder) {
  EXPECT_THAT(error_of(Code::kIo, [&] { write_file_atomically(dir_ / "no" / "a", "x"); }),
              HasSubstr("No such file or directory"));
  error_of(Code::kIo, [&] { sync_folder(dir_ / "no"); });
}

TEST_F(AtomicFileTest, TargetIsAFolder) {
  fs::create_directory(dir_ / "a");
  error_of(Code::kIo, [&] { write_file_atomically(dir_ / "a", "x"); });
  EXPECT_EQ(entries(), 1);
}

TEST_F(AtomicFileTest, FollowsALink) {
  fs::create_directory(dir_ / "there");
  write_file_atomically(dir_ / "there" / "a", "old");
  fs::create_symlink("there/a", dir_ / "link");
  fs::create_symlink("link", dir_ / "link of link");
  write_file_atomically(dir_ / "link of link", "new");
  EXPECT_EQ(read_file(dir_ / "there" / "a", 100), "new");
  EXPECT_TRUE(fs::is_symlink(dir_ / "link"));
  EXPECT_TRUE(fs::is_symlink(dir_ / "link of link"));
  EXPECT_EQ(entries(), 3);

  fs::create_symlink("there/b", dir_ / "dangling");
  write_file_atomically(dir_ / "dangling", "made");
  EXPECT_TRUE(fs::is_symlink(dir_ / "dangling"));
  EXPECT_EQ(read_file(dir_ / "there" / "b", 100), "made");

  fs::create_symlink("loop", dir_ / "loop");
  EXPECT_THAT(error_of(Code::kIo, [&] { write_file_atomically(dir_ / "loop", "x"); }),
              HasSubstr("loop"));
}

TEST_F(AtomicFileTest, LeavesADeviceWhereItIs) {
  fs::create_symlink("/dev/null", dir_ / "null");
  write_file_atomically(dir_ / "null", "gone");
  EXPECT_TRUE(fs::is_symlink(dir_ / "null"));
  EXPECT_TRUE(fs::is_character_file(dir_ / "null"));
  EXPECT_EQ(entries(), 1);
}

TEST_F(AtomicFileTest, WritesIntoAPipe) {
  const fs::path pipe = dir_ / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0666), 0);
  { const AtomicFile trial(pipe); }  // neither waits for a reader nor tells it of an end
  const int reader = ::open(pipe.c_str(), O_RDONLY | O_NONBLOCK);
  ASSERT_GE(reader, 0);
  write_file_atomically(pipe, "through");
  char text[16] = {};
  EXPECT_EQ(::read(reader, text, sizeof text), 7);
  EXPECT_STREQ(text, "through");
  ::close(reader);
  EXPECT_TRUE(fs::is_fifo(pipe));
  EXPECT_EQ(entries(), 1);
}

// A limit on file sizes stands for a full disk: write(2) stops half way in both.
TEST_F(AtomicFileTest, FullDiskKeepsTheOldFile) {
  write_file_atomically(dir_ / "a", "old");
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit low = old;
  low.rlim_cur = 1000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &low), 0);
  const std::string text =
      error_of(Code::kIo, [&] { write_file_atomically(dir_ / "a", std::string(100'000, 'x')); });
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_THAT(text, HasSubstr("cannot write " + (dir_ / "a").string() + ": File too large."));
  EXPECT_EQ(read_file(dir_ / "a", 100), "old");
  EXPECT_EQ(entries(), 1);
}

TEST_F(AtomicFileTest, ReadLimits) {
  write_file_atomically(dir_ / "a", "12345");
  EXPECT_EQ(read_file(dir_ / "a", 5), "12345");
  EXPECT_THAT(error_of(Code::kFormat, [&] { read_file(dir_ / "a", 4); }),
              HasSubstr("longer than the 4 bytes"));
  error_of(Code::kFormat, [] { read_file("/dev/zero", 1 << 20); });  // endless
  EXPECT_THAT(error_of(Code::kIo, [&] { read_file(dir_, 100); }), HasSubstr("Is a directory"));
  EXPECT_THAT(error_of(Code::kIo, [&] { read_file(dir_ / "b", 100); }),
              HasSubstr("No such file or directory"));
}

TEST_F(AtomicFileTest, LockNamesItsHolder) {
  const fs::path path = dir_ / "lock";
  {
    const FileLock lock(path);
    EXPECT_THAT(error_of(Code::kBusy, [&] { FileLock{path}; }),
                HasSubstr("is held by process " + std::to_string(getpid())));
  }
  FileLock again(path);  // released
  FileLock moved = std::move(again);
  error_of(Code::kBusy, [&] { FileLock{path}; });
}

TEST_F(AtomicFileTest, LockOfADeadProcessIsFree) {
  const fs::path path = dir_ / "lock";
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const FileLock lock(path);
    if (write(ready[1], "x", 1) != 1) _exit(1);
    for (;;) pause();
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_THAT(error_of(Code::kBusy, [&] { FileLock{path}; }),
              HasSubstr("is held by process " + std::to_string(child)));
  kill(child, SIGKILL);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  const FileLock lock(path);
  EXPECT_EQ(read_file(path, 100), std::to_string(getpid()) + "\n");
  close(ready[0]);
  close(ready[1]);
}

}  // namespace
}  // namespace cachalot
