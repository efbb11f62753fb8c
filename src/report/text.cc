#include "report/text.h"

#include <fmt/format.h>

#include <algorithm>

namespace cachalot::report {

namespace {

std::string line_of(const std::vector<std::string>& cells, const std::vector<Column>& columns,
                    const std::vector<std::size_t>& widths) {
  std::string line;
  for (std::size_t c = 0; c < cells.size(); ++c) {
    const bool spans = c + 1 == cells.size() && cells.size() < columns.size();
    if (c > 0) line += "  ";
    line += columns[c].number && !spans ? fmt::format("{:>{}}", cells[c], widths[c])
                                        : fmt::format("{:<{}}", cells[c], spans ? 0 : widths[c]);
  }
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

}  // namespace

std::string text(const Table& table) {
  std::vector<std::vector<std::string>> lines(1);
  for (const Column& column : table.columns) lines[0].push_back(column.head);
  for (const auto& row : table.rows) {
    lines.emplace_back();
    for (const Cell& cell : row) lines.back().push_back(cell.text);
  }
  std::vector<std::size_t> widths(table.columns.size());
  for (const auto& cells : lines) {
    const std::size_t whole = cells.size() < widths.size() ? cells.size() - 1 : cells.size();
    for (std::size_t c = 0; c < whole; ++c) {
      widths[c] = std::max(widths[c], cells[c].size());
    }
  }
  std::string out;
  for (const auto& cells : lines) out += line_of(cells, table.columns, widths);
  return out;
}

std::string text(const Facts& facts) {
  std::string out;
  for (const auto& [name, value] : facts.items) out += fmt::format("{:<22} {}\n", name, value);
  return out;
}

}  // namespace cachalot::report
