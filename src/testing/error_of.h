// What a call that has to fail says.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "base/error.h"

namespace cachalot::testing {

// The text of the Error that `run` throws, which has to have this code.
template <class F>
std::string error_of(Code code, F&& run) {
  try {
    std::forward<F>(run)();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

}  // namespace cachalot::testing
