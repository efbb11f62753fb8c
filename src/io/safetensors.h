// Reading and writing safetensors: one file, or a Hugging Face folder of shards with an index.
//
// Owns:    a read-only mapping of each file; views point into it and live as long as the object.
// Threads: reading is safe from any thread after open.
// Errors:  kIo (missing, unreadable), kFormat (a header that lies: offsets past the end or
//          overlapping, unknown dtype, absurd length, duplicate names, a shard that lacks what the
//          index promises); the message names file, tensor, what was met and needed. No byte is
//          trusted before its bounds are checked, and nothing is allocated from an unchecked
//          number.
// Format:  https://github.com/huggingface/safetensors (u64 header length, JSON, data).
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/tensor.h"

namespace cachalot::io {

struct TensorView {
  DType dtype = DType::kF32;
  Shape shape;
  const void* data = nullptr;  // in the mapping; as aligned as the file has it
  std::size_t bytes = 0;
  std::string file;  // for messages

  std::int64_t size() const { return count(shape); }
  // As a matrix: all dimensions but the last are rows. kShape where that passes an int.
  MatRef ref() const;
  // A copy with aligned memory, converted to float / double from F64, F32, F16, BF16, F8_E4M3,
  // F8_E5M2 (without scales); kUnsupported for integers.
  std::vector<float> to_floats() const;
  std::vector<double> to_doubles() const;
  std::vector<std::int64_t> to_ints() const;  // from I64, I32, I16, I8, U8, BOOL
};

// Checks a header that lies in memory, as `open` does with a mapped file: the parser that is
// fuzzed. `file_bytes` counts header length field, header and data.
std::map<std::string, TensorView, std::less<>> parse_header(
    std::span<const std::byte> file, const std::string& file_name,
    std::map<std::string, std::string>* metadata);

class Safetensors {
 public:
  // A .safetensors file, or a folder with model.safetensors or model.safetensors.index.json.
  static Safetensors open(const std::filesystem::path& path);
  Safetensors(Safetensors&&) noexcept;
  Safetensors& operator=(Safetensors&&) noexcept;
  ~Safetensors();

  const TensorView* find(std::string_view name) const;  // nullptr: no such tensor
  const TensorView& at(std::string_view name) const;    // kFormat, naming the nearest name
  const std::map<std::string, TensorView, std::less<>>& tensors() const;
  const std::map<std::string, std::string>& metadata() const;
  std::uint64_t file_bytes() const;    // of all mapped files
  void forget_pages() const noexcept;  // MappedFile::forget_pages, of all

 private:
  struct State;
  explicit Safetensors(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// What to write; `data` is borrowed until `write_safetensors` returns.
struct TensorToWrite {
  std::string name;
  DType dtype;
  Shape shape;
  const void* data;
};

// Makes the bytes of a tensor when its turn comes, valid until the next call; the `data` of the
// list is not read. So a model is written that never is in memory as a whole.
using TensorSource = std::function<const void*(const TensorToWrite& tensor)>;

// Writes one file: data 64-byte aligned, synced to disk before it returns; kIo on a full disk (the
// partial file is removed).
void write_safetensors(const std::filesystem::path& file, std::span<const TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata = {},
                       const TensorSource& source = nullptr);

// Writes a Hugging Face folder's weights: model.safetensors, or shards of at most `shard_bytes`
// with an index.
void write_model_safetensors(const std::filesystem::path& folder,
                             std::span<const TensorToWrite> tensors,
                             std::uint64_t shard_bytes = 5ull << 30,
                             const TensorSource& source = nullptr);

}  // namespace cachalot::io
