// The picture of bench_accumulation: both axes logarithmic, readable on light and dark pages.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "perf/bench_accumulation.h"

namespace cachalot::perf {

namespace {

constexpr double kWidth = 900, kHeight = 400, kTop = 56, kBottom = 48;
constexpr double kPanelWidth = 290, kPanelLeft[] = {72, 462};
constexpr const char* kColours[] = {"#d1495b", "#b07d12", "#3a7d44", "#1f6fb2", "#6c4ab6",
                                    "#2a9d8f", "#9c6644", "#577590", "#808080"};
constexpr double kReported = 0.02;  // "nearly 2 %" of the report

// Powers of two from left to right, powers of ten from top to bottom.
struct Axes {
  double left;
  double k_low, k_high, e_low, e_high;  // logarithms: of 2, of 10
  double x(double k) const {
    const double span = std::max(k_high - k_low, 1.0);
    return left + (std::log2(k) - k_low) / span * kPanelWidth;
  }
  double y(double error) const {
    const double at = (std::clamp(std::log10(error), e_low, e_high) - e_low) / (e_high - e_low);
    return kHeight - kBottom - at * (kHeight - kTop - kBottom);
  }
};

std::string label(const Accumulation& sum) {
  if (sum.kind == Accumulator::kFloat) return "float32";
  return sum.interval == 0 ? "never promoted" : fmt::format("N_C = {}", sum.interval);
}

std::string percent(double exponent) { return fmt::format("{:g} %", 100 * std::pow(10, exponent)); }

std::string grid(const Axes& a, std::string_view title) {
  std::string out = fmt::format(R"(<text class="title" x="{:.0f}" y="{:.0f}">{}</text>)", a.left,
                                kTop - 14, title);
  for (double e = std::ceil(a.e_low); e <= a.e_high; ++e) {
    const double y = a.y(std::pow(10, e));
    out += fmt::format(R"(<path class="grid" d="M{:.1f} {:.1f}h{:.0f}"/>)", a.left, y, kPanelWidth);
    out += fmt::format(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>)", a.left - 6,
                       y + 4, percent(e));
  }
  for (double k = std::ceil(a.k_low); k <= a.k_high; ++k) {
    out += fmt::format(R"(<text x="{:.1f}" y="{:.0f}" text-anchor="middle">{:g}</text>)",
                       a.x(std::exp2(k)), kHeight - kBottom + 18, std::exp2(k));
  }
  const double y = a.y(kReported);
  return out +
         fmt::format(R"(<path class="mark" d="M{:.1f} {:.1f}h{:.0f}"/>)", a.left, y, kPanelWidth) +
         fmt::format(R"(<text x="{:.1f}" y="{:.1f}">2 %</text>)", a.left + 4, y - 4) + "\n";
}

// The curves of one kind of inputs, in the order in which their sums first appear.
std::string curves(const Axes& a, const std::vector<AccumulationCase>& cases, RandomInputs inputs,
                   bool legend) {
  std::vector<std::string> names;
  std::map<std::string, std::vector<const AccumulationCase*>> points;
  for (const AccumulationCase& c : cases) {
    if (c.inputs != inputs) continue;
    const std::string name = label(c.sum);
    if (points[name].empty()) names.push_back(name);
    points[name].push_back(&c);
  }
  std::string out;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const char* colour = kColours[i % std::size(kColours)];
    std::string path, dots;
    for (const AccumulationCase* c : points[names[i]]) {
      if (!(c->max_error > 0)) continue;  // exact: nothing to show on this axis
      const double x = a.x(c->k), y = a.y(c->max_error);
      path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", x, y);
      dots += fmt::format(R"(<circle cx="{:.1f}" cy="{:.1f}" r="2.5" fill="{}"/>)", x, y, colour);
    }
    out += fmt::format(R"(<path class="curve" stroke="{}" d="{}"/>{})", colour, path, dots);
    if (legend) {
      out += fmt::format(R"(<text x="{:.0f}" y="{:.0f}" style="fill:{}">{}</text>)",
                         a.left + kPanelWidth + 16, kTop + 20.0 * static_cast<double>(i) + 8,
                         colour, names[i]);
    }
    out += "\n";
  }
  return out;
}

}  // namespace

std::string accumulation_picture(const std::vector<AccumulationCase>& cases) {
  Axes axes{0, 1e9, -1e9, -8, 0};
  double least = 1, most = kReported;
  for (const AccumulationCase& c : cases) {
    axes.k_low = std::min(axes.k_low, std::log2(c.k));
    axes.k_high = std::max(axes.k_high, std::log2(c.k));
    if (c.max_error > 0) least = std::min(least, c.max_error);
    most = std::max(most, c.max_error);
  }
  axes.e_low = std::floor(std::log10(least));
  axes.e_high = std::ceil(std::log10(most));
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\">"
      "<title>Largest relative error of sums in Hopper's accumulator</title><style>"
      "text{{font:12px system-ui,sans-serif;fill:#808080}}.title{{font-size:14px;font-weight:600}}"
      ".grid{{stroke:#808080;stroke-opacity:.25}}.mark{{stroke:#808080;stroke-dasharray:4 3}}"
      ".curve{{fill:none;stroke-width:2}}</style>\n",
      kWidth, kHeight);
  const char* titles[] = {"normal inputs: largest error", "inputs of [0, 1): largest error"};
  for (const RandomInputs inputs : {RandomInputs::kNormal, RandomInputs::kUniform}) {
    const auto panel = static_cast<std::size_t>(inputs);
    axes.left = kPanelLeft[panel];
    out += grid(axes, titles[panel]);
    out += curves(axes, cases, inputs, panel == 1);
    out += fmt::format(R"(<text x="{:.0f}" y="{:.0f}" text-anchor="middle">K</text>)",
                       axes.left + kPanelWidth / 2, kHeight - 10);
  }
  return out + "</svg>\n";
}

}  // namespace cachalot::perf
