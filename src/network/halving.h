// Switches in two halves of the endpoints that few links join, improved by passes of Fiduccia and
// Mattheyses: every switch changes sides once, always one of the side with more endpoints, the one
// first whose move saves most links; what stays are the moves up to the best moment. So a pass gets
// over hills that no single move or exchange does.
//
// Threads: pure functions.
// Errors:  none.
// Paper:   Fiduccia and Mattheyses (DAC'82); Kernighan and Lin (Bell System Tech. J. 1970).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "network/adjacency.h"

namespace cachalot::network {

using Sides = std::vector<char>;  // [switches] 0 or 1

// Switches into the first half in this order, each that still fits. `endpoints` are those of each
// switch.
Sides halve(std::span<const int> order, std::span<const std::int64_t> endpoints);

// By `passes` at most. Returns twice the links between the sides, and as many more as one side has
// endpoints too many: half of that bounds what two exact halves can send each other, for what is
// too many comes over by its endpoints' own links.
std::int64_t improve(const Adjacency& graph, std::span<const std::int64_t> endpoints, Sides& sides,
                     int passes);

}  // namespace cachalot::network
