// Machines of round figures for the tests of serving plans, and what a plan refuses.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "plan/infer.h"

namespace cachalot::plan {

// Round figures, so that a test can say what must come out.
inline HardwareProfile box(int per_node = 8) {
  HardwareProfile h;
  h.name = "box";
  h.device.name = "device";
  h.device.per_node = per_node;
  h.device.bf16_tflops = 1000;
  h.device.fp8_tflops = 2000;
  h.device.memory_gb = 80;
  h.device.memory_gbps = 3000;
  h.link.gbps = 200;
  h.network.gbps = 50;
  h.network.nics_per_node = per_node;
  h.price.device_hour = 2;
  return h;
}

inline HardwareProfile server() {
  HardwareProfile h = box(1);
  h.device.bf16_tflops = 1;
  h.device.fp8_tflops = 0;
  h.device.memory_gb = 400;
  h.device.memory_gbps = 200;
  h.link.gbps = 0;
  h.network = {};
  return h;
}

inline std::string error_of(const cost::Decoder& d, const HardwareProfile& h, const InferOptions& o,
                            Code code) {
  try {
    plan_infer(d, h, o);
  } catch (const Error& e) {
    EXPECT_EQ(code, e.code()) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

}  // namespace cachalot::plan
