// Little-endian numbers into and out of a row of bytes; the reader never leaves its span.
//
// Threads: values.
// Errors:  a read past the end gives zeros and clears ok(); nothing is allocated here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>

namespace cachalot::infer {

class ByteWriter {
 public:
  template <class T>
  requires std::is_trivially_copyable_v<T>
  void put(const T& value) { put_bytes(&value, sizeof value); }
  void put_bytes(const void* data, std::size_t bytes) {
    bytes_.append(static_cast<const char*>(data), bytes);
  }
  const std::string& bytes() const noexcept { return bytes_; }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : left_(bytes) {}

  template <class T>
  requires std::is_trivially_copyable_v<T> T take() {
    T value{};
    take_bytes(&value, sizeof value);
    return value;
  }
  void take_bytes(void* out, std::size_t bytes) {
    if (bytes > left_.size()) {
      ok_ = false;
      left_ = {};
      return;
    }
    if (bytes > 0) std::memcpy(out, left_.data(), bytes);
    left_ = left_.subspan(bytes);
  }
  bool ok() const noexcept { return ok_; }
  std::span<const std::byte> left() const noexcept { return left_; }

 private:
  std::span<const std::byte> left_;
  bool ok_ = true;
};

}  // namespace cachalot::infer
