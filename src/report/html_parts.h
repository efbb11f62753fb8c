// What the files of the page's writer share.
#pragma once

#include <string>

#include "report/page.h"

namespace cachalot::report {

// Collects the page's text and the data that its script reads.
struct PageWriter {
  const Page& page;
  std::string out;
  Json charts = Json::array();
  Json what_ifs = Json::array();

  void write(const Paragraph& item);
  void write(const Facts& item);
  void write(const Table& item);
  void write(const Chart& item);
  void write(const WhatIf& item);
  void write(const Drawing& item);

  std::string mark_html(Mark mark) const;  // shape and name, or nothing
};

void check(bool good, const std::string& what);  // throws kInternal
// A table in a box of its own that scrolls where the window is narrow.
std::string table_html(const PageWriter& writer, const Table& table, const std::string& label);

}  // namespace cachalot::report
