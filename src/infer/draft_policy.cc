#include "infer/draft_policy.h"

#include <algorithm>

namespace cachalot::infer {

namespace {

constexpr double kFollow = 0.2;      // weight of the newest time
constexpr double kMostFollow = 0.4;  // where the others are old
constexpr double kSurprise = 1.5;    // a time counts for so many averages at most, or its inverse
constexpr double kOld = 8;           // passes after which it counts twice as much
constexpr double kFade = 0.99;  // of a trial's weight, per further trial: about the last 100 count
constexpr double kPrior = 0.6;  // acceptance of a draft nobody has tried
constexpr double kPriorTrials = 2;
constexpr double kOthersTrials = 6;  // what all texts together count for one text
constexpr double kFewTrials = 4;     // of all texts: too few to say that drafts fail here
constexpr double kRowSlope = 0.2;    // of a pass, for a further row, before it was measured
constexpr double kDraftShare = 0.1;  // of a pass, for a run of the MTP layer, likewise
constexpr double kMargin = 1.02;     // drafting has to promise that much after a pass without
constexpr double kNear = 0.9;        // what may pay after all: times are never exact

}  // namespace

void CostCurve::add(int rows, double seconds) {
  const std::int64_t now = added_++;
  const auto [at, fresh] = points_.try_emplace(rows, Point{seconds, now});
  if (fresh) return;
  Point& point = at->second;
  const double follow =
      std::min(kMostFollow, kFollow * (1 + static_cast<double>(now - point.measured - 1) / kOld));
  // A pass that something else delayed says little.
  const double counts = std::clamp(seconds, point.seconds / kSurprise, point.seconds * kSurprise);
  point.seconds += follow * (counts - point.seconds);
  point.measured = now;
}

double CostCurve::at(int rows, double slope) const {
  if (points_.empty()) return 0;
  const auto above = points_.lower_bound(rows);
  if (above != points_.end() && above->first == rows) return above->second.seconds;
  if (points_.size() == 1) {
    const auto& [at, point] = *points_.begin();
    return point.seconds * std::max(0.1, 1 + slope * (rows - at));
  }
  auto right = above == points_.end() ? std::prev(above) : above;
  if (right == points_.begin()) ++right;
  const auto left = std::prev(right);
  const double per_row =
      (right->second.seconds - left->second.seconds) / (right->first - left->first);
  // More rows never cost less: what seems so is noise.
  return left->second.seconds + std::max(0.0, per_row) * (rows - left->first);
}

void Acceptance::observe(int drafted, int right) {
  for (int j = 0; j < std::min(drafted, kMaxDrafts); ++j) {
    const auto at = static_cast<std::size_t>(j);
    if (j > right) break;  // never compared: the one before it was wrong
    tried_[at] = tried_[at] * kFade + 1;
    right_[at] = right_[at] * kFade + (j < right ? 1 : 0);
  }
}

double Acceptance::rate(int distance, double prior, double weight) const {
  const auto at = static_cast<std::size_t>(distance);
  return (right_[at] + prior * weight) / (tried_[at] + weight);
}

void DraftPolicy::observe(DraftState& text, int drafted, int right) {
  if (drafted == 0) return;
  text.acceptance.observe(drafted, right);
  all_.observe(drafted, right);
}

double DraftPolicy::tokens(const DraftState& text, int k) const {
  double sum = 1, chain = 1;
  double prior = kPrior;
  for (int j = 0; j < k; ++j) {
    // A further draft is not likelier to be right than the one before it, as far as nobody tried.
    const double others = all_.rate(j, prior, kPriorTrials);
    const double weight = std::min(all_.trials(j) + kPriorTrials, kOthersTrials);
    const double rate = text.acceptance.rate(j, others, weight);
    chain *= rate;
    sum += chain;
    prior = rate;
  }
  return sum;
}

double DraftPolicy::seconds(int texts, int k) const {
  const double main = main_.at(texts * (1 + k), kRowSlope / texts);
  if (k == 0) return main;
  const double plain = main_.at(texts, kRowSlope / texts);
  const auto run = [&](const CostCurve& curve) {
    return curve.empty() ? kDraftShare * plain : curve.at(texts, kRowSlope / texts);
  };
  return main + run(first_) + (k - 1) * run(further_);
}

int DraftPolicy::choose(DraftState& text, int texts) {
  if (fixed_ >= 0) return std::min(fixed_, kMaxDrafts);
  if (main_.empty()) return 0;  // not even the cost of a plain pass is known
  int best = 0;
  const double plain = 1 / seconds(texts, 0);
  double best_rate = (text.idle > 0 ? kMargin : 1) * plain;
  bool near = false;
  for (int k = 1; k <= most_; ++k) {
    const double rate = tokens(text, k) / seconds(texts, k);
    near = near || rate > kNear * plain;
    if (rate > best_rate) {
      best = k;
      best_rate = rate;
    }
  }
  if (best > 0) {
    text.idle = 0;
    text.probe_in = 0;
    if (++text.drafting % kLookEvery > 0) return best;
    switch (text.drafting / kLookEvery % 4) {
      case 1:
        return 0;
      case 3:
        return best - 1;
      default:
        return std::min(best + 1, most_);
    }
  }
  ++text.idle;
  if (most_ == 0) return 0;
  if (near) return text.idle % kLookEvery > 0 ? 0 : 1;
  // The layer has to read all that was generated since it last drafted: a probe takes about two
  // passes.
  if (text.probe_in == 0) text.probe_in = all_.trials(0) < kFewTrials ? kProbeFirst : kProbeLate;
  if (text.idle < text.probe_in) return 0;
  text.idle = 1;
  text.probe_in = std::min(2 * text.probe_in, kProbeMost);
  return 1;
}

}  // namespace cachalot::infer
