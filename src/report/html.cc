#include "report/html.h"

#include <fmt/format.h>

#include <iterator>

#include "base/error.h"
#include "report/assets.h"
#include "report/html_parts.h"

namespace cachalot::report {

namespace {

// Beside the colour: a shape, so that colour alone never tells.
constexpr const char* kShapes[kMostMarks] = {"&#9679;", "&#9632;", "&#9650;",
                                             "&#9670;", "&#9660;", "&#10010;"};

std::string_view only(std::span<const EmbeddedFile> files) {
  check(files.size() == 1, "a page's asset is not one file");
  return files.front().text;
}

std::string head(const Page& page) {
  // The policy keeps even a mistake in this file from loading anything.
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n"
      "<style>\n{}\n</style>\n<style>\n{}</style>\n</head>\n",
      html(page.title), only(uplot_style()), only(embedded_style()));
}

std::string top(const Page& page) {
  std::string out = fmt::format(
      "<body>\n<a class=\"skip\" href=\"#main\">Skip to the report</a>\n<header>\n<h1>{}</h1>\n"
      "<p>{}</p>\n",
      html(page.title), html(page.summary));
  if (!page.command.empty()) {
    out += fmt::format("<p class=\"command\"><code>{}</code></p>\n", html(page.command));
  }
  out += "<nav aria-label=\"Sections\"><ul>\n";
  for (std::size_t s = 0; s < page.sections.size(); ++s) {
    out += fmt::format("<li><a href=\"#s{}\">{}</a></li>\n", s, html(page.sections[s].title));
  }
  return out + "</ul></nav>\n</header>\n<main id=\"main\">\n";
}

std::string tail(const PageWriter& writer) {
  const Page& page = writer.page;
  const Json data = {{"format", "cachalot-report-1"}, {"command", page.command},
                     {"version", page.version},       {"marks", page.marks},
                     {"charts", writer.charts},       {"what_ifs", writer.what_ifs},
                     {"result", page.result}};
  return fmt::format(
      "</main>\n<footer><p>Written by cachalot {}. Charts by uPlot (MIT licence, in this page's "
      "source). Nothing is loaded: the page works without a network.</p></footer>\n"
      "<script type=\"application/json\" id=\"report-data\">{}</script>\n"
      "<script>\n/*!\n{}*/\n{}\n</script>\n<script>\n{}</script>\n</body>\n</html>\n",
      html(page.version), script_json(data), only(uplot_licence()), only(uplot_script()),
      only(embedded_script()));
}

}  // namespace

void check(bool good, const std::string& what) {
  if (!good) throw Error(Code::kInternal, cat("report: ", what));
}

std::string PageWriter::mark_html(Mark mark) const {
  if (mark < 0) return "";
  check(static_cast<std::size_t>(mark) < page.marks.size(), cat("there is no mark ", mark));
  const auto m = static_cast<std::size_t>(mark);
  return fmt::format("<span class=\"mark m{}\" aria-hidden=\"true\">{}</span>", mark, kShapes[m]);
}

std::string table_html(const PageWriter& writer, const Table& table, const std::string& label) {
  std::string out = fmt::format(
      "<div class=\"scroll\" role=\"region\" aria-label=\"{}\" tabindex=\"0\"><table>\n<thead><tr>",
      html(label));
  for (const Column& column : table.columns) {
    out += fmt::format("<th scope=\"col\"{}>{}</th>", column.number ? " class=\"n\"" : "",
                       html(column.head));
  }
  out += "</tr></thead>\n<tbody>\n";
  for (const auto& row : table.rows) {
    check(!row.empty() && row.size() <= table.columns.size(),
          cat("table '", table.title, "' has a row of ", row.size(), " cells below ",
              table.columns.size(), " columns"));
    out += "<tr>";
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::size_t span = c + 1 == row.size() ? table.columns.size() - c : 1;
      constexpr std::size_t kLong = 40;  // characters that may be broken into lines
      const char* const kind = table.columns[c].number && span == 1 ? " class=\"n\""
                               : row[c].text.size() > kLong         ? " class=\"long\""
                                                                    : "";
      out += fmt::format("<td{}{}>{}{}</td>", span > 1 ? fmt::format(" colspan=\"{}\"", span) : "",
                         kind, writer.mark_html(row[c].mark), html(row[c].text));
    }
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

void PageWriter::write(const Paragraph& item) {
  out += fmt::format("<p>{}</p>\n", html(item.text));
}

void PageWriter::write(const Facts& item) {
  out += "<dl>\n";
  for (const auto& [name, value] : item.items) {
    out += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>\n", html(name), html(value));
  }
  out += "</dl>\n";
}

void PageWriter::write(const Table& item) {
  if (!item.title.empty()) out += fmt::format("<h3>{}</h3>\n", html(item.title));
  out += table_html(*this, item, item.title.empty() ? "table" : item.title);
}

std::string to_html(const Page& page) {
  check(page.marks.size() <= kMostMarks, cat(page.marks.size(), " marks; the style has fewer"));
  PageWriter writer{page, head(page) + top(page)};
  for (std::size_t s = 0; s < page.sections.size(); ++s) {
    writer.out += fmt::format(
        "<section id=\"s{0}\" aria-labelledby=\"h{0}\">\n<h2 id=\"h{0}\">"
        "{1}</h2>\n",
        s, html(page.sections[s].title));
    for (const Item& item : page.sections[s].items) {
      std::visit([&](const auto& i) { writer.write(i); }, item);
    }
    writer.out += "</section>\n";
  }
  return writer.out + tail(writer);
}

}  // namespace cachalot::report
