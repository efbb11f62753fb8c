// A report as data: sections of text, facts, tables, charts, drawings and what-if grids. The
// commands fill it from their results; text.h prints its tables on a terminal, html.h makes the one
// page of it.
//
// Nothing here is computed: a what-if grid holds every point that its sliders can choose.
//
// Owns:    its strings and numbers.
// Threads: plain values.
// Errors:  none; html.h checks that shapes agree.
#pragma once

#include <limits>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "report/escape.h"

namespace cachalot::report {

inline constexpr double kNothing = std::numeric_limits<double>::quiet_NaN();  // no such point

// Which of Page::marks (the resources that may limit) a figure belongs to; -1: none. Marks are
// shown as colour, shape and words together.
using Mark = int;

struct Cell {
  std::string text;
  Mark mark = -1;
  Cell(std::string t, Mark m = -1) : text(std::move(t)), mark(m) {}  // NOLINT: text is a cell
  Cell(const char* t) : text(t) {}                                   // NOLINT
};

struct Column {
  std::string head;
  bool number = true;  // to the right
};

// A row that is shorter than the head ends with a cell that spans what is left.
struct Table {
  std::string title;
  std::vector<Column> columns;
  std::vector<std::vector<Cell>> rows;
};

struct Facts {
  std::vector<std::pair<std::string, std::string>> items;
};

struct Paragraph {
  std::string text;
};

struct Series {
  std::string label;
  std::vector<double> values;  // one for each x; kNothing: not there
  std::vector<Mark> marks;     // of each value; empty: none
};

struct Chart {
  enum class Kind { kLines, kBars, kPoints };
  Kind kind = Kind::kLines;
  std::string title, x_label, y_label;
  std::vector<std::string> categories;  // along x; empty: `x`
  std::vector<double> x;                // ascending
  bool log_x = false;
  bool zero = true;  // the y axis begins at 0
  std::vector<Series> series;
};

// One slider.
struct Axis {
  std::string label;
  std::vector<std::string> texts;  // of its positions
  std::size_t start = 0;
};

struct GridPoint {
  Mark mark = -1;
  std::vector<double> numbers;     // one for each of WhatIf::measures; kNothing: none
  std::vector<std::string> texts;  // one for each of WhatIf::readouts
  std::string note;                // why there is nothing, where there is nothing
};

// Sliders over a grid that has been computed; the page only looks points up.
struct WhatIf {
  std::string title, text;
  std::vector<Axis> axes;
  std::vector<std::string> readouts;
  std::vector<std::string> measures;  // each is drawn against one axis, the others held
  std::vector<GridPoint> points;      // row by row: the last axis changes fastest
};

// A picture that this program drew itself; not escaped, but refused where it could run or load
// something.
struct Drawing {
  std::string title, svg;
};

using Item = std::variant<Paragraph, Facts, Table, Chart, WhatIf, Drawing>;

struct Section {
  std::string title;
  std::vector<Item> items;
};

struct Page {
  std::string title, summary;
  std::string command;             // that writes this page again
  std::string version;             // of the program
  std::vector<std::string> marks;  // names of what may limit; at most kMostMarks
  std::vector<Section> sections;
  Json result;  // what --json prints
};
inline constexpr std::size_t kMostMarks = 6;  // shapes and colours that the style has

}  // namespace cachalot::report
