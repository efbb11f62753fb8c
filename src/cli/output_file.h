// Flags that name what a command writes at the end of its work, looked at before the work begins.
//
// Threads: one command.
// Errors:  kUsage for no name; kIo naming the flag and what it names, what was met and what to do.
//          Nothing is left behind.
#pragma once

#include <CLI/App.hpp>
#include <string>

namespace cachalot::cli {

// An option FILE that may not be the empty name.
CLI::Option* add_output_file(CLI::App& command, const std::string& flag, std::string& file,
                             const std::string& help);

// Throws where `file` could not be written. Empty: none is wanted.
void check_output_file(const std::string& flag, const std::string& file);
// The same of a folder that is to hold files, made where it is not there yet.
void check_output_folder(const std::string& flag, const std::string& folder);

}  // namespace cachalot::cli
