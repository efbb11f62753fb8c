// JSON from strangers, looked through before it is taken: whole, UTF-8, no member twice (the parser
// would keep the first or the last of them without a word), not too deep.
//
// Threads: values.
// Errors:  require_json_text: kUsage, beginning with `what` ("the body"); StrictJsonCheck: as its
//          heirs have them.
#pragma once

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace cachalot::text {

// UTF-8 without NUL bytes, which a parser would take for the end, and not too deep in each other.
void require_json_text(std::string_view text, const std::string& what);

// A stranger's text for a message: `most` characters of it, control characters as '?'.
std::string shown_text(std::string_view text, int most);

// For Json::sax_parse: reads a text without keeping it, says where it stops being JSON.
template <typename Json>
class StrictJsonCheck : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(typename Json::number_integer_t) override { return true; }
  bool number_unsigned(typename Json::number_unsigned_t) override { return true; }
  bool number_float(typename Json::number_float_t, const std::string&) override { return true; }
  bool string(std::string&) override { return true; }
  bool binary(typename Json::binary_t&) override { return true; }
  bool start_object(std::size_t) override {
    seen_.emplace_back();
    return true;
  }
  bool key(std::string& name) override {
    if (!seen_.back().insert(name).second) refuse_twice(name);
    return true;
  }
  bool end_object() override {
    seen_.pop_back();
    return true;
  }
  bool start_array(std::size_t) override { return true; }
  bool end_array() override { return true; }
  bool parse_error(std::size_t at, const std::string&,
                   const nlohmann::detail::exception&) override {
    at_ = at;
    return false;
  }
  std::size_t at() const noexcept { return at_; }  // the byte where parsing ended

 protected:
  // A member that its object has already: throws.
  virtual void refuse_twice(const std::string& name) = 0;
  std::size_t members_here() const { return seen_.back().size(); }  // of the object that is open

 private:
  std::vector<std::set<std::string>> seen_;  // names of the objects that are open
  std::size_t at_ = 0;
};

}  // namespace cachalot::text
