// For tests and fuzzers: a random text that a grammar lets through.
//
// Threads: one caller.
// Errors:  none; nullopt where no text is found, or the grammar has added tokens.
#pragma once

#include <algorithm>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "grammar/grammar.h"
#include "text/utf8.h"

namespace cachalot::grammar {

class SampleText {
 public:
  explicit SampleText(const Grammar& grammar) : g_(grammar), height_(grammar.size(), kNone) {
    // How deep the flattest way through each expression is: choosing by it always comes to an end.
    for (bool changes = true; changes;) {
      changes = false;
      for (std::size_t i = 0; i < height_.size(); ++i) {
        const int height = flattest(g_.at(static_cast<ExprId>(i)));
        changes = changes || height < height_[i];
        height_[i] = std::min(height_[i], height);
      }
    }
  }

  // Past about `size` bytes it takes the flattest way.
  std::optional<std::string> make(unsigned seed, std::size_t size) {
    random_.seed(seed);
    text_.clear();
    size_ = size;
    if (height(g_.root()) == kNone) return std::nullopt;
    write(g_.root());
    return text_;
  }

 private:
  static constexpr int kNone = std::numeric_limits<int>::max();

  int height(ExprId id) const { return height_[static_cast<std::size_t>(id)]; }
  int below(int n) { return static_cast<int>(random_() % static_cast<unsigned>(n)); }
  bool is_long() const { return text_.size() >= size_; }

  int flattest(const Expr& e) const {
    const auto above = [](int h) { return h == kNone ? kNone : h + 1; };
    int h = 0;
    switch (e.kind) {
      case Expr::Kind::kText:
        return 0;
      case Expr::Kind::kChars:
        return e.ranges.empty() ? kNone : 0;
      case Expr::Kind::kToken:
        return kNone;
      case Expr::Kind::kSequence:
        for (const ExprId part : e.parts) h = std::max(h, height(part));
        return above(h);
      case Expr::Kind::kChoice:
        h = kNone;
        for (const ExprId part : e.parts) h = std::min(h, height(part));
        return above(h);
      case Expr::Kind::kRepeat:
        return e.least == 0 ? 0 : above(height(e.parts.front()));
      case Expr::Kind::kRule:
        return above(height(g_.body(e.rule)));
    }
    return kNone;
  }

  void write(ExprId id) {
    const Expr& e = g_.at(id);
    switch (e.kind) {
      case Expr::Kind::kText:
        text_ += e.text;
        return;
      case Expr::Kind::kChars: {
        const CharRange& r = e.ranges[static_cast<std::size_t>(below(int(e.ranges.size())))];
        const int n = static_cast<int>(r.last - r.first) + 1;
        text::append_utf8(text_, r.first + static_cast<char32_t>(below(below(2) ? n : 1)));
        return;
      }
      case Expr::Kind::kSequence:
        for (const ExprId part : e.parts) write(part);
        return;
      case Expr::Kind::kChoice:
        return write(choose(e.parts));
      case Expr::Kind::kRepeat:
        return repeat(e);
      case Expr::Kind::kRule:
        return write(g_.body(e.rule));
      case Expr::Kind::kToken:
        return;
    }
  }

  ExprId choose(const std::vector<ExprId>& parts) {
    if (!is_long()) {
      const ExprId part = parts[static_cast<std::size_t>(below(int(parts.size())))];
      if (height(part) != kNone) return part;
    }
    return *std::min_element(parts.begin(), parts.end(),
                             [&](ExprId a, ExprId b) { return height(a) < height(b); });
  }

  void repeat(const Expr& e) {
    for (int i = 0; i < e.least; ++i) write(e.parts.front());
    if (height(e.parts.front()) == kNone) return;
    for (int i = e.least; e.most == kUnbounded || i < e.most; ++i) {
      if (is_long() || below(3) == 0) return;
      write(e.parts.front());
    }
  }

  const Grammar& g_;
  std::vector<int> height_;
  std::mt19937 random_;
  std::string text_;
  std::size_t size_ = 0;
};

}  // namespace cachalot::grammar
