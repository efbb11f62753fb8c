// Numbers as people read them.
//
// Threads: any. Errors: none.
#pragma once

#include <cstdint>
#include <string>

namespace cachalot {

// "1,024": thousands apart, for messages.
std::string grouped(std::int64_t number);

}  // namespace cachalot
