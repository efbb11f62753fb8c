// What to say about a command line that did not parse, with the nearest right word.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Error.hpp>
#include <string>

namespace cachalot::cli {

// One text for stderr; names the unknown flag or command and the nearest right one.
std::string explain(const CLI::App& root, const CLI::ParseError& error);

}  // namespace cachalot::cli
