// Charts, grids with sliders and drawings: where they stand in the page, and the JSON they are
// drawn from.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "base/error.h"
#include "report/html_parts.h"

namespace cachalot::report {

namespace {

constexpr const char* kKinds[] = {"lines", "bars", "points"};

Json number(double x) { return std::isfinite(x) ? Json(x) : Json(); }

Json numbers(const std::vector<double>& values) {
  Json list = Json::array();
  for (const double x : values) list.push_back(number(x));
  return list;
}

Json to_json(const Chart& chart) {
  Json series = Json::array();
  for (const Series& s : chart.series) {
    series.push_back({{"label", s.label}, {"values", numbers(s.values)}, {"marks", s.marks}});
  }
  return {{"kind", kKinds[static_cast<std::size_t>(chart.kind)]},
          {"title", chart.title},
          {"x_label", chart.x_label},
          {"y_label", chart.y_label},
          {"categories", chart.categories},
          {"x", numbers(chart.x)},
          {"log_x", chart.log_x},
          {"zero", chart.zero},
          {"series", series}};
}

std::string digits(double x) {
  if (!std::isfinite(x)) return "-";
  return std::abs(x) >= 1e5 && std::abs(x) < 1e15 ? fmt::format("{:.0f}", x)
                                                  : fmt::format("{:.6g}", x);
}

// The same numbers for whoever does not see the picture.
Table numbers_of(const PageWriter& writer, const Chart& chart) {
  Table table{chart.title, {{chart.x_label, chart.categories.empty()}}, {}};
  for (const Series& s : chart.series) table.columns.push_back({s.label});
  const std::size_t n = chart.categories.empty() ? chart.x.size() : chart.categories.size();
  for (std::size_t i = 0; i < n; ++i) {
    std::vector<Cell> row{
        Cell(chart.categories.empty() ? digits(chart.x[i]) : chart.categories[i])};
    for (const Series& s : chart.series) {
      const Mark mark = s.marks.empty() ? -1 : s.marks[i];
      const bool named = mark >= 0 && std::isfinite(s.values[i]);
      row.emplace_back(
          digits(s.values[i]) +
              (named ? " (" + writer.page.marks.at(static_cast<std::size_t>(mark)) + ")" : ""),
          named ? mark : -1);
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::string plot_html(const std::string& title, const std::string& attributes) {
  return fmt::format(
      "<div class=\"plot\" {} tabindex=\"0\" role=\"group\" aria-label=\"Chart: {}. Arrow keys "
      "read its points.\"></div>\n<p class=\"point\" aria-live=\"polite\"></p>\n",
      attributes, html(title));
}

std::string legend_html(const PageWriter& writer) {
  if (writer.page.marks.empty()) return "";
  std::string out = "<ul class=\"legend\" aria-label=\"What limits a point\">";
  for (std::size_t m = 0; m < writer.page.marks.size(); ++m) {
    out += fmt::format("<li>{}{}</li>", writer.mark_html(static_cast<Mark>(m)),
                       html(writer.page.marks[m]));
  }
  return out + "</ul>\n";
}

void check_shape(const WhatIf& w) {
  std::size_t points = 1;
  for (const Axis& axis : w.axes) {
    check(!axis.texts.empty() && axis.start < axis.texts.size(),
          cat("'", w.title, "': slider '", axis.label, "' has no position ", axis.start));
    points *= axis.texts.size();
  }
  check(points == w.points.size(),
        cat("'", w.title, "': ", w.points.size(), " points for ", points, " places of sliders"));
  for (const GridPoint& p : w.points) {
    check(p.numbers.size() == w.measures.size() && p.texts.size() == w.readouts.size(),
          cat("'", w.title, "': a point lacks numbers or texts"));
  }
}

// Own pictures hold shapes and text alone; whatever could run or load would be a defect there.
void check_drawing(const Drawing& drawing) {
  static constexpr std::string_view kTags[] = {"svg",      "/svg",  "g",      "/g",    "rect",
                                               "line",     "path",  "circle", "text",  "/text",
                                               "polyline", "tspan", "/tspan", "title", "/title"};
  const std::string_view svg = drawing.svg;
  for (std::size_t at = svg.find('<'); at != std::string_view::npos; at = svg.find('<', at + 1)) {
    const std::string_view tag = svg.substr(at + 1, svg.find('>', at) - at - 1);
    const std::string_view name = tag.substr(0, tag.find_first_of(" \n/", 1));
    bool good = std::ranges::find(kTags, name) != std::end(kTags);
    for (const std::string_view bad : {" on", "href", "url(", "style"}) {
      good = good && tag.find(bad) == std::string_view::npos;
    }
    check(good, cat("drawing '", drawing.title, "' is more than a picture: <", tag, ">"));
  }
}

}  // namespace

void PageWriter::write(const Chart& item) {
  const std::size_t n = item.categories.empty() ? item.x.size() : item.categories.size();
  bool marked = false;
  for (const Series& s : item.series) {
    check(s.values.size() == n && (s.marks.empty() || s.marks.size() == n),
          cat("chart '", item.title, "': series '", s.label, "' has ", s.values.size(),
              " values over ", n, " points"));
    marked = marked || !s.marks.empty();
  }
  out += fmt::format("<figure>\n<figcaption>{}</figcaption>\n", html(item.title));
  out += plot_html(item.title, fmt::format("data-chart=\"{}\"", charts.size()));
  if (marked) out += legend_html(*this);
  out += "<details><summary>Numbers of this chart</summary>\n" +
         table_html(*this, numbers_of(*this, item), item.title) + "</details>\n</figure>\n";
  charts.push_back(to_json(item));
}

void PageWriter::write(const WhatIf& item) {
  check_shape(item);
  const std::size_t id = what_ifs.size();
  out += fmt::format(
      "<div data-what-if=\"{}\">\n<h3>{}</h3>\n<p>{}</p>\n<div "
      "class=\"sliders\">\n",
      id, html(item.title), html(item.text));
  std::size_t start = 0;
  for (std::size_t a = 0; a < item.axes.size(); ++a) {
    const Axis& axis = item.axes[a];
    start = start * axis.texts.size() + axis.start;
    out += fmt::format(
        "<div class=\"slider\"><label for=\"w{0}a{1}\">{2}</label><output for=\"w{0}a{1}\">{3}"
        "</output><input type=\"range\" id=\"w{0}a{1}\" min=\"0\" max=\"{4}\" step=\"1\" "
        "value=\"{5}\" aria-valuetext=\"{3}\" autocomplete=\"off\"></div>\n",
        id, a, html(axis.label), html(axis.texts[axis.start]), axis.texts.size() - 1, axis.start);
  }
  out += "</div>\n<dl class=\"readouts\" aria-live=\"polite\">\n";
  const GridPoint& first = item.points[start];
  for (std::size_t r = 0; r < item.readouts.size(); ++r) {
    out += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>\n", html(item.readouts[r]),
                       html(first.texts[r]));
  }
  const bool marked = !page.marks.empty();
  if (marked) {
    const std::string mark =
        first.mark < 0 ? "-" : page.marks.at(static_cast<std::size_t>(first.mark));
    out += fmt::format("<div><dt>limited by</dt><dd>{}{}</dd></div>\n", mark_html(first.mark),
                       html(mark));
  }
  out += fmt::format("</dl>\n<p class=\"note\">{}</p>\n", html(first.note));
  if (item.axes.size() > 1) {
    out += "<fieldset class=\"along\"><legend>Draw along</legend>\n";
    for (std::size_t a = 0; a < item.axes.size(); ++a) {
      out += fmt::format(
          "<label><input type=\"radio\" name=\"w{0}along\" value=\"{1}\"{2} autocomplete=\"off\"> "
          "{3}</label>\n",
          id, a, a == 0 ? " checked" : "", html(item.axes[a].label));
    }
    out += "</fieldset>\n";
  }
  out += "<div class=\"pair\">\n";
  for (std::size_t m = 0; m < item.measures.size(); ++m) {
    out += fmt::format("<figure><figcaption>{}</figcaption>\n{}</figure>\n", html(item.measures[m]),
                       plot_html(item.measures[m], fmt::format("data-measure=\"{}\"", m)));
  }
  out += "</div>\n";
  if (marked) out += legend_html(*this);
  out +=
      "<noscript><p>The sliders and charts need scripts; the tables do not.</p></noscript>\n"
      "</div>\n";
  Json axes = Json::array(), points = Json::array();
  for (const Axis& axis : item.axes) {
    axes.push_back({{"label", axis.label}, {"texts", axis.texts}, {"start", axis.start}});
  }
  for (const GridPoint& p : item.points) {
    points.push_back({{"mark", p.mark}, {"n", numbers(p.numbers)}, {"t", p.texts}});
    if (!p.note.empty()) points.back()["note"] = p.note;
  }
  what_ifs.push_back({{"title", item.title},
                      {"axes", axes},
                      {"readouts", item.readouts},
                      {"measures", item.measures},
                      {"points", points}});
}

void PageWriter::write(const Drawing& item) {
  check(item.svg.starts_with("<svg"), cat("drawing '", item.title, "' is no SVG"));
  check_drawing(item);
  out += fmt::format(
      "<figure class=\"drawing\">\n<figcaption>{0}</figcaption>\n<div class=\"scroll\" "
      "role=\"img\" aria-label=\"{0}\" tabindex=\"0\">{1}</div>\n</figure>\n",
      html(item.title), item.svg);
}

}  // namespace cachalot::report
