#include "text/chat_template_reader.h"

#include "base/error.h"

namespace cachalot::text {

static constexpr std::string_view kForMessages = "%formessageinmessages";
static constexpr std::string_view kForCalls = "%fortoolinmessage['tool_calls']";
static constexpr std::string_view kContent = "message['content']";
static constexpr std::string_view kIfUser = "%ifmessage['role']=='user'";
static constexpr std::string_view kIfTool = "%ifmessage['role']=='tool'";
static constexpr std::string_view kIfCalls =
    "%ifmessage['role']=='assistant'andmessage['tool_calls']isdefinedandmessage['tool_calls']"
    "isnotnone";
static constexpr std::string_view kIfNoCalls =
    "%ifmessage['role']=='assistant'and(message['tool_calls']isnotdefinedormessage['tool_calls']"
    "isnone)";
static constexpr std::string_view kEndOfCalls = "='<｜tool▁calls▁end｜><｜end▁of▁sentence｜>'";
static constexpr std::string_view kEndOfResults = "='<｜tool▁outputs▁end｜>'";

bool TemplateReader::tag(std::string_view text) {
  if (at_ >= tags_.size() || tags_[at_] != text) return false;
  ++at_;
  return true;
}

bool TemplateReader::all(std::initializer_list<std::string_view> texts) {
  const std::size_t from = at_;
  for (const std::string_view text : texts) {
    if (!tag(text)) return at_ = from, false;
  }
  return true;
}

bool TemplateReader::prefix(std::string_view text) {
  if (at_ >= tags_.size() || !tags_[at_].starts_with(text)) return false;
  ++at_;
  return true;
}

// Steps behind the end of the `if` that was just entered: a branch that only tools reach.
// With `stop_at_else`, behind its else.
bool TemplateReader::skip_branch(bool stop_at_else) {
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

void TemplateReader::default_for_prompt() {
  all({"%ifnotadd_generation_promptisdefined", "%setadd_generation_prompt=false", "%endif"});
}

bool TemplateReader::default_for_thinking() {
  return all({"%ifnotthinkingisdefined", "%setthinking=false", "%endif"}) ||
         all({"%ifnotthinkingisdefined", "%ifenable_thinkingisdefined",
              "%setthinking=enable_thinking", "%else", "%setthinking=false", "%endif", "%endif"});
}

bool TemplateReader::names_system_prompt() {
  return prefix("%setns=namespace(") &&
         tags_[at_ - 1].find("system_prompt=''") != std::string::npos;
}

std::optional<ChatFormat> TemplateReader::v2() {
  at_ = 0;
  default_for_prompt();
  const bool known =
      all({"=bos_token", kForMessages, kIfUser, "='User: '+message['content']+'\n\n'",
           "%elifmessage['role']=='assistant'", "='Assistant: '+message['content']+eos_token",
           "%elifmessage['role']=='system'", "=message['content']+'\n\n'", "%endif", "%endfor",
           "%ifadd_generation_prompt", "='Assistant:'", "%endif"});
  if (!known || !ends()) return std::nullopt;
  return ChatFormat::v2();
}

bool TemplateReader::system(ChatFormat& format) {
  if (!all({kForMessages, "%ifmessage['role']=='system'"})) return false;
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

// The loop over a message's calls and its end, in V3's form. `opening` goes before the first call;
// `null_only`: the template has no case for content beside calls.
bool TemplateReader::calls(std::string_view opening, std::string_view content, bool null_only) {
  constexpr std::string_view kCall =
      "<｜tool▁call▁begin｜>'+tool['type']+'<｜tool▁sep｜>'+tool['function']['name']+'\n'+'```json'"
      "+"
      "'\n'+tool['function']['arguments']+'\n'+'```'+'<｜tool▁call▁end｜>'";
  const std::string first = cat("='", opening, "<｜tool▁calls▁begin｜>", kCall);
  const std::string further = cat("='\n'+'", kCall);
  if (!all({kForCalls, "%ifnotns.is_first"})) return false;
  if (null_only) {
    if (!tag(first)) return false;
  } else {
    const std::string told =
        opening.empty() ? cat("=", content, "+'") : cat("='", opening, "'+", content, "+'");
    if (!all({cat("%if", content, "isnone"), first, "%else",
              cat(told, "<｜tool▁calls▁begin｜>", kCall), "%endif"})) {
      return false;
    }
  }
  if (!all({"%setns.is_first=true", "%else", further})) return false;
  // The very first template writes the end behind each further call, and so none behind a single
  // one: a slip, for the model itself writes one end (see chat.cc).
  return all({kEndOfCalls, "%endif", "%endfor"}) || all({"%endif", "%endfor", kEndOfCalls});
}

// V3 and R1: what only tools reach. Where it is not as known, it is skipped: chats without tools
// are rendered alike, and tools are refused.
bool TemplateReader::tool_branch(ChatFormat& format) {
  const bool null_only = tag("%ifmessage['role']=='assistant'andmessage['content']isnone");
  if (!null_only && !tag("%ifmessage['role']=='assistant'and'tool_calls'inmessage")) return false;
  const std::size_t from = at_;
  if (tag("%setns.is_tool=false") && calls("<｜Assistant｜>", kContent, null_only) &&
      tag("%endif")) {
    return true;
  }
  at_ = from;
  format.tools_ = ToolForm::kNone;
  return skip_branch(/*stop_at_else=*/false);
}

// Behind the `if` of a tool's message, to its end.
bool TemplateReader::results(bool& breaks, std::string_view content) {
  const std::string result = cat("<｜tool▁output▁begin｜>'+", content, "+'<｜tool▁output▁end｜>'");
  if (!all({"%setns.is_tool=true", "%ifns.is_output_first",
            cat("='<｜tool▁outputs▁begin｜>", result), "%setns.is_output_first=false", "%else"})) {
    return false;
  }
  breaks = tag(cat("='\n", result));
  return (breaks || tag(cat("='", result))) && all({"%endif", "%endif"});
}

bool TemplateReader::results_or_skip(ChatFormat& format) {
  if (!tag(kIfTool)) return false;
  const std::size_t from = at_;
  bool breaks = true;
  if (results(breaks, kContent)) {
    format.breaks_results_ = breaks;
    return true;
  }
  at_ = from;
  format.tools_ = ToolForm::kNone;
  return skip_branch(false);
}

// The answer behind results of tools, up to the else.
bool TemplateReader::after_results(ChatFormat& format) {
  if (!tag("%ifns.is_tool")) return false;
  if (all({"='<｜tool▁outputs▁end｜>'+message['content']+'<｜end▁of▁sentence｜>'",
           "%setns.is_tool=false", "%else"})) {
    return true;
  }
  format.tools_ = ToolForm::kNone;
  return skip_branch(/*stop_at_else=*/true);
}

bool TemplateReader::answer(ChatFormat& format) {
  if (!tag("%ifmessage['role']=='assistant'andmessage['content']isnotnone") &&
      !tag("%ifmessage['role']=='assistant'and'tool_calls'notinmessage")) {
    return false;
  }
  if (!after_results(format)) return false;
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
  ChatFormat format = ChatFormat::v3();
  default_for_prompt();
  const bool known = names_system_prompt() && system(format) &&
                     all({kForMessages, kIfUser, "%setns.is_tool=false",
                          "='<｜User｜>'+message['content']", "%endif"}) &&
                     tool_branch(format) && answer(format) && results_or_skip(format) &&
                     all({"%endfor", "%ifns.is_tool"});
  if (!known) return std::nullopt;
  if (!all({kEndOfResults, "%endif"})) {
    format.tools_ = ToolForm::kNone;
    if (!skip_branch(false)) return std::nullopt;
  }
  if (!tag("%ifadd_generation_promptandnotns.is_tool")) return std::nullopt;
  format.opens_thought_ = tag("='<｜Assistant｜><think>\n'");
  if (!format.opens_thought_ && !tag("='<｜Assistant｜>'")) return std::nullopt;
  if (!tag("%endif") || !ends()) return std::nullopt;
  if (format.tools_ == ToolForm::kNone) format.breaks_results_ = true;  // whatever it was
  return format;
}

bool TemplateReader::answer_0324(std::string_view content) {
  if (!all({kIfNoCalls, "%setns.is_last_user=false", "%ifns.is_tool",
            cat("='<｜tool▁outputs▁end｜>'+", content, "+'<｜end▁of▁sentence｜>'"),
            "%setns.is_tool=false", "%else"})) {
    return false;
  }
  return (all({"%setcontent=message['content']", "=content+'<｜end▁of▁sentence｜>'"}) ||
          tag(cat("=", content, "+'<｜end▁of▁sentence｜>'"))) &&
         all({"%endif", "%endif"});
}

std::optional<ChatFormat> TemplateReader::v3_0324() {
  at_ = 0;
  ChatFormat format = ChatFormat::v3_0324();
  default_for_prompt();
  if (!names_system_prompt() || !system(format) || !tag(kForMessages)) return std::nullopt;
  format.drops_thoughts_ = tag("%setcontent=message['content']");
  const std::string_view content = format.drops_thoughts_ ? "content" : kContent;
  bool known =
      all({kIfUser, "%setns.is_tool=false", "%setns.is_first=false", "%setns.is_last_user=true",
           cat("='<｜User｜>'+", content, "+'<｜Assistant｜>'"), "%endif"});
  if (format.drops_thoughts_) {
    known = known && all({"%ifmessage['role']=='assistant'", "%if'</think>'incontent",
                          "%setcontent=content.split('</think>')[-1]", "%endif", "%endif"});
  }
  known = known &&
          all({kIfCalls, "%setns.is_last_user=false", "%ifns.is_tool", kEndOfResults, "%endif",
               "%setns.is_first=false", "%setns.is_tool=false", "%setns.is_output_first=true"}) &&
          calls("", content, /*null_only=*/false) && tag("%endif") && answer_0324(content) &&
          all({kIfTool, "%setns.is_last_user=false"}) && results(format.breaks_results_, content) &&
          all({"%endfor", "%ifns.is_tool", kEndOfResults, "%endif",
               "%ifadd_generation_promptandnotns.is_last_userandnotns.is_tool",
               "='<｜Assistant｜>'", "%endif"});
  if (!known || !ends()) return std::nullopt;
  return format;
}

bool TemplateReader::calls_v31() {
  if (!all({kIfCalls, "%ifns.is_last_user", "='<｜Assistant｜></think>'", "%endif",
            "%setns.is_last_user=false", "%setns.is_first=false", "%setns.is_tool=false", kForCalls,
            "%ifnotns.is_first", "%ifmessage['content']isnone"})) {
    return false;
  }
  // Arguments that a client has parsed already are written as JSON by some versions.
  for (const char* json : {"", "|tojson"}) {
    const std::string call =
        cat("<｜tool▁call▁begin｜>'+tool['function']['name']+'<｜tool▁sep｜>'+"
            "tool['function']['arguments']",
            json, "+'<｜tool▁call▁end｜>'");
    if (all({cat("='<｜tool▁calls▁begin｜>", call), "%else",
             cat("=message['content']+'<｜tool▁calls▁begin｜>", call), "%endif",
             "%setns.is_first=true", "%else", cat("='", call), "%endif", "%endfor", kEndOfCalls,
             "%endif"})) {
      return true;
    }
  }
  return false;
}

bool TemplateReader::answer_v31() {
  // A prefix, which would be gone on with, is not taken here, so that its branch is not reached.
  return all({kIfNoCalls,
              "%ifns.is_last_user",
              "='<｜Assistant｜>'",
              "%ifmessage['prefix']isdefinedandmessage['prefix']andthinking",
              "='<think>'",
              "%else",
              "='</think>'",
              "%endif",
              "%endif",
              "%setns.is_last_user=false",
              "%ifns.is_tool",
              "=message['content']+'<｜end▁of▁sentence｜>'",
              "%setns.is_tool=false",
              "%else",
              "%setcontent=message['content']",
              "%if'</think>'incontent",
              "%setcontent=content.split('</think>',1)[1]",
              "%endif",
              "=content+'<｜end▁of▁sentence｜>'",
              "%endif",
              "%endif"});
}

std::optional<ChatFormat> TemplateReader::v3_1() {
  at_ = 0;
  ChatFormat format = ChatFormat::v3_1();
  default_for_prompt();
  const bool known =
      default_for_thinking() && names_system_prompt() && system(format) &&
      all({kForMessages, kIfUser, "%setns.is_tool=false", "%setns.is_first=false",
           "%setns.is_last_user=true", "='<｜User｜>'+message['content']", "%endif"}) &&
      calls_v31() && answer_v31() &&
      all({kIfTool, "%setns.is_last_user=false", "%setns.is_tool=true",
           "='<｜tool▁output▁begin｜>'+message['content']+'<｜tool▁output▁end｜>'", "%endif",
           "%endfor", "%ifadd_generation_promptandns.is_last_userandnotns.is_tool",
           "='<｜Assistant｜>'", "%ifnotthinking", "='</think>'", "%else", "='<think>'", "%endif",
           "%endif"});
  if (!known || !ends()) return std::nullopt;
  return format;
}

}  // namespace cachalot::text
