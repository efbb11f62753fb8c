// Parts that the pages of several commands have: the model, the hardware and its sources.
#pragma once

#include "cost/decoder.h"
#include "plan/hardware.h"
#include "report/page.h"

namespace cachalot::cli {

report::Facts model_facts(const cost::Decoder& decoder);
// The figures of a profile that plans are made from, by group, each with where it was read.
report::Table hardware_table(const plan::HardwareProfile& hardware);

}  // namespace cachalot::cli
