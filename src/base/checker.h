// What single ranges of a configuration file cannot say: values that contradict each other.
//
// Owns:    nothing; the file's name has to outlive it.
// Threads: plain value.
// Errors:  kConfig, naming the file.
#pragma once

#include <string>

#include "base/error.h"

namespace cachalot {

class Checker {
 public:
  explicit Checker(const std::string& file_name) : file_name_(file_name) {}
  template <class... Parts>
  void need(bool good, const Parts&... text) const {
    if (!good) throw Error(Code::kConfig, cat(file_name_, ": ", text..., "."));
  }

 private:
  const std::string& file_name_;
};

}  // namespace cachalot
