#include "infer/prefix_key.h"

#include <sys/random.h>
#include <xxhash.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "base/error.h"
#include "io/checksum.h"

namespace cachalot::infer {

static_assert(std::endian::native == std::endian::little, "keys and records are little-endian");
static_assert(sizeof(int) == sizeof(std::int32_t));
static_assert(sizeof(ChainSecret) >= XXH3_SECRET_SIZE_MIN);

namespace {

constexpr std::size_t kMaxPayload = std::size_t{1} << 30;  // RocksDB takes values below 4 GiB

void append_part(std::string& text, std::string_view part) {
  const std::uint64_t size = part.size();
  text.append(reinterpret_cast<const char*>(&size), sizeof size).append(part);
}

}  // namespace

std::string fingerprint(std::span<const std::string_view> parts) {
  std::string all;
  for (const std::string_view part : parts) append_part(all, part);
  return io::xxh3_128(std::as_bytes(std::span(all)));
}

std::size_t BlockKeyHash::operator()(const BlockKey& key) const noexcept {
  std::uint64_t word;  // a key is a hash already
  std::memcpy(&word, key.bytes.data(), sizeof word);
  return word;
}

ChainSecret random_secret() {
  ChainSecret secret;
  std::size_t done = 0;
  while (done < secret.size()) {
    const ssize_t got = ::getrandom(secret.data() + done, secret.size() - done, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      throw Error(Code::kIo,
                  cat("the prefix store needs random numbers, but the system gives none: ",
                      std::generic_category().message(errno)));
    }
    done += static_cast<std::size_t>(got);
  }
  return secret;
}

KeyChain::KeyChain(const PrefixIdentity& identity, const ChainSecret& secret)
    : secret_(secret), payload_bytes_(identity.payload_bytes) {
  if (identity.model.empty() || identity.numerics.empty()) {
    throw Error(Code::kUsage,
                "prefix store: the identity names no model or no numerics. Without them blocks of "
                "different models would be taken for each other: give both.");
  }
  if (payload_bytes_ == 0 || payload_bytes_ > kMaxPayload) {
    throw Error(
        Code::kUsage,
        cat("prefix store: a block's payload of ", payload_bytes_, " bytes; 1 to ", kMaxPayload,
            " are possible. It is bytes per token of all layers times ", kBlockTokens, "."));
  }
  std::string text = "cachalot prefix";
  append_part(text, identity.model);
  append_part(text, identity.numerics);
  const std::uint64_t sizes[2] = {kBlockTokens, payload_bytes_};
  text.append(reinterpret_cast<const char*>(sizes), sizeof sizes);
  root_ = hash(text.data(), text.size());
}

BlockKey KeyChain::hash(const void* data, std::size_t bytes) const noexcept {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical,
                           XXH3_128bits_withSecret(data, bytes, secret_.data(), secret_.size()));
  BlockKey key;
  static_assert(sizeof canonical.digest == sizeof key.bytes);
  std::memcpy(key.bytes.data(), canonical.digest, sizeof key.bytes);
  return key;
}

std::vector<BlockPlace> KeyChain::places(std::span<const int> tokens) const {
  std::vector<BlockPlace> places(tokens.size() / kBlockTokens);
  struct {
    BlockKey parent;
    BlockTokens tokens;
  } link;
  static_assert(sizeof link == sizeof(BlockKey) + sizeof(BlockTokens));  // no padding is hashed
  link.parent = root_;
  for (std::size_t i = 0; i < places.size(); ++i) {
    std::memcpy(link.tokens.data(), tokens.data() + i * kBlockTokens, sizeof link.tokens);
    BlockPlace& place = places[i];
    place.parent = link.parent;
    place.position = static_cast<std::uint32_t>(i);
    place.tokens = link.tokens;
    place.key = hash(&link, sizeof link);
    link.parent = place.key;
  }
  return places;
}

}  // namespace cachalot::infer
