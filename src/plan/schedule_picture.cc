#include "plan/schedule_picture.h"

#include <fmt/format.h>

#include <algorithm>

namespace cachalot::plan {

namespace {

using cost::Work;
using cost::WorkItem;

constexpr double kRow = 26, kBox = 22, kLeft = 64, kTop = 34, kWidth = 1600;

// Colours that are told apart by people who do not see red and green.
const char* colour(Work work) {
  switch (work) {
    case Work::kForward:
      return "#7fb3e6";
    case Work::kBackward:
      return "#e8a33d";
    case Work::kInputGrad:
      return "#f2c879";
    case Work::kWeightGrad:
      return "#8cc9a1";
    case Work::kOverlapped:
      return "#000000";
  }
  return "#000000";
}

class Picture {
 public:
  Picture(const cost::Schedule& s, const cost::Simulation& sim)
      : s_(s), scale_(sim.seconds > 0 ? kWidth / sim.seconds : 0) {}

  void box(double x, double width, double y, double height, const char* fill,
           const cost::Piece& piece) {
    out_ += fmt::format(
        "<rect x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" fill=\"{}\" "
        "stroke=\"#444\" stroke-width=\"0.5\"/>\n",
        x, y, width, height, fill);
    if (width < 7) return;
    out_ += fmt::format(
        "<text x=\"{:.2f}\" y=\"{:.2f}\" font-size=\"{}\" text-anchor=\"middle\"{}>{}</text>\n",
        x + width / 2, y + height / 2 + 3.2, std::min(9.0, height * 0.8),
        s_.direction(piece.micro_batch) == 1 ? " text-decoration=\"underline\"" : "",
        piece.micro_batch);
  }

  void item(const WorkItem& item, const cost::Interval& when, double y) {
    const double x = kLeft + when.begin * scale_, width = (when.end - when.begin) * scale_;
    if (item.work == Work::kOverlapped) {
      box(x, width, y, kBox / 2, colour(Work::kForward), item.piece);
      box(x, width, y + kBox / 2, kBox / 2, colour(Work::kBackward), item.backward);
      out_ += fmt::format(
          "<rect x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" fill=\"none\" "
          "stroke=\"#000\" stroke-width=\"1.2\"/>\n",
          x, y, width, kBox);
    } else {
      box(x, width, y, kBox, colour(item.work), item.piece);
    }
  }

  void legend(double y) {
    double x = kLeft;
    const std::pair<Work, const char*> entries[] = {{Work::kForward, "F forward"},
                                                    {Work::kBackward, "B backward"},
                                                    {Work::kInputGrad, "b input gradient"},
                                                    {Work::kWeightGrad, "W weight gradient"}};
    for (const auto& [work, text] : entries) {
      out_ += fmt::format(
          "<rect x=\"{:.0f}\" y=\"{:.0f}\" width=\"14\" height=\"12\" fill=\"{}\" "
          "stroke=\"#444\" stroke-width=\"0.5\"/><text x=\"{:.0f}\" y=\"{:.0f}\" "
          "font-size=\"11\">{}</text>\n",
          x, y, colour(work), x + 18, y + 10, text);
      x += 150;
    }
    out_ += fmt::format(
        "<text x=\"{:.0f}\" y=\"{:.0f}\" font-size=\"11\">two in one frame: "
        "overlapped (F&amp;B)</text>\n",
        x, y + 10);
  }

  std::string finish(double height, const std::string& title) const {
    return fmt::format(
               "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
               "viewBox=\"0 0 {0:.0f} {1:.0f}\" font-family=\"sans-serif\">\n<rect "
               "width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"{2:.0f}\" y=\"20\" "
               "font-size=\"13\">{3}</text>\n",
               kLeft + kWidth + 12, height, kLeft, title) +
           out_ + "</svg>\n";
  }

  void label(std::size_t rank, double y) {
    out_ += fmt::format(
        "<text x=\"{:.0f}\" y=\"{:.2f}\" font-size=\"11\" "
        "text-anchor=\"end\">rank {}</text>\n",
        kLeft - 6, y + kBox / 2 + 4, rank);
  }

 private:
  const cost::Schedule& s_;
  double scale_;
  std::string out_;
};

}  // namespace

std::string schedule_svg(const cost::Schedule& s, const cost::Simulation& sim) {
  Picture picture(s, sim);
  double y = kTop;
  for (std::size_t rank = 0; rank < s.ranks.size(); ++rank, y += kRow) {
    picture.label(rank, y);
    for (std::size_t i = 0; i < s.ranks[rank].size(); ++i) {
      picture.item(s.ranks[rank][i], sim.ranks[rank].when[i], y);
    }
  }
  picture.legend(y + 6);
  return picture.finish(
      y + 30,
      fmt::format("{}: {} stages, {} micro-batches, {:.4g} of {:.4g} idle per rank",
                  cost::name(s.kind), s.stages, s.micro_batches, sim.mean_idle(), sim.seconds));
}

}  // namespace cachalot::plan
