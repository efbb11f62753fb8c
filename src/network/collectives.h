// The flows of collectives over a group of GPUs, as NCCL lays them out: rings over nodes with one
// channel per rail, and all-to-all by pairs of nodes.
//
// The steps of a ring are one long flow per neighbour (all steps move the same bytes over the same
// links), and what each further step costs in latency is returned, to be added.
//
// Threads: plain functions; they fill the Carrier.
// Errors:  none.
#pragma once

#include "network/carrier.h"
#include "network/moe_traffic.h"

namespace cachalot::network {

// Every GPU has bytes_per_gpu, an equal part for each GPU of the group (itself included).
// `by_node`: what goes from one node to another's GPU r leaves by the NIC of its own GPU r.
void all_to_all(Carrier& carrier, const Group& group, int gpus_per_node, double bytes_per_gpu,
                bool by_node, int tag);

// Ring over the nodes on each rail, with a reduce-scatter before and an all-gather after it inside
// the node. passes: 2 for all-reduce, 1 for all-gather and reduce-scatter. Returns seconds of
// latency of the steps after the first.
double ring(Carrier& carrier, const Fabric& fabric, const Group& group, int gpus_per_node,
            double bytes_per_gpu, int passes, int tag);

// Each GPU of `stage` sends bytes to the GPU of the same number in `next`.
void pipeline_step(Carrier& carrier, const Group& stage, const Group& next, double bytes_per_gpu,
                   int tag);

}  // namespace cachalot::network
