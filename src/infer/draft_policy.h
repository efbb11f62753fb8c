// How many tokens to draft: what acceptance promises against what a verified token costs.
//
// A pass that verifies k drafts yields 1 + a1 + a1 a2 + ... tokens, where a_j is how often the j-th
// draft is right when those before it were. It costs more than a pass without: each row may pull in
// further experts, and the MTP layer has to run k times. Both are measured, not assumed: times by
// the number of rows, acceptance by the distance, for each text with all texts as the prior.
//
// A model that never guesses right must not pay for finding out: after failures a text drafts again
// only as a probe, at distances that double up to kProbeMost passes. And while drafts pay, a pass
// now and then goes without, with one less or one more: a time that was measured long ago (by a
// cold first pass, or when the machine was slower) would keep the comparison wrong for ever, as
// would a few unlucky guesses.
//
// Threads: one caller. Errors: none.
// Paper:   V3 report 5.4.3 (acceptance 85 to 90 %, 1.8 times the tokens/s).
#pragma once

#include <array>
#include <cstdint>
#include <map>

#include "infer/request.h"

namespace cachalot::infer {

// Seconds of a pass by its rows: an average that follows, the faster the longer nothing was heard
// of a number of rows, and lines between what was measured.
class CostCurve {
 public:
  void add(int rows, double seconds);
  bool empty() const noexcept { return points_.empty(); }
  // Past what was measured: as if a further row cost `slope` of the nearest point's time, where
  // one point alone is known.
  double at(int rows, double slope) const;

 private:
  struct Point {
    double seconds = 0;
    std::int64_t measured = 0;  // when, counted in what was added
  };
  std::map<int, Point> points_;
  std::int64_t added_ = 0;
};

// How often drafts of one text were right, by distance; older trials fade.
class Acceptance {
 public:
  // `right` of `drafted` drafts were accepted, in order.
  void observe(int drafted, int right);
  double rate(int distance, double prior, double weight) const;  // distance from 0
  double trials(int distance) const noexcept { return tried_[static_cast<std::size_t>(distance)]; }

 private:
  std::array<double, kMaxDrafts> tried_{};
  std::array<double, kMaxDrafts> right_{};
};

// Of one text.
struct DraftState {
  Acceptance acceptance;
  int idle = 0;      // passes since it last drafted
  int drafting = 0;  // passes that were to draft
  int probe_in = 0;  // passes to wait before the next probe; 0: none is due to failures
};

class DraftPolicy {
 public:
  // Draft lengths: fixed where `fixed` >= 0, else the best of 0 .. most.
  explicit DraftPolicy(int fixed = -1, int most = kMaxDrafts) : fixed_(fixed), most_(most) {}

  void decode_pass(int rows, double seconds) { main_.add(rows, seconds); }
  void first_draft(int texts, double seconds) { first_.add(texts, seconds); }
  void further_draft(int texts, double seconds) { further_.add(texts, seconds); }
  void observe(DraftState& text, int drafted, int right);

  // For the next pass of a text, when `texts` decode together. Moves the text's probe clock.
  int choose(DraftState& text, int texts);
  // Expected tokens of a pass, and its expected seconds, with k drafts for each of `texts` texts.
  double tokens(const DraftState& text, int k) const;
  double seconds(int texts, int k) const;

 private:
  static constexpr int kProbeFirst = 128;
  static constexpr int kProbeLate = 512;  // where the drafts of others were tried and failed, too
  static constexpr int kLookEvery = 16;   // passes that draft, until one drafts less or more
  static constexpr int kProbeMost = 4096;
  int fixed_;
  int most_;
  CostCurve main_, first_, further_;
  Acceptance all_;
};

}  // namespace cachalot::infer
