// Whether two weights of a folder are the same one, written twice.
//
// Threads: splits the comparison over those of the context.
// Errors:  none; what is missing or has another shape is not the same.
#pragma once

#include <string>

#include "io/safetensors.h"
#include "kernels/context.h"

namespace cachalot::model {

// Types, shapes and bytes, scales and the parts of packed integers included. Reads the ends first,
// so two that differ are seldom read, and two that do not are read whole, once.
bool same_weight(const Context& ctx, const io::Safetensors& file, const std::string& a,
                 const std::string& b);

}  // namespace cachalot::model
