#include "serve/tool_calls.h"

#include <algorithm>
#include <random>

#include "serve/begun_tag.h"

namespace cachalot::serve {

static constexpr std::string_view kLineBreaks = "\r\n";
static constexpr std::string_view kWhiteSpace = " \t\r\n";

std::string random_call_id() {
  constexpr std::string_view kLetters =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  constexpr int kLength = 24;
  static thread_local std::random_device device;
  std::uniform_int_distribution<std::size_t> draw(0, kLetters.size() - 1);
  std::string id = "call_";
  for (int i = 0; i < kLength; ++i) id += kLetters[draw(device)];
  return id;
}

// `text` may still become one that begins with `tag`.
static bool may_become(std::string_view text, std::string_view tag) {
  return text.size() < tag.size() && tag.starts_with(text);
}

ToolCallSplitter::ToolCallSplitter(text::ToolForm form, std::function<std::string()> make_id)
    : form_(form),
      make_id_(std::move(make_id)),
      where_(form == text::ToolForm::kNone ? Where::kBroken : Where::kContent) {}

ToolCallSplitter::Part ToolCallSplitter::push(std::string_view text) {
  Part part;
  held_ += text;
  while (advance(part)) {
  }
  return part;
}

// One step over what is held; true where the next one may go on.
bool ToolCallSplitter::advance(Part& part) {
  switch (where_) {
    case Where::kContent:
      return advance_content(part);
    case Where::kBetween:
      return advance_between();
    case Where::kName:
      return advance_name(part);
    case Where::kArguments:
      return advance_arguments(part);
    case Where::kEnded:
    case Where::kBroken:
      part.content += held_;
      held_.clear();
      return false;
  }
  return false;
}

bool ToolCallSplitter::advance_content(Part& part) {
  const std::size_t tag = held_.find(text::kCallsBegin);
  const std::size_t end =
      tag == std::string::npos ? held_.size() - begun_tag(held_, text::kCallsBegin) : tag;
  // Line breaks before what is, or may become, the tag are held back with it.
  const std::size_t certain =
      std::string_view(held_).substr(0, end).find_last_not_of(kLineBreaks) + 1;
  part.content.append(held_, 0, certain);
  held_.erase(0, tag == std::string::npos ? certain : tag + text::kCallsBegin.size());
  if (tag == std::string::npos) return false;
  where_ = Where::kBetween;
  return true;
}

bool ToolCallSplitter::advance_between() {
  const std::size_t begin = std::min(held_.find_first_not_of(kWhiteSpace), held_.size());
  const std::string_view rest = std::string_view(held_).substr(begin);
  if (rest.starts_with(text::kCallBegin)) {
    held_.erase(0, begin + text::kCallBegin.size());
    where_ = Where::kName;
    whole_ = false;  // until it has ended
    return true;
  }
  if (rest.starts_with(text::kCallsEnd)) {
    held_.erase(0, begin + text::kCallsEnd.size());
    where_ = Where::kEnded;
    return true;
  }
  if (may_become(rest, text::kCallBegin) || may_become(rest, text::kCallsEnd)) return false;
  return break_off();
}

bool ToolCallSplitter::break_off() {
  where_ = Where::kBroken;
  whole_ = false;
  return true;
}

// The bytes up to the arguments are waited for as a whole: V3 `function<sep>NAME\n```json\n`, V3.1
// `NAME<sep>`.
bool ToolCallSplitter::advance_name(Part& part) {
  const bool v3 = form_ == text::ToolForm::kV3;
  std::string_view rest = held_;
  if (v3) {
    for (const std::string_view fixed : {text::kCallType, text::kCallSeparator}) {
      if (may_become(rest, fixed)) return false;
      if (!rest.starts_with(fixed)) return break_off();
      rest.remove_prefix(fixed.size());
    }
  }
  const std::string_view behind = v3 ? text::kFenceOpen : text::kCallSeparator;
  const std::size_t length = std::min(rest.find(behind.front()), rest.size());
  const std::string_view name = rest.substr(0, length);
  rest.remove_prefix(length);
  // A name of any length would be held back without end.
  if (!name.empty() && !text::is_tool_name(name)) return break_off();
  if (may_become(rest, behind)) return false;
  if (name.empty() || !rest.starts_with(behind)) return break_off();
  ++calls_;
  Delta& began = delta(part);
  began.id = make_id_();
  began.name = name;
  rest.remove_prefix(behind.size());
  held_.erase(0, held_.size() - rest.size());
  where_ = Where::kArguments;
  return true;
}

bool ToolCallSplitter::advance_arguments(Part& part) {
  const std::string_view fence = form_ == text::ToolForm::kV3 ? text::kFenceClose : "";
  const std::size_t tag = held_.find(text::kCallEnd);
  std::string_view certain = held_;
  if (tag == std::string::npos) {
    certain.remove_suffix(begun_tag(certain, text::kCallEnd));
    // The fence before it, whole or begun.
    if (certain.ends_with(fence)) {
      certain.remove_suffix(fence.size());
    } else {
      certain.remove_suffix(begun_tag(certain, fence));
    }
  } else {
    certain = certain.substr(0, tag);
    if (certain.ends_with(fence)) certain.remove_suffix(fence.size());
  }
  if (!certain.empty()) delta(part).arguments += certain;
  if (tag == std::string::npos) {
    held_.erase(0, certain.size());
    return false;
  }
  held_.erase(0, tag + text::kCallEnd.size());
  where_ = Where::kBetween;
  whole_ = true;
  return true;
}

ToolCallSplitter::Delta& ToolCallSplitter::delta(Part& part) const {
  const int index = calls_ - 1;
  if (part.calls.empty() || part.calls.back().index != index) {
    part.calls.push_back({.index = index, .id = {}, .name = {}, .arguments = {}});
  }
  return part.calls.back();
}

ToolCallSplitter::Part ToolCallSplitter::finish() {
  Part part;
  const bool nothing = where_ == Where::kBetween &&
                       held_.find_first_not_of(kWhiteSpace) == std::string::npos && calls_ > 0;
  if (where_ == Where::kArguments) {
    // What is left of the tags around the arguments is none of them.
    const std::string end =
        (form_ == text::ToolForm::kV3 ? std::string(text::kFenceClose) : "").append(text::kCallEnd);
    if (!end.starts_with(held_)) delta(part).arguments = std::move(held_);
  } else if (!nothing) {
    if (where_ == Where::kBetween || where_ == Where::kName) whole_ = false;
    part.content = std::move(held_);
  }
  held_.clear();
  return part;
}

}  // namespace cachalot::serve
