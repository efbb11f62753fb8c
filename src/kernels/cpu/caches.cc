#include "kernels/cpu/caches.h"

#include <fstream>
#include <string>

namespace cachalot::cpu {

namespace {

// "2048K" or "260M"; 0 where it is neither.
std::size_t parse_size(const std::string& text) {
  std::size_t value = 0;
  std::size_t i = 0;
  for (; i < text.size() && text[i] >= '0' && text[i] <= '9' && i < 9; ++i) {
    value = value * 10 + static_cast<std::size_t>(text[i] - '0');
  }
  if (i < text.size() && text[i] == 'K') value <<= 10;
  if (i < text.size() && text[i] == 'M') value <<= 20;
  return value;
}

std::string first_word(const std::string& path) {
  std::ifstream in(path);
  std::string word;
  in >> word;
  return word;
}

Caches read_caches() {
  Caches found;
  for (int i = 0; i < 8; ++i) {
    const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(i) + "/";
    const std::string type = first_word(folder + "type");
    if (type != "Data" && type != "Unified") continue;
    const std::size_t size = parse_size(first_word(folder + "size"));
    const std::string level = first_word(folder + "level");
    if (size == 0) continue;
    if (level == "1") found.l1d = size;
    if (level == "2") found.l2 = size;
    if (level == "3") found.l3 = size;
  }
  return found;
}

}  // namespace

const Caches& caches() {
  static const Caches once = read_caches();
  return once;
}

}  // namespace cachalot::cpu
