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
// cache's format, products and activations, the kernels' level, the kind of attention, and whether
// rows of the MTP layer are in it.
PrefixIdentity prefix_identity(const std::filesystem::path& folder, const Context& ctx,
                               const model::Model& model, const model::CacheShape& shape,
                               model::AttentionMode attention, bool mtp);

// Appends to `read`, which holds whole blocks or less of `wanted`, the blocks that the store has of
// it, and says how many whole blocks of `wanted` it then holds. The last token of `wanted` is never
// among its rows, and the last row has an MTP row, or room for one to be made.
int restore_blocks(PrefixStore& store, std::span<const std::int32_t> wanted, bool mtp,
                   ReadText& read);

// Hands the store the blocks of `read` that it has not.
void keep_blocks(PrefixStore& store, bool mtp, const ReadText& read);

}  // namespace cachalot::infer
