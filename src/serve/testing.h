// For the tests of this folder: what a function throws, looked at.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "serve/api_error.h"

namespace cachalot::serve::testing {

// Fails unless `run` throws an ApiError of that code about that member, whose text has no control
// characters; returns the text.
template <class F>
std::string error_of(Code code, const std::string& param, F&& run) {
  try {
    std::forward<F>(run)();
  } catch (const ApiError& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    EXPECT_EQ(e.param(), param) << e.what();
    const std::string text = e.what();
    for (const char c : text + e.param()) {
      EXPECT_TRUE(static_cast<unsigned char>(c) >= 0x20 && c != 0x7F) << text;
    }
    return text;
  }
  ADD_FAILURE() << "no ApiError was thrown";
  return "";
}

}  // namespace cachalot::serve::testing
