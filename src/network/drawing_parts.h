// Shared by the pictures.
#pragma once

#include <string>

namespace cachalot::network {

std::string escaped(const std::string& text);  // for XML

}  // namespace cachalot::network
