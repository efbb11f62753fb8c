// Encoding speed, MB/s on one core: with the word cache and the hand-written splitter, and the
// splitters alone. The fast and the plain splitter must agree before anything is timed.
//
// usage: tokenizer_bench TOKENIZER_FOLDER TEXT_FILE...
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "text/bpe_train.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"

namespace {

using cachalot::text::PreTokenizer;

std::string read_all(const char* path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error(std::string("cannot read ") + path);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Median seconds of 7 runs.
template <class F>
double median_seconds(F&& run) {
  std::vector<double> seconds;
  for (int i = 0; i < 7; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run();
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + 3, seconds.end());
  return seconds[3];
}

std::vector<std::size_t> ends(const PreTokenizer& pre, const std::string& text) {
  cachalot::text::RegexScratch scratch;
  std::vector<std::size_t> out;
  pre.split(text, scratch, [&](std::string_view piece) {
    out.push_back(piece.data() + piece.size() - text.data());
  });
  return out;
}

void measure(const cachalot::text::Tokenizer& tokenizer, const char* path) {
  const std::string text = read_all(path);
  const double mb = static_cast<double>(text.size()) * 1e-6;
  const PreTokenizer scan(cachalot::text::v3_patterns());
  const PreTokenizer regex(cachalot::text::v3_patterns(), PreTokenizer::Engine::kRegex);
  if (ends(scan, text) != ends(regex, text)) throw std::runtime_error("the splitters disagree");
  std::vector<std::int32_t> ids = tokenizer.encode(text);
  if (tokenizer.decode(ids) != text) throw std::runtime_error("decode(encode(text)) is not text");
  const std::size_t tokens = ids.size();
  const double encode = median_seconds([&] { ids = tokenizer.encode(text); });
  const double decode = median_seconds([&] { (void)tokenizer.decode(ids); });
  const double by_scan = median_seconds([&] { (void)ends(scan, text); });
  const double by_regex = median_seconds([&] { (void)ends(regex, text); });
  std::printf("%s: %.2f MB, %zu tokens, %.2f bytes/token\n", path, mb, tokens,
              static_cast<double>(text.size()) / static_cast<double>(tokens));
  std::printf("  encode %.1f MB/s  decode %.1f MB/s  split: scan %.1f MB/s, regexes %.1f MB/s\n",
              mb / encode, mb / decode, mb / by_scan, mb / by_regex);
  cachalot::ThreadPool one(1);
  const std::string_view documents[] = {text};
  const auto start = std::chrono::steady_clock::now();
  const auto spec = cachalot::text::train_bpe(documents, {.vocab_size = 8192}, one);
  std::printf("  training of 8192 tokens on one core: %.2f s (%zu merges)\n",
              std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
              spec.merges.size());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s TOKENIZER_FOLDER TEXT_FILE...\n", argv[0]);
    return 2;
  }
  try {
    const auto start = std::chrono::steady_clock::now();
    const auto tokenizer = cachalot::text::Tokenizer::load(argv[1]);
    std::printf("load %.0f ms\n",
                std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
                    .count());
    for (int i = 2; i < argc; ++i) measure(tokenizer, argv[i]);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "tokenizer_bench: %s\n", e.what());
    return 1;
  }
  return 0;
}
