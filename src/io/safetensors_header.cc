// The header of a safetensors file: every claim is checked against the bytes that are there.
#include <simdjson.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "io/json_object.h"
#include "io/safetensors.h"

namespace cachalot::io {

namespace {

using simdjson::dom::element;

constexpr std::uint64_t kLengthBytes = 8;
// The format's own limit: readers refuse longer headers.
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
constexpr std::size_t kMaxRank = 16;

[[noreturn]] void bad(const std::string& file, const std::string& text) {
  throw Error(Code::kFormat, cat(file, ": ", text, " The file is damaged or no safetensors file."));
}

std::string quoted(std::string_view name) { return cat("tensor '", printable(name), "'"); }

Shape parse_shape(const element& value, std::string_view name, const std::string& file) {
  simdjson::dom::array dims;
  if (value.get(dims) != simdjson::SUCCESS) {
    bad(file, quoted(name) + " has a shape that is not a list.");
  }
  Shape shape;
  std::int64_t product = 1;  // with 0 counted as 1, so that no order of dimensions overflows
  for (const element dim : dims) {
    std::uint64_t n = 0;
    if (shape.size() == kMaxRank) bad(file, cat(quoted(name), " has more than 16 dimensions."));
    if (dim.get(n) != simdjson::SUCCESS || n > (std::uint64_t{1} << 62) ||
        __builtin_mul_overflow(product, static_cast<std::int64_t>(std::max<std::uint64_t>(n, 1)),
                               &product) ||
        product > (std::int64_t{1} << 62)) {
      bad(file, cat(quoted(name), " has an impossible shape ", simdjson::minify(value), "."));
    }
    shape.push_back(static_cast<std::int64_t>(n));
  }
  return shape;
}

struct Range {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::string_view name;
};

Range parse_range(const element& value, std::string_view name, std::uint64_t data_bytes,
                  const std::string& file) {
  simdjson::dom::array list;
  Range range{.name = name};
  if (value.get(list) != simdjson::SUCCESS || list.size() != 2 ||
      list.at(0).get(range.begin) != simdjson::SUCCESS ||
      list.at(1).get(range.end) != simdjson::SUCCESS) {
    bad(file, cat(quoted(name), " has data_offsets ", simdjson::minify(value),
                  "; two whole numbers are needed."));
  }
  if (range.begin > range.end) {
    bad(file,
        cat(quoted(name), " ends at byte ", range.end, ", before its begin ", range.begin, "."));
  }
  if (range.end > data_bytes) {
    bad(file, cat(quoted(name), " ends at byte ", range.end, " of the data, but the file holds ",
                  data_bytes, ": it was cut short, or its header lies."));
  }
  return range;
}

// One entry: {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}.
TensorView parse_tensor(const element& value, std::string_view name, std::uint64_t data_bytes,
                        const std::string& file, Range& range) {
  simdjson::dom::object fields;
  if (value.get(fields) != simdjson::SUCCESS) bad(file, quoted(name) + " is not an object.");
  TensorView view;
  view.file = file;
  bool has_dtype = false, has_shape = false, has_range = false;
  for (const auto& [key, field] : fields) {
    bool& seen = key == "dtype" ? has_dtype : key == "shape" ? has_shape : has_range;
    if (key != "dtype" && key != "shape" && key != "data_offsets") {
      bad(file, cat(quoted(name), " has an unknown field '", printable(key), "'."));
    }
    if (std::exchange(seen, true)) bad(file, cat(quoted(name), " has '", key, "' twice."));
    if (key == "dtype") {
      std::string_view text;
      if (field.get(text) != simdjson::SUCCESS || !parse_dtype(text, view.dtype)) {
        throw Error(Code::kFormat,
                    cat(file, ": ", quoted(name), " has dtype ", simdjson::minify(field),
                        "; known are F64, F32, F16, BF16, F8_E4M3, F8_E5M2, I64, I32, I16, I8, U8 "
                        "and BOOL."));
      }
    } else if (key == "shape") {
      view.shape = parse_shape(field, name, file);
    } else {
      range = parse_range(field, name, data_bytes, file);
    }
  }
  if (!has_dtype || !has_shape || !has_range) {
    bad(file, cat(quoted(name), " lacks ",
                  !has_dtype   ? "dtype"
                  : !has_shape ? "shape"
                               : "data_offsets",
                  "."));
  }
  view.bytes = static_cast<std::size_t>(range.end - range.begin);
  std::uint64_t wanted = 0;
  if (__builtin_mul_overflow(static_cast<std::uint64_t>(view.size()), size_of(view.dtype),
                             &wanted) ||
      wanted != view.bytes) {
    bad(file, cat(quoted(name), " is ", cachalot::name(view.dtype), " ", to_string(view.shape),
                  " = ", wanted, " bytes, but its data_offsets hold ", view.bytes, "."));
  }
  return view;
}

// Ranges must tile the data: no byte belongs to two tensors, none to no tensor.
void check_tiling(std::vector<Range>& ranges, std::uint64_t data_bytes, const std::string& file) {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::uint64_t next = 0;
  std::string_view previous;
  for (const Range& range : ranges) {
    if (range.begin < next) {
      bad(file, cat(quoted(range.name), " begins at byte ", range.begin, " inside ",
                    quoted(previous), ", which ends at ", next, "."));
    }
    if (range.begin > next) {
      bad(file,
          cat(range.begin - next, " bytes before ", quoted(range.name), " belong to no tensor."));
    }
    next = range.end;
    previous = range.name;
  }
  if (next != data_bytes) {
    bad(file, cat(data_bytes - next, " bytes after the last tensor belong to no tensor."));
  }
}

}  // namespace

std::map<std::string, TensorView, std::less<>> parse_header(
    std::span<const std::byte> file, const std::string& file_name,
    std::map<std::string, std::string>* metadata) {
  if (file.size() < kLengthBytes) {
    bad(file_name, cat("it has ", file.size(), " bytes; 8 are needed for the header's length."));
  }
  std::uint64_t header_bytes = 0;
  for (unsigned i = 0; i < kLengthBytes; ++i) {  // little-endian on disk
    header_bytes |= static_cast<std::uint64_t>(file[i]) << (8 * i);
  }
  if (header_bytes > kMaxHeaderBytes || header_bytes > file.size() - kLengthBytes) {
    bad(file_name, cat("its header is said to have ", header_bytes, " bytes, but the file has ",
                       file.size(), " and a header at most ", kMaxHeaderBytes, "."));
  }
  const std::uint64_t data_bytes = file.size() - kLengthBytes - header_bytes;
  const std::byte* data = file.data() + kLengthBytes + header_bytes;

  simdjson::dom::parser parser;
  const simdjson::dom::object root =
      parse_json_object(parser,
                        {reinterpret_cast<const char*>(file.data()) + kLengthBytes,
                         static_cast<std::size_t>(header_bytes)},
                        cat(file_name, ": the header"));
  std::map<std::string, TensorView, std::less<>> tensors;
  std::vector<Range> ranges;
  bool has_metadata = false;
  for (const auto& [key, value] : root) {
    if (key == "__metadata__") {
      if (std::exchange(has_metadata, true)) bad(file_name, "it has __metadata__ twice.");
      auto map = parse_string_map(value, cat(file_name, ": __metadata__"));
      if (metadata != nullptr) *metadata = std::move(map);
      continue;
    }
    Range range;
    TensorView view = parse_tensor(value, key, data_bytes, file_name, range);
    view.data = data + range.begin;
    ranges.push_back(range);
    if (!tensors.emplace(std::string(key), std::move(view)).second) {
      bad(file_name, quoted(key) + " is there twice.");
    }
  }
  check_tiling(ranges, data_bytes, file_name);
  return tensors;
}

}  // namespace cachalot::io
