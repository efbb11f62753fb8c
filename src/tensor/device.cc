#include "tensor/device.h"

namespace cachalot {

namespace {
thread_local Device* current_device = nullptr;
}  // namespace

MemoryScope::MemoryScope(Device* device) noexcept : before_(current_device) {
  current_device = device;
}
MemoryScope::~MemoryScope() { current_device = before_; }
Device* MemoryScope::current() noexcept { return current_device; }

}  // namespace cachalot
