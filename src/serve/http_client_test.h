// For the server's tests: a client that sends what it is told to, HTTP or not, and shows what comes
// back.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace cachalot::serve {

class RawClient {
 public:
  // `receive_buffer`: of the socket, for one that reads little; 0: the system's.
  explicit RawClient(std::uint16_t port, int receive_buffer = 0)
      : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_buffer > 0) {
      ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
    }
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(0, ::connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof(to)));
  }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;
  ~RawClient() { close(); }

  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  void send(std::string_view bytes) const {
    while (!bytes.empty()) {
      const auto sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;  // closed by the other side: what is read tells
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
  }
  // All that comes until `end` has come, the connection ends, or nothing comes for long.
  std::string read_until(std::string_view end) {
    std::string all;
    while (end.empty() || all.find(end) == std::string::npos) {
      const std::string more = some();
      if (more.empty()) break;
      all += more;
    }
    return all;
  }
  std::string read_all() { return read_until(""); }
  // One answer with a Content-Length.
  std::string read_answer() {
    std::string all = read_until("\r\n\r\n");
    const auto head = all.find("\r\n\r\n"), length = all.find("Content-Length: ");
    if (head == std::string::npos || length > head) return all;
    const std::size_t whole = head + 4 + std::stoul(all.substr(length + 16));
    while (all.size() < whole) {
      const std::string more = some();
      if (more.empty()) break;
      all += more;
    }
    rest_ = all.substr(std::min(whole, all.size()));
    return all.substr(0, whole);
  }

 private:
  std::string some() {
    if (!rest_.empty()) return std::exchange(rest_, {});
    pollfd wait{.fd = fd_, .events = POLLIN, .revents = 0};
    if (::poll(&wait, 1, 20000) <= 0) return {};
    char buffer[4096];
    const auto got = ::recv(fd_, buffer, sizeof(buffer), 0);
    return got > 0 ? std::string(buffer, static_cast<std::size_t>(got)) : std::string();
  }

  int fd_ = -1;
  std::string rest_;  // of a further answer
};

inline int status_of(std::string_view answer) {
  if (!answer.starts_with("HTTP/1.") || answer.size() < 12) return 0;
  return std::stoi(std::string(answer.substr(9, 3)));
}
inline std::string body_of(const std::string& answer) {
  const auto head = answer.find("\r\n\r\n");
  return head == std::string::npos ? "" : answer.substr(head + 4);
}

// True once `what` holds, which it does soon where nothing is wrong.
template <class What>
bool soon(What&& what) {
  for (int i = 0; i < 2000; ++i) {
    if (what()) return true;
    ::usleep(10000);
  }
  return false;
}

}  // namespace cachalot::serve
