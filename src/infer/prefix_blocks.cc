#include "infer/prefix_blocks.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"
#include "infer/computing_code.h"
#include "io/checksum.h"
#include "kernels/table.h"

namespace cachalot::infer {

namespace {

namespace fs = std::filesystem;

// Up to this size a model is hashed whole: a fraction of a second.
constexpr std::uint64_t kWholeBytes = std::uint64_t{1} << 30;

// Size, time of the last change, beginning and 64 samples of a file: gigabytes of weights need not
// be read to tell one model from another. One that was changed elsewhere has another time, and so
// has a copy, which costs it what was stored and no more.
std::string sample(const fs::path& file) {
  constexpr std::uint64_t kPiece = 4096;
  constexpr std::uint64_t kSamples = 64;
  constexpr std::uint64_t kHead = 1 << 20;
  std::ifstream in(file, std::ios::binary);
  const std::uint64_t size = fs::file_size(file);
  const auto changed = fs::last_write_time(file).time_since_epoch().count();
  std::string all = cat(size, ":", changed, ":");
  const auto piece = [&](std::uint64_t at, std::uint64_t bytes) {
    std::string part(std::min(bytes, size - std::min(at, size)), '\0');
    in.seekg(static_cast<std::streamoff>(at));
    in.read(part.data(), static_cast<std::streamsize>(part.size()));
    if (!in) {
      throw Error(Code::kIo, cat(file.string(), ": cannot be read at byte ", at, " of ", size,
                                 "; check the disk, or run without a prefix store"));
    }
    all += part;
  };
  piece(0, kHead);
  for (std::uint64_t i = 0; i < kSamples; ++i) piece(size / kSamples * i, kPiece);
  return all;
}

std::string of_numerics(const Context& ctx, const model::Model& model, LatentFormat format,
                        model::AttentionMode attention, bool mtp) {
  const nn::Numerics& n = model.numerics();
  return cat("level=", ctx.ops().name, " products=", static_cast<int>(n.products), " fp8=", n.fp8,
             " activations=", static_cast<int>(n.quant_activations),
             " code_bytes=", model.code_bytes(), " cache=", name(format),
             " attention=", static_cast<int>(attention), " mtp=", mtp, " code=", computing_code());
}

// Whole blocks, with their MTP rows where those count.
int blocks_of(const ReadText& read, bool mtp) {
  const int whole = read.length() / kLatentBlock;
  return mtp ? std::min(whole, (read.cache.mtp_length() + 1) / kLatentBlock) : whole;
}

}  // namespace

PrefixIdentity prefix_identity(const fs::path& folder, const Context& ctx,
                               const model::Model& model, const model::CacheShape& shape,
                               model::AttentionMode attention, bool mtp) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::uint64_t bytes = 0;
  for (const fs::path& file : files) bytes += fs::file_size(file);
  std::vector<std::string> parts{read_file(folder / "config.json", 1 << 24)};
  for (const fs::path& file : files) {
    parts.push_back(file.filename().string());
    parts.push_back(bytes <= kWholeBytes ? io::file_checksum(file).xxh3_128 : sample(file));
  }
  const std::vector<std::string_view> views(parts.begin(), parts.end());
  return {fingerprint(views), of_numerics(ctx, model, shape.layout.format, attention, mtp),
          shape.page_bytes()};
}

RestoredBlocks restore_blocks(PrefixStore& store, std::span<const std::int32_t> wanted, bool mtp,
                              ReadText& read) {
  const int usable = static_cast<int>(wanted.size()) - 1;
  const int have = blocks_of(read, mtp);
  if (have >= usable / kLatentBlock) return {have, 0};
  bool cut = false;  // to whole blocks, as soon as there is something to append
  const auto use = [&](int block, std::span<const std::byte> payload) {
    if (block < have) return true;
    if (!cut) {
      read.truncate(have * kLatentBlock);
      read.lag.clear();
      cut = true;
    }
    if (!read.cache.append_block(payload, mtp)) return false;
    const auto end = static_cast<std::ptrdiff_t>(block + 1) * kLatentBlock;
    read.tokens.assign(wanted.begin(), wanted.begin() + end);
    return true;
  };
  const PrefixLookup found = store.lookup(wanted, use, static_cast<std::size_t>(usable));
  const int blocks = cut ? read.length() / kLatentBlock : have;
  // The MTP row of the last token needs that token's hidden row, so it is read again.
  if (cut && mtp) read.truncate(std::min(read.length(), read.cache.mtp_length()));
  return {blocks, static_cast<int>(found.hit_tokens / kLatentBlock)};
}

int keep_blocks(PrefixStore& store, bool mtp, const ReadText& read, int first) {
  const int blocks = blocks_of(read, mtp);
  if (blocks <= first) return first;
  const std::span<const std::int32_t> tokens(read.tokens);
  const auto fill = [&](int block, std::span<std::byte> payload) {
    read.cache.copy_block(block, mtp, payload);
  };
  return store.insert(tokens.first(static_cast<std::size_t>(blocks) * kLatentBlock), first, fill)
      .next;
}

}  // namespace cachalot::infer
