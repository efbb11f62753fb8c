#include "io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "base/atomic_file.h"
#include "io/json_object.h"
#include "io/mapped_file.h"

namespace cachalot::io {

namespace fs = std::filesystem;

namespace {
constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr std::uint64_t kMaxIndexBytes = 100'000'000;

// A name that the system cannot look up, such as one too long, is not there either.
bool is_there(const fs::path& file) {
  std::error_code error;
  return fs::exists(file, error);
}
}  // namespace

struct Safetensors::State {
  std::string path;
  std::vector<MappedFile> files;
  std::vector<std::unique_ptr<void, FreeDeleter>> copies;
  std::map<std::string, TensorView, std::less<>> tensors;
  std::map<std::string, std::string> metadata;
  std::uint64_t file_bytes = 0;

  void add(const fs::path& file);
  void add_shards(const fs::path& folder);
};

// Maps one more file and takes in its tensors; a name that is known already is an error.
void Safetensors::State::add(const fs::path& file) {
  MappedFile mapped(file);
  auto found = parse_header(mapped.bytes(), file.string(), &metadata);
  file_bytes += mapped.bytes().size();
  files.push_back(std::move(mapped));
  for (auto& [name, view] : found) {
    // Old writers did not pad their header. Kernels read aligned elements, so such a tensor is
    // copied.
    const std::size_t size = size_of(view.dtype);
    if (view.bytes > 0 && reinterpret_cast<std::uintptr_t>(view.data) % size != 0) {
      copies.push_back(aligned_bytes(view.bytes));
      std::memcpy(copies.back().get(), view.data, view.bytes);
      view.data = copies.back().get();
    }
    const auto [at, is_new] = tensors.emplace(name, std::move(view));
    if (!is_new) {
      throw Error(Code::kFormat, cat(file.string(), ": tensor '", printable(name), "' is also in ",
                                     at->second.file, "; one of the two must go."));
    }
  }
}

void Safetensors::State::add_shards(const fs::path& folder) {
  const fs::path index = folder / kIndexFile;
  const std::string text = read_file(index, kMaxIndexBytes);
  simdjson::dom::parser parser;
  const auto root = parse_json_object(parser, text, index.string());
  std::map<std::string, std::string> where;
  bool has_map = false;
  for (const auto& [key, value] : root) {
    if (key != "weight_map") continue;
    if (std::exchange(has_map, true)) {
      throw Error(Code::kFormat, cat(index.string(), ": weight_map is there twice."));
    }
    where = parse_string_map(value, index.string() + ": weight_map");
  }
  if (!has_map) throw Error(Code::kFormat, cat(index.string(), " has no weight_map."));

  std::set<std::string> shards;
  for (const auto& [name, shard] : where) {
    // A name may not lead out of the folder.
    if (shard.empty() || shard.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos ||
        shard == "." || shard == "..") {
      throw Error(Code::kFormat,
                  cat(index.string(), ": tensor '", printable(name), "' is said to lie in '",
                      printable(shard), "'; a file name in the same folder is needed."));
    }
    shards.insert(shard);
  }
  if (is_there(folder / kSingleFile) && shards != std::set<std::string>{kSingleFile}) {
    throw Error(Code::kFormat, cat(folder.string(), " has ", kSingleFile, " and a ", kIndexFile,
                                   " that names other files: two models in one folder. Remove "
                                   "the one that is not wanted."));
  }
  for (const std::string& shard : shards) {
    if (!is_there(folder / shard)) {
      throw Error(Code::kIo, cat((folder / shard).string(), " is missing; ", kIndexFile,
                                 " names it. Download the folder again."));
    }
    add(folder / shard);
  }
  for (const auto& [name, shard] : where) {
    const auto found = tensors.find(name);
    const std::string file = (folder / shard).string();
    if (found == tensors.end() || found->second.file != file) {
      throw Error(Code::kFormat, cat(file, " lacks tensor '", printable(name), "', which ",
                                     kIndexFile, " says it holds."));
    }
  }
}

Safetensors Safetensors::open(const fs::path& path) {
  auto state = std::make_unique<State>();
  state->path = path.string();
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    state->add(path);
  } else if (is_there(path / kIndexFile)) {
    state->add_shards(path);
  } else if (is_there(path / kSingleFile)) {
    state->add(path / kSingleFile);
  } else {
    throw Error(Code::kIo, cat(path.string(), " has no weights: neither ", kSingleFile, " nor ",
                               kIndexFile, " is there."));
  }
  return Safetensors(std::move(state));
}

Safetensors::Safetensors(std::unique_ptr<State> state) : state_(std::move(state)) {}
Safetensors::Safetensors(Safetensors&&) noexcept = default;
Safetensors& Safetensors::operator=(Safetensors&&) noexcept = default;
Safetensors::~Safetensors() = default;

const TensorView* Safetensors::find(std::string_view name) const {
  const auto found = state_->tensors.find(name);
  return found == state_->tensors.end() ? nullptr : &found->second;
}

const TensorView& Safetensors::at(std::string_view name) const {
  if (const TensorView* view = find(name)) return *view;
  std::vector<std::string_view> names;
  names.reserve(state_->tensors.size());
  for (const auto& [known, view] : state_->tensors) names.push_back(known);
  const std::string near = nearest(name, names.data(), names.data() + names.size());
  throw Error(Code::kFormat,
              cat(state_->path, " has no tensor '", printable(name), "'",
                  near.empty() ? std::string() : "; the nearest name is '" + near + "'", "."));
}

const std::map<std::string, TensorView, std::less<>>& Safetensors::tensors() const {
  return state_->tensors;
}
const std::map<std::string, std::string>& Safetensors::metadata() const { return state_->metadata; }
std::uint64_t Safetensors::file_bytes() const { return state_->file_bytes; }
void Safetensors::forget_pages() const noexcept {
  for (const MappedFile& file : state_->files) file.forget_pages();
}

}  // namespace cachalot::io
