// How field values look: quoting, number text, UTF-8. Shared by the readers and writers of fields.
#pragma once

#include <string>
#include <string_view>

#include "base/fields.h"

namespace cachalot {

bool valid_utf8(std::string_view text) noexcept;
// For messages: control characters and bytes that are not UTF-8 become '?', long texts are cut.
std::string printable(std::string_view text);
// A value as TOML and JSON both write it: 1, 0.5, true, "text", ["a", "b"].
std::string field_text(const FieldValue& value);

}  // namespace cachalot
