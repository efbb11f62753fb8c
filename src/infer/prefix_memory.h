// Memory for payloads: slots of one size in huge pages, used again and again.
//
// A payload may be megabytes, and a fresh page of 4 KiB costs more to get from the system than to
// fill: without this most of the time of a restored prompt goes into page faults.
//
// Owns:    its slabs, until it goes; all slots must have been given back by then.
// Threads: any.
// Errors:  std::bad_alloc.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

namespace cachalot::infer {

class PayloadMemory {
 public:
  explicit PayloadMemory(std::size_t slot_bytes);  // what most requests ask for, at most
  ~PayloadMemory();
  PayloadMemory(const PayloadMemory&) = delete;
  PayloadMemory& operator=(const PayloadMemory&) = delete;

  // A slot where `bytes` nearly fills one, else as malloc.
  void* allocate(std::size_t bytes);
  void free(void* memory) noexcept;
  std::shared_ptr<std::byte> share(std::size_t bytes);

 private:
  bool holds(const void* memory) const noexcept;

  const std::size_t slot_bytes_;
  const std::size_t slots_per_slab_;
  std::mutex mutex_;
  std::vector<std::byte*> slabs_;  // by address
  std::vector<std::byte*> free_;   // the last given back first: its pages are there
};

}  // namespace cachalot::infer
