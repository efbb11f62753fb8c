// DeepSeek's chat templates, read off a list of tags.
//
// Threads: one caller.
// Errors:  none; nullopt where a tag is not one that is known at its place.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat.h"

namespace cachalot::text {

// Each method returns whether what it names stands next, and steps over it.
class TemplateReader {
 public:
  // Borrows `tags`: "%if...", "%endif", "=expression", white space outside of strings left out.
  explicit TemplateReader(const std::vector<std::string>& tags) : tags_(tags) {}

  std::optional<ChatFormat> v2();
  std::optional<ChatFormat> v3();       // R1 as well
  std::optional<ChatFormat> v3_0324();  // R1-0528 as well
  std::optional<ChatFormat> v3_1();

 private:
  bool tag(std::string_view text);
  bool all(std::initializer_list<std::string_view> texts);
  bool prefix(std::string_view text);
  bool skip_branch(bool stop_at_else);
  bool ends() const noexcept { return at_ == tags_.size(); }

  void default_for_prompt();
  bool default_for_thinking();
  bool names_system_prompt();
  bool system(ChatFormat& format);
  bool tool_branch(ChatFormat& format);
  bool calls(std::string_view opening, std::string_view content, bool null_only);
  bool calls_v31();
  bool results(bool& breaks, std::string_view content);
  bool results_or_skip(ChatFormat& format);
  bool after_results(ChatFormat& format);
  bool answer(ChatFormat& format);
  bool answer_0324(std::string_view content);
  bool answer_v31();

  const std::vector<std::string>& tags_;
  std::size_t at_ = 0;
};

}  // namespace cachalot::text
