#include "base/processes.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <map>
#include <utility>

#include "base/error.h"

namespace cachalot {

namespace {

// What a child leaves in its file: one character (`=` text, or `!` and the code of an Error), text.
constexpr char kText = '=', kError = '!';

// Closes when it goes.
class File {
 public:
  File() : fd_(memfd_create("task", MFD_CLOEXEC)) {
    if (fd_ < 0) throw Error(Code::kIo, cat("no memory for a task: ", std::strerror(errno)));
  }
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  File& operator=(File&&) = delete;
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  bool write(const std::string& text) const noexcept {
    for (std::size_t at = 0; at < text.size();) {
      const ssize_t wrote = ::write(fd_, text.data() + at, text.size() - at);
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote <= 0) return false;
      at += static_cast<std::size_t>(wrote);
    }
    return true;
  }
  std::string read() const {
    struct stat about {};
    if (fstat(fd_, &about) != 0) return {};
    std::string text(static_cast<std::size_t>(about.st_size), '\0');
    std::size_t at = 0;
    while (at < text.size()) {
      const ssize_t got = pread(fd_, text.data() + at, text.size() - at, static_cast<off_t>(at));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) break;
      at += static_cast<std::size_t>(got);
    }
    text.resize(at);
    return text;
  }

 private:
  int fd_;
};

// In the child. No destructors at the end: what is shared with the parent is the parent's.
[[noreturn]] void work_and_exit(const File& file, std::size_t task,
                                const std::function<std::string(std::size_t)>& work) {
  std::string text;
  try {
    text = kText + work(task);
  } catch (const Error& e) {
    text = cat(kError, static_cast<char>('a' + static_cast<int>(e.code())), e.what());
  } catch (const std::exception& e) {
    text = cat(kError, static_cast<char>('a' + static_cast<int>(Code::kInternal)), e.what());
  }
  _exit(file.write(text) ? 0 : 1);
}

struct Child {
  std::size_t task;
  File file;
};

// One child's text, or its error.
std::string text_of(const Child& child, int status) {
  const std::string text = child.file.read();
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && !text.empty()) {
    if (text[0] == kText) return text.substr(1);
    if (text.size() > 1) throw Error(static_cast<Code>(text[1] - 'a'), text.substr(2));
  }
  throw Error(Code::kInternal, cat("the process of task ", child.task, " ended with ",
                                   WIFSIGNALED(status) ? cat("signal ", WTERMSIG(status))
                                                       : cat("status ", WEXITSTATUS(status)),
                                   ". If the machine ran out of memory, use fewer --threads."));
}

}  // namespace

std::vector<std::string> in_processes(std::size_t tasks, int at_once,
                                      const std::function<std::string(std::size_t)>& work) {
  std::vector<std::string> texts(tasks);
  std::map<std::size_t, Error> errors;  // by task
  std::map<pid_t, Child> children;
  const std::size_t most = static_cast<std::size_t>(std::max(at_once, 1));
  for (std::size_t next = 0; next < tasks || !children.empty();) {
    while (errors.empty() && next < tasks && children.size() < most) {
      File file;
      const pid_t pid = fork();
      if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);  // whoever waits for the result is gone: so is the work
        work_and_exit(file, next, work);
      }
      if (pid < 0) {
        errors.emplace(next,
                       Error(Code::kIo, cat("cannot start a process: ", std::strerror(errno))));
        break;
      }
      children.emplace(pid, Child{next++, std::move(file)});
    }
    if (children.empty()) break;
    int status = 0;
    // Any of ours: this process may have other children, whose end is not ours to take.
    const auto ended = std::find_if(children.begin(), children.end(), [&](const auto& child) {
      return waitpid(child.first, &status, children.size() == 1 ? 0 : WNOHANG) == child.first;
    });
    if (ended == children.end()) {
      usleep(2000);
      continue;
    }
    try {
      texts[ended->second.task] = text_of(ended->second, status);
    } catch (const Error& e) {
      errors.emplace(ended->second.task, e);
    }
    children.erase(ended);
  }
  if (!errors.empty()) throw errors.begin()->second;
  return texts;
}

}  // namespace cachalot
