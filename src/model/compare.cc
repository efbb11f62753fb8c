// Two model folders, tensor by tensor.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "model/convert.h"
#include "model/packed_weights.h"
#include "model/weights.h"

namespace cachalot::model {

namespace {

class Side {
 public:
  explicit Side(const std::filesystem::path& folder)
      : config_(load_config(folder)), file_(io::Safetensors::open(folder)) {}

  // Names of weights and other tensors; scales and shapes belong to the weight.
  void add_names(std::set<std::string>& names) const {
    for (const auto& [name, tensor] : file_.tensors()) {
      if (is_part_of_weight(file_, name)) continue;
      const std::string owner = packed_owner(name);
      names.insert(owner.empty() ? name : owner);
    }
  }
  // A weight as it is stored: all of its tensors.
  struct Stored {
    bool there = false;
    std::string type;
    Shape shape;
    std::vector<const io::TensorView*> parts;
  };
  Stored find(const std::string& name) const {
    Stored s;
    if (const auto packed = find_packed(config_, file_, name)) {
      s = {true,
           cat("INT", stored_form(config_.packed, name).bits),
           packed->shape,
           {packed->codes, packed->scales}};
      return s;
    }
    const io::TensorView* t = file_.find(name);
    if (t == nullptr) return s;
    s = {true, std::string(cachalot::name(t->dtype)), t->shape, {t}};
    if (t->dtype == DType::kF8E4M3) s.parts.push_back(find_fp8(config_, file_, name).scales);
    return s;
  }
  // Integers are compared as numbers too; codes with their scales, in double: exact.
  std::vector<double> values(const std::string& name, const Stored& stored) const {
    const io::TensorView& t = *stored.parts.front();
    if (stored.parts.size() > 1) {
      const auto floats = read_floats(config_, file_, name, stored.shape);
      return {floats.begin(), floats.end()};
    }
    if (t.dtype == DType::kI64 || t.dtype == DType::kI32 || t.dtype == DType::kI16 ||
        t.dtype == DType::kI8 || t.dtype == DType::kU8 || t.dtype == DType::kBool) {
      const auto ints = t.to_ints();
      return {ints.begin(), ints.end()};
    }
    return t.to_doubles();
  }

 private:
  Config config_;
  io::Safetensors file_;
};

bool same_bytes(const Side::Stored& a, const Side::Stored& b) {
  if (a.type != b.type || a.parts.size() != b.parts.size()) return false;
  for (std::size_t i = 0; i < a.parts.size(); ++i) {
    const io::TensorView& x = *a.parts[i];
    const io::TensorView& y = *b.parts[i];
    const bool same = x.dtype == y.dtype && x.shape == y.shape && x.bytes == y.bytes &&
                      (x.bytes == 0 || std::memcmp(x.data, y.data, x.bytes) == 0);
    if (!same) return false;
  }
  return true;
}

double difference(double a, double b) {
  if (a == b || (std::isnan(a) && std::isnan(b))) return 0;
  const double d = std::fabs(a - b);
  return std::isnan(d) ? std::numeric_limits<double>::infinity() : d;
}

// One sum per fixed chunk, added in the order of chunks: the same for any number of threads.
void measure(const Context& ctx, const std::vector<double>& a, const std::vector<double>& b,
             TensorComparison& out) {
  constexpr std::int64_t kChunk = 1 << 16;
  struct Part {
    double max_error = 0, max_a = 0, sum_error = 0, sum_a = 0;
  };
  const auto n = static_cast<std::int64_t>(a.size());
  std::vector<Part> parts(static_cast<std::size_t>((n + kChunk - 1) / kChunk));
  ctx.for_each(static_cast<std::int64_t>(parts.size()), 1, [&](std::int64_t p) {
    Part& part = parts[static_cast<std::size_t>(p)];
    for (std::int64_t i = p * kChunk; i < std::min(n, (p + 1) * kChunk); ++i) {
      const double x = a[static_cast<std::size_t>(i)];
      const double d = difference(x, b[static_cast<std::size_t>(i)]);
      part.max_error = std::max(part.max_error, d);
      part.max_a = std::max(part.max_a, std::fabs(x));
      part.sum_error += d * d;
      part.sum_a += x * x;
    }
  });
  Part all;
  for (const Part& part : parts) {
    all.max_error = std::max(all.max_error, part.max_error);
    all.max_a = std::max(all.max_a, part.max_a);
    all.sum_error += part.sum_error;
    all.sum_a += part.sum_a;
  }
  out.max_abs_error = all.max_error;
  out.max_rel_error = all.max_error == 0          ? 0
                      : std::isinf(all.max_error) ? all.max_error
                                                  : all.max_error / all.max_a;
  if (n > 0) {
    out.rms_error = std::sqrt(all.sum_error / static_cast<double>(n));
    out.rms_a = std::sqrt(all.sum_a / static_cast<double>(n));
  }
}

}  // namespace

std::vector<TensorComparison> compare_models(
    const Context& ctx, const std::filesystem::path& a, const std::filesystem::path& b,
    const std::function<void(std::size_t done, std::size_t all)>& progress) {
  const Side left(a), right(b);
  std::set<std::string> names;
  left.add_names(names);
  right.add_names(names);
  std::vector<TensorComparison> all;
  for (const std::string& name : names) {
    TensorComparison& c = all.emplace_back();
    c.name = name;
    const Side::Stored x = left.find(name), y = right.find(name);
    c.in_a = x.there;
    c.in_b = y.there;
    c.type_a = x.type;
    c.shape_a = x.shape;
    c.type_b = y.type;
    c.shape_b = y.shape;
    c.compared = c.in_a && c.in_b && c.shape_a == c.shape_b;
    if (c.compared) {
      c.bit_identical = same_bytes(x, y);
      measure(ctx, left.values(name, x), right.values(name, y), c);
    }
    if (progress) progress(all.size(), names.size());
  }
  return all;
}

}  // namespace cachalot::model
