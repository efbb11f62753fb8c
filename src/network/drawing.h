// Pictures as SVG: a network's graph (with its links coloured by load, where known), and bars.
//
// Threads: pure functions.
// Errors:  none.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "network/topology.h"

namespace cachalot::network {

// `load` of each link between switches, 0 to 1; empty: not known. Large networks are drawn with a
// sample of their links, and planes that look like the first as sheets behind it.
std::string draw_topology(const Topology& topology, std::span<const double> load = {});

struct Bar {
  double value = 0;  // NaN: nothing to draw but `text`
  std::string text;  // above the bar
};
struct BarChart {
  std::string title, y_label;
  std::vector<std::string> categories;  // along x
  std::vector<std::string> series;      // colours
  std::vector<std::vector<Bar>> bars;   // [series][category]
  double reference = 0;                 // a dashed line; 0: none
};
std::string draw_bars(const BarChart& chart);

}  // namespace cachalot::network
