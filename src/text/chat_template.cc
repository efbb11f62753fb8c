// Recognises DeepSeek's Jinja chat templates by their structure.
#include <optional>

#include "base/error.h"
#include "text/chat.h"

namespace cachalot::text {

// A template as a list of tags, spelt without the white space and dashes that do not change what it
// writes: "%if...", "%endif", "=expression". nullopt when something else would be written.
static std::optional<std::vector<std::string>> tags_of(std::string_view jinja) {
  std::vector<std::string> tags;
  std::size_t at = 0;
  bool trimmed_before = true;  // white space at the very beginning is not expected anyway
  while (at < jinja.size()) {
    const std::size_t open = jinja.find('{', at);
    const std::string_view between = jinja.substr(at, open - at);
    if (between.find_first_not_of(" \t\r\n") != std::string_view::npos) return std::nullopt;
    if (open == std::string_view::npos) {
      if (!between.empty() && !trimmed_before) return std::nullopt;
      break;
    }
    const char kind = open + 1 < jinja.size() ? jinja[open + 1] : ' ';
    if (kind != '%' && kind != '{') return std::nullopt;
    std::size_t i = open + 2;
    const bool trims_before = i < jinja.size() && jinja[i] == '-';
    if (!between.empty() && !trimmed_before && !trims_before) return std::nullopt;
    if (trims_before) ++i;
    std::string tag(1, kind == '%' ? '%' : '=');
    const char close = kind == '%' ? '%' : '}';
    char quote = 0;
    for (;; ++i) {
      if (i + 1 >= jinja.size()) return std::nullopt;
      const char c = jinja[i];
      if (quote != 0) {
        if (c == '\\' && jinja[i + 1] == 'n') {
          tag += '\n', ++i;
        } else {
          tag += c == quote ? '\'' : c;
          if (c == quote) quote = 0;
        }
      } else if (c == '\'' || c == '"') {
        quote = c;
        tag += '\'';
      } else if (c == close && jinja[i + 1] == '}') {
        break;
      } else if (c != ' ' && c != '\n' && c != '\t' && c != '\r') {
        tag += c;
      }
    }
    trimmed_before = jinja[i - 1] == '-';
    if (trimmed_before && tag.back() == '-') tag.pop_back();
    tags.push_back(std::move(tag));
    at = i + 2;
  }
  return tags;
}

// Walks the tags; each method returns whether what it names stands next, and steps over it.
class TemplateReader {
 public:
  explicit TemplateReader(const std::vector<std::string>& tags) : tags_(tags) {}

  std::optional<ChatFormat> v2();
  std::optional<ChatFormat> v3();

 private:
  bool tag(std::string_view text) {
    if (at_ >= tags_.size() || tags_[at_] != text) return false;
    ++at_;
    return true;
  }
  bool all(std::initializer_list<std::string_view> texts) {
    const std::size_t from = at_;
    for (const std::string_view text : texts) {
      if (!tag(text)) return at_ = from, false;
    }
    return true;
  }
  bool prefix(std::string_view text) {
    if (at_ >= tags_.size() || !tags_[at_].starts_with(text)) return false;
    ++at_;
    return true;
  }
  // Steps behind the end of the `if` that was just entered: a branch that only tools reach.
  // With `stop_at_else`, behind its else.
  bool skip_branch(bool stop_at_else) {
    for (int depth = 0; at_ < tags_.size(); ++at_) {
      if (tags_[at_].starts_with("%if") || tags_[at_].starts_with("%for")) ++depth;
      if (depth == 0 && (tags_[at_] == "%else" || tags_[at_].starts_with("%elif"))) {
        if (!stop_at_else || tags_[at_] != "%else") return false;
        return ++at_, true;
      }
      if (tags_[at_] == "%endif" || tags_[at_] == "%endfor") {
        if (depth-- == 0) return ++at_, !stop_at_else;
      }
    }
    return false;
  }
  void default_for_prompt() {
    all({"%ifnotadd_generation_promptisdefined", "%setadd_generation_prompt=false", "%endif"});
  }
  bool system(ChatFormat& format);
  bool tool_calls();
  bool assistant(ChatFormat& format);

  const std::vector<std::string>& tags_;
  std::size_t at_ = 0;
};

std::optional<ChatFormat> TemplateReader::v2() {
  at_ = 0;
  default_for_prompt();
  const bool known =
      all({"=bos_token", "%formessageinmessages", "%ifmessage['role']=='user'",
           "='User: '+message['content']+'\n\n'", "%elifmessage['role']=='assistant'",
           "='Assistant: '+message['content']+eos_token", "%elifmessage['role']=='system'",
           "=message['content']+'\n\n'", "%endif", "%endfor", "%ifadd_generation_prompt",
           "='Assistant:'", "%endif"});
  if (!known || at_ != tags_.size()) return std::nullopt;
  return ChatFormat::v2();
}

bool TemplateReader::system(ChatFormat& format) {
  if (!all({"%formessageinmessages", "%ifmessage['role']=='system'"})) return false;
  if (all({"%ifns.is_first_sp", "%setns.system_prompt=ns.system_prompt+message['content']",
           "%setns.is_first_sp=false", "%else",
           "%setns.system_prompt=ns.system_prompt+'\n\n'+message['content']", "%endif"})) {
    format.joins_system_ = true;
  } else if (tag("%setns.system_prompt=message['content']")) {
    format.joins_system_ = false;
  } else {
    return false;
  }
  return all({"%endif", "%endfor", "=bos_token", "=ns.system_prompt"});
}

bool TemplateReader::tool_calls() {
  for (const char* condition : {"%ifmessage['role']=='assistant'andmessage['content']isnone",
                                "%ifmessage['role']=='assistant'and'tool_calls'inmessage"}) {
    if (tag(condition)) return skip_branch(/*stop_at_else=*/false);
  }
  return false;
}

bool TemplateReader::assistant(ChatFormat& format) {
  if (!tag("%ifmessage['role']=='assistant'andmessage['content']isnotnone") &&
      !tag("%ifmessage['role']=='assistant'and'tool_calls'notinmessage")) {
    return false;
  }
  if (!tag("%ifns.is_tool") || !skip_branch(/*stop_at_else=*/true)) return false;
  if (!tag("='<｜Assistant｜>'+message['content']+'<｜end▁of▁sentence｜>'")) {
    if (!tag("%setcontent=message['content']")) return false;
    format.drops_thoughts_ =
        all({"%if'</think>'incontent", "%setcontent=content.split('</think>')[-1]", "%endif"});
    if (!tag("='<｜Assistant｜>'+content+'<｜end▁of▁sentence｜>'")) return false;
  }
  return all({"%endif", "%endif"});
}

std::optional<ChatFormat> TemplateReader::v3() {
  at_ = 0;
  ChatFormat format;
  default_for_prompt();
  const bool known = prefix("%setns=namespace(") &&
                     tags_[at_ - 1].find("system_prompt=''") != std::string::npos &&
                     system(format) &&
                     all({"%formessageinmessages", "%ifmessage['role']=='user'",
                          "%setns.is_tool=false", "='<｜User｜>'+message['content']", "%endif"}) &&
                     tool_calls() && assistant(format) && tag("%ifmessage['role']=='tool'") &&
                     skip_branch(false) && tag("%endfor") && tag("%ifns.is_tool") &&
                     skip_branch(false) && tag("%ifadd_generation_promptandnotns.is_tool");
  if (!known) return std::nullopt;
  format.opens_thought_ = tag("='<｜Assistant｜><think>\n'");
  if (!format.opens_thought_ && !tag("='<｜Assistant｜>'")) return std::nullopt;
  if (!tag("%endif") || at_ != tags_.size()) return std::nullopt;
  return format;
}

// Jinja drops one newline from the end of a source before it reads it (keep_trailing_newline is off
// unless asked for), so what an editor puts there writes nothing.
static std::string_view without_last_newline(std::string_view jinja) {
  for (const std::string_view newline : {"\r\n", "\n", "\r"}) {
    if (jinja.ends_with(newline)) return jinja.substr(0, jinja.size() - newline.size());
  }
  return jinja;
}

ChatFormat ChatFormat::recognise(std::string_view jinja, const std::string& source) {
  jinja = without_last_newline(jinja);
  if (jinja == v3_chat_template()) return v3();
  if (const auto tags = tags_of(jinja)) {
    TemplateReader reader(*tags);
    if (const auto format = reader.v2()) return *format;
    if (const auto format = reader.v3()) return *format;
  }
  std::string_view begin = jinja.substr(0, 80);
  throw Error(Code::kUnsupported,
              cat(source, " is none that is known here (it begins '", begin,
                  "'). Those of DeepSeek V2, V3 and R1 are; name one of them (v2, v3, r1) if the "
                  "model follows it."));
}

}  // namespace cachalot::text
