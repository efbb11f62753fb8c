#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numbers>

#include "base/error.h"
#include "base/grouped.h"
#include "network/drawing.h"
#include "network/drawing_parts.h"
#include "network/topology_parts.h"

namespace cachalot::network {

namespace {

constexpr double kWidth = 1000, kHeight = 520, kEdge = 60;
constexpr std::size_t kMostLines = 6000;

struct Place {
  double x = 0, y = 0;
  bool shown = false;
};

// Rows of one plane: cores above spines above leaves.
std::vector<Place> place_tree(const Topology& topology) {
  std::vector<Place> places(topology.switches.size());
  const bool cores = topology.count(Tier::kCore) > 0;
  for (const Tier tier : {Tier::kLeaf, Tier::kSpine, Tier::kCore}) {
    std::vector<std::size_t> row;
    for (std::size_t s = 0; s < places.size(); ++s) {
      const Switch& at = topology.switches[s];
      if (at.tier == tier && at.plane == 0) row.push_back(s);
    }
    const double y = tier == Tier::kLeaf    ? kHeight - 110
                     : tier == Tier::kSpine ? (cores ? kHeight / 2 + 10 : 130)
                                            : 110;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const double x = kEdge + (kWidth - 2 * kEdge) * (static_cast<double>(i) + 0.5) /
                                   static_cast<double>(row.size());
      places[row[i]] = {x, y, true};
    }
  }
  return places;
}

// Everything on one circle, neighbours of a group together.
std::vector<Place> place_circle(const Topology& topology) {
  std::vector<Place> places(topology.switches.size());
  for (std::size_t s = 0; s < places.size(); ++s) {
    const double turn =
        2 * std::numbers::pi * (static_cast<double>(s) + 0.5) / static_cast<double>(places.size());
    places[s] = {kWidth / 2 + 205 * std::sin(turn), kHeight / 2 + 25 - 205 * std::cos(turn), true};
  }
  return places;
}

std::string colour_of(double load) {
  // From a quiet blue to a loud red.
  const double x = std::clamp(load, 0.0, 1.0);
  return fmt::format("rgb({:.0f},{:.0f},{:.0f})", 70 + 150 * x, 130 - 80 * x, 180 - 140 * x);
}

void draw_lines(std::string& svg, const Topology& topology, std::span<const double> load,
                const std::vector<Place>& places) {
  std::vector<std::size_t> shown;
  for (std::size_t l = 0; l < topology.links.size(); ++l) {
    if (places[static_cast<std::size_t>(topology.links[l].a)].shown) shown.push_back(l);
  }
  const std::size_t every = shown.size() / kMostLines + 1;
  const std::size_t drawn = shown.size() / every + 1;
  const double opacity = std::clamp(900.0 / static_cast<double>(drawn), 0.08, 0.8);
  for (std::size_t i = 0; i < shown.size(); i += every) {
    const Link& link = topology.links[shown[i]];
    const Place& a = places[static_cast<std::size_t>(link.a)];
    const Place& b = places[static_cast<std::size_t>(link.b)];
    const std::string colour = !load.empty()                    ? colour_of(load[shown[i]])
                               : link.kind == LinkClass::kLocal ? "#6b8e23"
                                                                : "#1f6f8b";
    fmt::format_to(std::back_inserter(svg),
                   "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\" "
                   "stroke-opacity=\"{:.2f}\"/>\n",
                   a.x, a.y, b.x, b.y, colour, load.empty() ? opacity : std::max(opacity, 0.4));
  }
  if (every > 1) {
    fmt::format_to(std::back_inserter(svg),
                   "<text x=\"{}\" y=\"{}\" fill=\"#666666\">one link of {} is drawn</text>\n",
                   kEdge, kHeight - 14, every);
  }
}

void draw_switches(std::string& svg, const Topology& topology, const std::vector<Place>& places) {
  std::vector<std::int64_t> holds(topology.switches.size());
  for (const int at : topology.attach) ++holds[static_cast<std::size_t>(at)];
  const bool tree = topology.spec.kind != Kind::kDragonfly && topology.spec.kind != Kind::kSlimFly;
  for (std::size_t s = 0; s < places.size(); ++s) {
    if (!places[s].shown) continue;
    const char* const colour = topology.switches[s].tier == Tier::kLeaf    ? "#1f4e5f"
                               : topology.switches[s].tier == Tier::kSpine ? "#e07a3f"
                                                                           : "#8e5ea2";
    const double size =
        std::clamp(420.0 / static_cast<double>(places.size()), tree ? 2.5 : 1.2, 9.0);
    fmt::format_to(
        std::back_inserter(svg),
        "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\"/>\n",
        places[s].x - size / 2, places[s].y - size / 2, size, size, colour);
    if (tree && holds[s] > 0) {
      fmt::format_to(std::back_inserter(svg),
                     "<line x1=\"{0:.1f}\" y1=\"{1:.1f}\" x2=\"{0:.1f}\" y2=\"{2:.1f}\" "
                     "stroke=\"#999999\" stroke-width=\"{3:.1f}\"/>\n",
                     places[s].x, places[s].y + size / 2, places[s].y + 26,
                     std::max(size / 2, 1.0));
    }
  }
}

void label_rows(std::string& svg, const Topology& topology) {
  const auto row = [&](double y, Tier tier, const char* plural) {
    std::int64_t count = 0;
    for (const Switch& s : topology.switches) count += s.tier == tier && s.plane == 0;
    if (count == 0) return;
    fmt::format_to(std::back_inserter(svg),
                   "<text x=\"{}\" y=\"{:.1f}\" fill=\"#444444\">{} {}</text>\n", kEdge, y,
                   grouped(count), plural);
  };
  const bool cores = topology.count(Tier::kCore) > 0;
  row(92, Tier::kCore, "cores");
  row(cores ? kHeight / 2 - 8 : 112, Tier::kSpine, "spines");
  row(kHeight - 122, Tier::kLeaf, "leaves");
  fmt::format_to(std::back_inserter(svg),
                 "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"#444444\">{} {}{}</text>\n",
                 kWidth / 2, kHeight - 62,
                 grouped(static_cast<std::int64_t>(topology.attach.size()) / topology.planes),
                 topology.spec.nic_ports > 1 ? "NIC ports" : "endpoints",
                 topology.planes > 1 ? " in each plane" : "");
}

}  // namespace

std::string draw_topology(const Topology& topology, std::span<const double> load) {
  const bool tree = topology.spec.kind != Kind::kDragonfly && topology.spec.kind != Kind::kSlimFly;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" "
      "height=\"{1}\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" "
      "fill=\"#ffffff\"/>\n"
      "<text x=\"{2}\" y=\"30\" font-size=\"16\" font-weight=\"bold\">{3}: {4} endpoints, {5} "
      "switches of {6} ports, "
      "{7} links</text>\n",
      kWidth, kHeight, kEdge, name(topology.spec.kind), grouped(topology.endpoints()),
      grouped(static_cast<std::int64_t>(topology.switches.size())), topology.spec.ports,
      grouped(static_cast<std::int64_t>(topology.links.size())));
  if (topology.planes > 1) {
    for (int sheet = std::min(topology.planes, 8) - 1; sheet > 0; --sheet) {
      fmt::format_to(std::back_inserter(svg),
                     "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"#fbfbfb\" "
                     "stroke=\"#cccccc\"/>\n",
                     30 + 4 * sheet, 78 - 4 * sheet, kWidth - 90, kHeight - 130);
    }
    fmt::format_to(
        std::back_inserter(svg),
        "<rect x=\"30\" y=\"78\" width=\"{}\" height=\"{}\" fill=\"#ffffff\" stroke=\"#999999\"/>\n"
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#444444\">plane 1 of {}; the others "
        "are alike</text>\n",
        kWidth - 90, kHeight - 130, kWidth - 70, kHeight - 62, topology.planes);
  }
  const std::vector<Place> places = tree ? place_tree(topology) : place_circle(topology);
  draw_lines(svg, topology, load, places);
  draw_switches(svg, topology, places);
  if (tree) label_rows(svg, topology);
  if (!load.empty()) {
    fmt::format_to(std::back_inserter(svg),
                   "<text x=\"{}\" y=\"48\" fill=\"#444444\">colour: time a link is busy, <tspan "
                   "fill=\"{}\">none</tspan> to "
                   "<tspan fill=\"{}\">as long as the traffic takes</tspan></text>\n",
                   kEdge, colour_of(0), colour_of(1));
  }
  return svg + "</svg>\n";
}

}  // namespace cachalot::network
