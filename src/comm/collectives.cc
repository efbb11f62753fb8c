#include "comm/collectives.h"

#include <vector>

namespace cachalot::comm {

std::unique_ptr<Collectives> collectives(World& world, Device* device) {
  if (device == nullptr) return between_hosts(world);
  NcclId id;
  if (world.rank() == 0) id = new_nccl_id();
  world.broadcast(std::as_writable_bytes(std::span(id.bytes)), 0);
  return nccl(id, world.rank(), world.size(), *device);
}

std::string Collectives::from_first(const std::string& text) {
  // Bytes as numbers, of which all ranks but one add nothing.
  double length = rank() == 0 ? static_cast<double>(text.size()) : 0;
  sum_numbers({&length, 1});
  std::vector<double> letters(static_cast<std::size_t>(length));
  if (rank() == 0) {
    for (std::size_t i = 0; i < text.size(); ++i) {
      letters[i] = static_cast<double>(static_cast<unsigned char>(text[i]));
    }
  }
  sum_numbers(letters);
  std::string out;
  for (const double c : letters) out += static_cast<char>(static_cast<unsigned char>(c));
  return out;
}

void Collectives::meet() {
  double nothing = 0;
  sum_numbers({&nothing, 1});
}

void Collectives::check_parts(const char* what, std::size_t mine, std::size_t all) const {
  if (all == mine * static_cast<std::size_t>(size())) return;
  throw Error(Code::kShape,
              cat(what, ": a piece of ", mine, " elements and ", size(), " ranks make ",
                  mine * static_cast<std::size_t>(size()), ", but the whole has ", all,
                  ": give every rank a piece of the same size"));
}

void Collectives::check_rank(const char* what, int rank) const {
  if (rank >= 0 && rank < size()) return;
  throw Error(Code::kShape,
              cat(what, ": rank ", rank, " was named; there are the ranks 0 to ", size() - 1));
}

void Collectives::check_rows(const char* side, int rows, int cols, std::ptrdiff_t stride,
                             std::span<const int> counts) const {
  if (counts.size() != static_cast<std::size_t>(size())) {
    throw Error(Code::kShape, cat("all_to_all: `", side, "` has counts for ", counts.size(),
                                  " ranks; there are ", size()));
  }
  std::int64_t sum = 0;
  for (const int n : counts) {
    if (n < 0) {
      throw Error(Code::kShape, cat("all_to_all: `", side, "` has a count of ", n, " rows"));
    }
    sum += n;
  }
  if (sum != rows) {
    throw Error(Code::kShape, cat("all_to_all: `", side, "` has ", rows,
                                  " rows, but its counts add up to ", sum));
  }
  if (rows > 1 && stride != cols) {
    throw Error(Code::kShape,
                cat("all_to_all: rows of `", side, "` lie ", stride, " elements apart, and have ",
                    cols, ": rows have to follow one another without a gap"));
  }
}

void Collectives::throw_columns(int from, int to) {
  throw Error(Code::kShape, cat("all_to_all: rows of ", from, " columns go out and rows of ", to,
                                " come in: both need the same"));
}

}  // namespace cachalot::comm
