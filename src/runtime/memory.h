// How much memory a program may still take.
//
// Threads: any.
#pragma once

#include <cstddef>

namespace cachalot::runtime {

// Bytes that can be taken without pushing anything out: what the system counts as available, or
// what the control group of this process leaves, whichever is less; 0 where neither is known.
std::size_t available_memory();

// Bytes of this process in memory; 0 where the system does not say.
std::size_t resident_memory();

}  // namespace cachalot::runtime
