// Tasks in child processes: for libraries that exist once in a process, or that fork themselves.
//
// Each task runs in a child of its own, so many at once; its text comes back by memory that both
// share. What a task changes elsewhere is lost with its process.
//
// Threads: forks, so from a process with one thread only.
// Errors:  an Error of a task is thrown here, the first task's first; kInternal where a child ended
//          otherwise; kIo where none can be started. No child is left behind.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace cachalot {

std::vector<std::string> in_processes(std::size_t tasks, int at_once,
                                      const std::function<std::string(std::size_t)>& work);

}  // namespace cachalot
