// Stop strings over text that comes in pieces: text that could still become a stop string is held
// back, so that what was shown never has to be taken back.
//
// Threads: one caller.
// Errors:  kUsage: an empty stop string.
//
// The answer does not depend on how the text was cut into pieces: the first byte at which any stop
// string is complete ends the text; of several complete there, the longest counts.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace cachalot::infer {

class StopStrings {
 public:
  explicit StopStrings(std::vector<std::string> stops);

  // The text that is now certain to come before any stop string. After a stop: nothing more.
  std::string push(std::string_view piece);
  // The end of the text: what was held back.
  std::string finish();
  bool stopped() const noexcept { return stopped_; }
  const std::string& matched() const noexcept { return matched_; }  // "" until stopped

 private:
  std::vector<std::string> stops_;  // longest first
  std::string held_;
  std::string matched_;
  bool stopped_ = false;
};

}  // namespace cachalot::infer
