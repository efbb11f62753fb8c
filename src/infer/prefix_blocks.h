// Between the latent cache and the prefix store: whole blocks of 64 tokens go out and come back.
//
// Threads: the store takes any; a ReadText has one user.
// Errors:  kIo where the model's files cannot be read for their fingerprint.
#pragma once

#include <filesystem>
#include <span>

#include "infer/prefix_store.h"
#include "infer/stream.h"
#include "model/forward.h"

namespace cachalot::infer {

// Whose rows a store holds: config.json and the weight files (of up to 1 GiB all of them, else
// sizes, times, headers and samples of their contents), and all that changes a bit of a row: the
// cache's format, products and activations, the kernels' level and the code they are made of
// (computing_code.h), the kind of attention, and whether rows of the MTP layer are in it.
PrefixIdentity prefix_identity(const std::filesystem::path& folder, const Context& ctx,
                               const model::Model& model, const model::CacheShape& shape,
                               model::AttentionMode attention, bool mtp);

struct RestoredBlocks {
  int held = 0;    // whole blocks of `wanted` that `read` holds now
  int stored = 0;  // those that the store was seen to have; 0 where it was not asked
};
// Appends to `read`, which holds whole blocks or less of `wanted`, the blocks that the store has of
// it. The last token of `wanted` is never among its rows, and the last row has an MTP row, or room
// for one to be made.
RestoredBlocks restore_blocks(PrefixStore& store, std::span<const std::int32_t> wanted, bool mtp,
                              ReadText& read);

// Hands the store the whole blocks of `read` from `first` on, and returns where to go on when there
// are more: blocks that it had no room for are offered again, in their order.
int keep_blocks(PrefixStore& store, bool mtp, const ReadText& read, int first);

}  // namespace cachalot::infer
