// Writing safetensors: one file whole or not at all; a folder's index last.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/atomic_file.h"
#include "io/safetensors.h"

namespace cachalot::io {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kDataAlign = 64;

std::string json_string(const std::string& text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    throw Error(Code::kFormat, cat("the name '", text, "' is not UTF-8 and cannot be written"));
  }
}

std::uint64_t bytes_of(const TensorToWrite& t) {
  return static_cast<std::uint64_t>(count(t.shape)) * size_of(t.dtype);
}

// Falling element size, so that each tensor begins at a multiple of its own.
std::vector<const TensorToWrite*> in_file_order(std::span<const TensorToWrite> tensors) {
  std::vector<const TensorToWrite*> order;
  order.reserve(tensors.size());
  for (const TensorToWrite& t : tensors) order.push_back(&t);
  std::stable_sort(order.begin(), order.end(), [](const TensorToWrite* a, const TensorToWrite* b) {
    return size_of(a->dtype) > size_of(b->dtype);
  });
  return order;
}

std::string make_header(const std::vector<const TensorToWrite*>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  std::string json = "{";
  if (!metadata.empty()) {
    json += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      json += cat(json.back() == '{' ? "" : ",", json_string(key), ":", json_string(value));
    }
    json += "}";
  }
  std::set<std::string_view> names{"__metadata__"};
  std::uint64_t offset = 0;
  for (const TensorToWrite* t : tensors) {
    if (!names.insert(t->name).second) {
      throw Error(Code::kInternal, cat("a tensor named '", t->name, "' cannot be written twice"));
    }
    const std::uint64_t end = offset + bytes_of(*t);
    json += cat(json.size() == 1 ? "" : ",", json_string(t->name), ":{\"dtype\":\"", name(t->dtype),
                "\",\"shape\":[");
    for (std::size_t i = 0; i < t->shape.size(); ++i) json += cat(i == 0 ? "" : ",", t->shape[i]);
    json += cat("],\"data_offsets\":[", offset, ",", end, "]}");
    offset = end;
  }
  json += "}";
  // Spaces after the JSON bring the data to a multiple of 64 bytes.
  const std::size_t length_bytes = 8;
  const std::size_t used = length_bytes + json.size();
  json.append((kDataAlign - used % kDataAlign) % kDataAlign, ' ');
  std::string header;
  for (unsigned i = 0; i < length_bytes; ++i) {
    header += static_cast<char>((static_cast<std::uint64_t>(json.size()) >> (8 * i)) & 0xFF);
  }
  return header + json;
}

}  // namespace

void write_safetensors(const fs::path& file, std::span<const TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata,
                       const TensorSource& source) {
  const auto order = in_file_order(tensors);
  const std::string header = make_header(order, metadata);
  AtomicFile out(file);
  out.write(header);
  for (const TensorToWrite* t : order) out.write(source ? source(*t) : t->data, bytes_of(*t));
  out.commit();
}

void write_model_safetensors(const fs::path& folder, std::span<const TensorToWrite> tensors,
                             std::uint64_t shard_bytes, const TensorSource& source) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) {
    throw Error(Code::kIo,
                cat("cannot create the folder ", folder.string(), ": ", error.message(), "."));
  }
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string old = entry.path().filename().string();
    if (old == "model.safetensors" || old == "model.safetensors.index.json") {
      throw Error(Code::kIo, cat(entry.path().string(),
                                 " is there already; weights are not written over. Choose an "
                                 "empty folder or remove it."));
    }
  }
  // Consecutive tensors share a shard up to its limit; a larger tensor has one of its own.
  std::vector<std::span<const TensorToWrite>> shards;
  std::uint64_t total = 0;
  for (std::size_t begin = 0, end = 0; begin < tensors.size() || shards.empty(); begin = end) {
    std::uint64_t bytes = 0;
    for (; end < tensors.size(); ++end) {
      const std::uint64_t more = bytes_of(tensors[end]);
      if (end > begin && (bytes > shard_bytes || more > shard_bytes - bytes)) break;
      bytes += more;
    }
    total += bytes;
    shards.push_back(tensors.subspan(begin, end - begin));
  }
  // Other tools refuse a file that does not say which framework's layout it has.
  const std::map<std::string, std::string> metadata{{"format", "pt"}};
  if (shards.size() == 1) {
    write_safetensors(folder / "model.safetensors", tensors, metadata, source);
    return;
  }
  const auto number = [](std::size_t n) {
    std::string digits = std::to_string(n);
    return digits.size() < 5 ? std::string(5 - digits.size(), '0') + digits : digits;
  };
  std::string index = cat("{\n \"metadata\": {\"total_size\": ", total, "},\n \"weight_map\": {\n");
  bool first = true;
  std::set<std::string_view> names;
  for (std::size_t s = 0; s < shards.size(); ++s) {
    const std::string file =
        cat("model-", number(s + 1), "-of-", number(shards.size()), ".safetensors");
    for (const TensorToWrite& t : shards[s]) {
      if (!names.insert(t.name).second) {
        throw Error(Code::kInternal, cat("a tensor named '", t.name, "' cannot be written twice"));
      }
      index += cat(first ? "" : ",\n", "  ", json_string(t.name), ": \"", file, "\"");
      first = false;
    }
    write_safetensors(folder / file, shards[s], metadata, source);
  }
  write_file_atomically(folder / "model.safetensors.index.json", index + "\n }\n}\n");
}

}  // namespace cachalot::io
