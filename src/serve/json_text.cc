#include "serve/json_text.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "serve/json_body.h"

namespace cachalot::serve {

namespace {

class OrderedWriter final : public nlohmann::json_sax<BodyJson> {
 public:
  explicit OrderedWriter(std::span<const JsonPath> paths) : paths_(paths) {}
  std::map<std::string, std::string> take() { return std::move(texts_); }

  bool null() override { return scalar("null"); }
  bool boolean(bool value) override { return scalar(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override { return scalar(std::to_string(value)); }
  bool number_unsigned(number_unsigned_t value) override { return scalar(std::to_string(value)); }
  bool number_float(number_float_t, const string_t& text) override { return scalar(text); }
  bool string(string_t& value) override { return scalar(quoted(value)); }
  bool binary(binary_t&) override { return false; }

  bool start_object(std::size_t) override { return open(Level::kObject, "{"); }
  bool end_object() override { return close("}"); }
  bool start_array(std::size_t) override { return open(Level::kArray, "["); }
  bool end_array() override { return close("]"); }
  bool key(string_t& name) override {
    levels_.back().name = name;
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const BodyJson::exception&) override {
    return false;
  }

 private:
  struct Level {
    enum Kind : std::uint8_t { kObject, kArray } kind = kObject;
    std::string name = {};  // of the member that is read
    std::size_t index = 0;  // of the value that is read
  };

  static std::string quoted(const std::string& text) { return BodyJson(text).dump(); }

  bool matches(const JsonPath& path) const {
    return path.size() == levels_.size() &&
           std::equal(path.begin(), path.end(), levels_.begin(),
                      [](const std::string& step, const Level& level) {
                        return level.kind == Level::kArray ? step == "[]" : step == level.name;
                      });
  }
  std::string place() const {
    std::string text;
    for (const Level& level : levels_) {
      text += level.kind == Level::kArray ? cat("[", level.index, "]")
                                          : cat(text.empty() ? "" : ".", level.name);
    }
    return text;
  }

  // What stands before a value; whether the value is written at all.
  bool begin_value() {
    if (writing_at_) {
      const Level& level = levels_.back();
      if (level.index > 0) text_ += ", ";
      if (level.kind == Level::kObject) text_ += quoted(level.name) + ": ";
      return true;
    }
    if (std::none_of(paths_.begin(), paths_.end(), [&](const JsonPath& p) { return matches(p); })) {
      return false;
    }
    writing_at_ = levels_.size();
    return true;
  }
  void end_value() {
    if (writing_at_ == levels_.size()) {
      texts_[place()] = std::move(text_);
      text_.clear();
      writing_at_.reset();
    }
    if (!levels_.empty()) ++levels_.back().index;
  }
  bool scalar(std::string_view text) {
    if (begin_value()) text_ += text;
    end_value();
    return true;
  }
  bool open(Level::Kind kind, std::string_view text) {
    if (begin_value()) text_ += text;
    levels_.push_back({kind});
    return true;
  }
  bool close(std::string_view text) {
    levels_.pop_back();
    if (writing_at_) text_ += text;
    end_value();
    return true;
  }

  std::span<const JsonPath> paths_;
  std::vector<Level> levels_;              // that are open
  std::optional<std::size_t> writing_at_;  // levels around the value that is written
  std::string text_;
  std::map<std::string, std::string> texts_;
};

}  // namespace

std::map<std::string, std::string> ordered_texts(std::string_view body,
                                                 std::span<const JsonPath> paths) {
  OrderedWriter writer(paths);
  BodyJson::sax_parse(body, &writer);
  return writer.take();
}

}  // namespace cachalot::serve
