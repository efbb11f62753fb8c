#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "network/drawing.h"
#include "network/drawing_parts.h"

namespace cachalot::network {

namespace {

constexpr const char* kColours[] = {"#1f6f8b", "#e07a3f", "#6b8e23", "#8e5ea2",
                                    "#c94c4c", "#777777", "#2a9d8f", "#b5838d"};

double legend_width(const std::string& name) { return 34 + 7.5 * static_cast<double>(name.size()); }

// A round number near a fifth of `top`.
double tick_of(double top) {
  const double raw = top / 5, power = std::pow(10, std::floor(std::log10(raw)));
  for (const double step : {1.0, 2.0, 2.5, 5.0}) {
    if (raw <= step * power) return step * power;
  }
  return 10 * power;
}

}  // namespace

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      out += c;
    }
  }
  return out;
}

std::string draw_bars(const BarChart& chart) {
  const double height = 420, left = 70, top_edge = 70, bottom = 60;
  const auto series = static_cast<double>(chart.series.size());
  const double bar =
      std::clamp(560.0 / (static_cast<double>(chart.categories.size()) * series), 14.0, 40.0);
  const double step = bar * (series + 1);
  double legend_end = left;
  for (const std::string& name : chart.series) legend_end += legend_width(name);
  const double width =
      std::max(left + step * static_cast<double>(chart.categories.size()) + 30, legend_end);
  double top = chart.reference;
  for (const auto& of_series : chart.bars) {
    for (const Bar& b : of_series) {
      if (std::isfinite(b.value)) top = std::max(top, b.value);
    }
  }
  top = std::max(top * 1.15, 1e-9);
  const auto y_of = [&](double value) {
    return height - bottom - value / top * (height - bottom - top_edge);
  };
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" "
      "height=\"{1:.0f}\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" "
      "fill=\"#ffffff\"/>\n"
      "<text x=\"{2}\" y=\"24\" font-size=\"15\" font-weight=\"bold\">{3}</text>\n",
      width, height, left, escaped(chart.title));
  const auto out = std::back_inserter(svg);
  const double tick = tick_of(top);
  for (int i = 0; i * tick <= top; ++i) {
    const double y = y_of(i * tick);
    fmt::format_to(
        out,
        "<line x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#dddddd\"/>"
        "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\" fill=\"#444444\">{:g}</text>\n",
        left, width - 20, y, y, left - 6, y + 4, i * tick);
  }
  fmt::format_to(
      out,
      "<text transform=\"translate(18 {:.1f}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
      (height - bottom + top_edge) / 2, escaped(chart.y_label));
  double legend = left;
  for (std::size_t s = 0; s < chart.series.size(); ++s) {
    fmt::format_to(out,
                   "<rect x=\"{:.1f}\" y=\"36\" width=\"12\" height=\"12\" fill=\"{}\"/><text "
                   "x=\"{:.1f}\" y=\"46\">{}</text>\n",
                   legend, kColours[s % std::size(kColours)], legend + 16,
                   escaped(chart.series[s]));
    legend += legend_width(chart.series[s]);
  }
  for (std::size_t c = 0; c < chart.categories.size(); ++c) {
    const double x0 = left + step * static_cast<double>(c) + bar / 2;
    for (std::size_t s = 0; s < chart.series.size(); ++s) {
      const Bar& b = chart.bars[s][c];
      const double x = x0 + bar * static_cast<double>(s);
      const double y = std::isfinite(b.value) ? y_of(b.value) : height - bottom;
      if (std::isfinite(b.value)) {
        fmt::format_to(
            out,
            "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\"/>\n", x,
            y, bar - 2, height - bottom - y, kColours[s % std::size(kColours)]);
      }
      fmt::format_to(
          out,
          "<text transform=\"translate({:.1f} {:.1f}) rotate(-90)\" font-size=\"10\">{}</text>\n",
          x + bar / 2 + 3, y - 4, escaped(b.text));
    }
    fmt::format_to(out, "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n",
                   x0 + bar * series / 2, height - bottom + 18, escaped(chart.categories[c]));
  }
  if (chart.reference > 0) {
    fmt::format_to(out,
                   "<line x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" "
                   "stroke=\"#222222\" stroke-dasharray=\"5 4\"/>\n",
                   left, width - 20, y_of(chart.reference), y_of(chart.reference));
  }
  return svg + "</svg>\n";
}

}  // namespace cachalot::network
