#include "text/token_file.h"

#include <xxhash.h>

#include <array>
#include <bit>
#include <cstring>
#include <new>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"
#include "io/mapped_file.h"

namespace cachalot::text {

static_assert(std::endian::native == std::endian::little, "token files are written as they lie");

namespace {

constexpr std::array<char, 8> kMagic = {'C', 'A', 'C', 'H', 'T', 'O', 'K', '\n'};
constexpr std::array<char, 8> kEndMagic = {'C', 'A', 'C', 'H', 'E', 'N', 'D', '\n'};
constexpr std::uint32_t kVersion = 1;

struct Head {
  std::array<char, 8> magic = kMagic;
  std::uint32_t version = kVersion;
  std::uint32_t token_bytes = 0;
  std::array<char, 48> zeros{};
};
struct Foot {
  TokenFileInfo info;
  std::uint64_t ids_hash = 0;
  std::uint64_t frame_hash = 0;
  std::array<char, 8> magic = kEndMagic;
};
static_assert(sizeof(Head) == 64 && sizeof(Foot) == 64);

std::uint64_t frame_hash(const Head& head, const Foot& foot) {
  return XXH64(&foot, offsetof(Foot, frame_hash), XXH64(&head, sizeof head, 0));
}

}  // namespace

struct TokenFileWriter::State {
  State(const std::filesystem::path& path, int vocab_size, std::uint64_t tokenizer) : file(path) {
    foot.info.vocab_size = static_cast<std::uint64_t>(vocab_size);
    foot.info.tokenizer = tokenizer;
    head.token_bytes = vocab_size <= 1 << 16 ? 2 : 4;
    file.write(&head, sizeof head);
    if (hash == nullptr) throw std::bad_alloc();
    XXH64_reset(hash, 0);
  }
  ~State() { XXH64_freeState(hash); }

  template <class T>
  void append(std::span<const std::int32_t> ids) {
    std::vector<T> narrow(ids.begin(), ids.end());
    XXH64_update(hash, narrow.data(), narrow.size() * sizeof(T));
    file.write(narrow.data(), narrow.size() * sizeof(T));
  }

  AtomicFile file;
  Head head;
  Foot foot;
  XXH64_state_t* hash = XXH64_createState();
};

TokenFileWriter::TokenFileWriter(const std::filesystem::path& path, int vocab_size,
                                 std::uint64_t tokenizer_fingerprint)
    : state_(std::make_unique<State>(path, vocab_size, tokenizer_fingerprint)) {}
TokenFileWriter::~TokenFileWriter() = default;

void TokenFileWriter::append(std::span<const std::int32_t> ids) {
  TokenFileInfo& info = state_->foot.info;
  for (const std::int32_t id : ids) {
    if (id < 0 || static_cast<std::uint64_t>(id) >= info.vocab_size) {
      throw Error(Code::kUsage,
                  cat("token id ", id, " does not fit a vocabulary of ", info.vocab_size));
    }
  }
  info.tokens += ids.size();
  if (state_->head.token_bytes == 2) {
    state_->append<std::uint16_t>(ids);
  } else {
    state_->append<std::uint32_t>(ids);
  }
}

void TokenFileWriter::count_document(std::uint64_t text_bytes) {
  state_->foot.info.documents += 1;
  state_->foot.info.text_bytes += text_bytes;
}

TokenFileInfo TokenFileWriter::commit() {
  Foot& foot = state_->foot;
  foot.ids_hash = XXH64_digest(state_->hash);
  foot.frame_hash = frame_hash(state_->head, foot);
  state_->file.write(&foot, sizeof foot);
  state_->file.commit();
  return foot.info;
}

struct TokenFile::State {
  explicit State(const std::filesystem::path& path) : name(path.string()), file(path) {
    const std::span<const std::byte> bytes = file.bytes();
    if (bytes.size() < sizeof(Head) + sizeof(Foot)) bad("is too short to be a token file");
    std::memcpy(&head, bytes.data(), sizeof head);
    std::memcpy(&foot, bytes.data() + bytes.size() - sizeof foot, sizeof foot);
    if (head.magic != kMagic) bad("is no token file (its first bytes are others)");
    if (head.version != kVersion) {
      bad(cat("has version ", head.version, ", this build reads ", kVersion));
    }
    if (foot.magic != kEndMagic) bad("is cut short (its foot is missing)");
    if (foot.frame_hash != frame_hash(head, foot)) bad("is damaged (its head or foot changed)");
    if (head.token_bytes != 2 && head.token_bytes != 4) {
      bad(cat("has ", head.token_bytes, " bytes per token, not 2 or 4"));
    }
    const std::uint64_t room = bytes.size() - sizeof head - sizeof foot;
    if (room % head.token_bytes != 0 || foot.info.tokens != room / head.token_bytes) {
      bad(cat("promises ", foot.info.tokens, " tokens of ", head.token_bytes,
              " bytes, but has room for ", room, " bytes"));
    }
    ids = bytes.data() + sizeof head;
  }
  [[noreturn]] void bad(const std::string& what) const {
    throw Error(Code::kFormat, cat("token file ", name, " ", what,
                                   ". Delete it: it is made again from the text."));
  }
  template <class T>
  void read(std::uint64_t begin, std::span<std::int32_t> out) const {
    for (std::size_t i = 0; i < out.size(); ++i) {
      T id;
      std::memcpy(&id, ids + (begin + i) * sizeof(T), sizeof(T));
      if (id >= foot.info.vocab_size) {
        bad(cat("has id ", id, " at position ", begin + i, ", past its vocabulary of ",
                foot.info.vocab_size));
      }
      out[i] = static_cast<std::int32_t>(id);
    }
  }

  std::string name;
  io::MappedFile file;
  Head head;
  Foot foot;
  const std::byte* ids = nullptr;
};

TokenFile::TokenFile(const std::filesystem::path& path) : state_(std::make_unique<State>(path)) {}
TokenFile::TokenFile(TokenFile&&) noexcept = default;
TokenFile& TokenFile::operator=(TokenFile&&) noexcept = default;
TokenFile::~TokenFile() = default;

const TokenFileInfo& TokenFile::info() const noexcept { return state_->foot.info; }
std::uint64_t TokenFile::ids_hash() const noexcept { return state_->foot.ids_hash; }

void TokenFile::read(std::uint64_t begin, std::span<std::int32_t> out) const {
  const std::uint64_t tokens = info().tokens;
  if (begin > tokens || out.size() > tokens - begin) {
    throw Error(Code::kUsage, cat("token file ", state_->name, " has ", tokens, " tokens; ",
                                  out.size(), " from ", begin, " were asked for"));
  }
  if (state_->head.token_bytes == 2) {
    state_->read<std::uint16_t>(begin, out);
  } else {
    state_->read<std::uint32_t>(begin, out);
  }
}

void TokenFile::verify() const {
  const std::uint64_t tokens = info().tokens;
  if (XXH64(state_->ids, tokens * state_->head.token_bytes, 0) != state_->foot.ids_hash) {
    state_->bad("is damaged (its ids do not have the checksum they were written with)");
  }
  std::vector<std::int32_t> block(1 << 14);
  for (std::uint64_t at = 0; at < tokens; at += block.size()) {
    read(at, std::span(block).first(std::min<std::uint64_t>(block.size(), tokens - at)));
  }
}

}  // namespace cachalot::text
