#include "report/html.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/atomic_file.h"
#include "base/error.h"
#include "report/assets.h"
#include "report/text.h"

namespace cachalot::report {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kHostile = "</script><img src=x onerror=\"alert('1')\">&\xE2\x80\xA8";

// Every part of a page, every text of it as bad as can be.
Page hostile_page() {
  Page page;
  const std::string bad = kHostile;
  page.title = page.summary = page.command = page.version = bad;
  page.marks = {bad, "compute"};
  Chart chart{Chart::Kind::kLines, bad, bad, bad, {bad, bad}, {}, false, true, {}};
  chart.series.push_back({bad, {1, kNothing}, {0, -1}});
  WhatIf what_if{bad, bad, {{bad, {bad, "2"}, 1}}, {bad}, {bad}, {}};
  what_if.points = {{0, {1}, {bad}, ""}, {-1, {kNothing}, {"-"}, bad}};
  page.sections = {{bad,
                    {Paragraph{bad}, Facts{{{bad, bad}}},
                     Table{bad, {{bad}, {bad, false}, {bad}}, {{bad, {bad, 0}, bad}, {bad, bad}}},
                     chart, what_if, Drawing{bad, "<svg viewBox=\"0 0 1 1\"><rect/></svg>"}}}};
  page.result = {{bad, {bad, 1.5}}};
  return page;
}

std::string data_of(const std::string& page) {
  const std::string begin = "id=\"report-data\">";
  const std::size_t at = page.find(begin) + begin.size();
  return page.substr(at, page.find("</script>", at) - at);
}

std::size_t count(const std::string& text, const std::string& word) {
  std::size_t n = 0;
  for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++n;
  return n;
}

std::string error_of(const Page& page) {
  try {
    to_html(page);
  } catch (const Error& e) {
    EXPECT_EQ(Code::kInternal, e.code());
    return e.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

Page page_with(Item item) {
  Page page;
  page.sections = {{"one", {std::move(item)}}};
  return page;
}

TEST(HtmlPageTest, NoTextBecomesMarkup) {
  const std::string page = to_html(hostile_page());
  EXPECT_THAT(page, Not(HasSubstr("<img")));
  EXPECT_THAT(page, Not(HasSubstr("onerror=\"")));
  EXPECT_EQ(3u, count(page, "</script>"));  // the page's own
  EXPECT_EQ(3u, count(page, "<script"));
}

TEST(HtmlPageTest, ItsDataAreTheResultAndTheCharts) {
  const Page page = hostile_page();
  const Json data = Json::parse(data_of(to_html(page)));
  EXPECT_EQ(page.result, data.at("result"));
  EXPECT_EQ(1.0, data.at("charts").at(0).at("series").at(0).at("values").at(0));
  EXPECT_TRUE(data.at("charts").at(0).at("series").at(0).at("values").at(1).is_null());
  EXPECT_EQ(kHostile, data.at("what_ifs").at(0).at("axes").at(0).at("texts").at(0));
  EXPECT_EQ(2u, data.at("what_ifs").at(0).at("points").size());
}

TEST(HtmlPageTest, LoadsNothing) {
  const std::string page = to_html(page_with(Paragraph{"text"}));
  EXPECT_TRUE(page.starts_with("<!doctype html>\n"));
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
  for (const char* load : {" src=", "<link", "@import", "url(", "fetch(", "XMLHttpRequest"}) {
    EXPECT_THAT(page, Not(HasSubstr(load)));
  }
}

TEST(HtmlPageTest, CarriesItsLicence) {
  EXPECT_THAT(to_html({}), HasSubstr("Copyright (c) 2022 Leon Sorokin"));
}

TEST(HtmlPageTest, AssetsAreTheFilesOfTheSourceTree) {
  const std::string root = CACHALOT_SOURCE_DIR;
  const auto same = [&](std::span<const EmbeddedFile> files, const std::string& path) {
    ASSERT_EQ(1u, files.size()) << path;
    EXPECT_EQ(read_file(root + "/" + path, 1 << 20), files.front().text) << path;
    EXPECT_EQ(std::string::npos, files.front().text.find("</script")) << path;
    EXPECT_EQ(std::string::npos, files.front().text.find("</style")) << path;
  };
  same(embedded_script(), "src/report/report.js");
  same(embedded_style(), "src/report/report.css");
  same(uplot_script(), "third_party/uplot/uPlot.iife.min.js");
  same(uplot_style(), "third_party/uplot/uPlot.min.css");
  same(uplot_licence(), "third_party/uplot/LICENSE.txt");
}

TEST(HtmlPageTest, TellsALimitByShapeAndWord) {
  Page page = page_with(Table{"t", {{"limited by", false}}, {{{"compute", 1}}}});
  page.marks = {"memory", "compute"};
  EXPECT_THAT(
      to_html(page),
      HasSubstr("<td><span class=\"mark m1\" aria-hidden=\"true\">&#9632;</span>compute</td>"));
}

TEST(HtmlPageTest, AShortRowSpansTheRest) {
  const std::string page =
      to_html(page_with(Table{"t", {{"a"}, {"b"}, {"c"}}, {{"1", "no more"}}}));
  EXPECT_THAT(page, HasSubstr("<td class=\"n\">1</td><td colspan=\"2\">no more</td>"));
}

TEST(HtmlPageTest, SlidersHaveNamesAndBeginAtTheirStart) {
  WhatIf w{"w",      "",     {{"batch", {"1", "8"}, 0}, {"context", {"1K", "4K", "16K"}, 1}},
           {"TPOT"}, {"ms"}, {}};
  for (int i = 0; i < 6; ++i) w.points.push_back({-1, {1.0 * i}, {cat(i, " ms")}, ""});
  w.points[1].note = "why";
  const std::string page = to_html(page_with(w));
  EXPECT_THAT(page,
              HasSubstr("<label for=\"w0a1\">context</label><output for=\"w0a1\">4K</output>"));
  EXPECT_THAT(
      page,
      HasSubstr("id=\"w0a1\" min=\"0\" max=\"2\" step=\"1\" value=\"1\" aria-valuetext=\"4K\""));
  EXPECT_THAT(page, HasSubstr("<dt>TPOT</dt><dd>1 ms</dd>"));  // without scripts, too
  EXPECT_THAT(page, HasSubstr("<p class=\"note\">why</p>"));
  EXPECT_EQ(2u, count(page, "type=\"radio\""));
}

TEST(HtmlPageTest, ContradictionsAreRefused) {
  EXPECT_THAT(error_of(page_with(Table{"t", {{"a"}}, {{"1", "2"}}})), HasSubstr("2 cells below 1"));
  Chart chart{Chart::Kind::kBars, "c", "", "", {"x", "y"}, {}, false, true, {{"s", {1}, {}}}};
  EXPECT_THAT(error_of(page_with(chart)), HasSubstr("1 values over 2 points"));
  EXPECT_THAT(error_of(page_with(WhatIf{"w", "", {{"a", {"1", "2"}, 0}}, {}, {}, {GridPoint{}}})),
              HasSubstr("1 points for 2 places"));
  EXPECT_THAT(error_of(page_with(Table{"t", {{"a"}}, {{{"x", 3}}}})), HasSubstr("no mark 3"));
}

TEST(HtmlPageTest, OnlyPicturesAreDrawn) {
  for (const char* svg :
       {"<b>", "<svg><script>1</script></svg>", "<svg onload=\"x\"></svg>",
        "<svg><a href=\"x\"></a></svg>", "<svg><rect style=\"a\"/></svg>", "<svg><image/></svg>",
        "<svg><rect fill=\"url(x)\"/></svg>", "<svg><!-- --></svg>"}) {
    EXPECT_THAT(error_of(page_with(Drawing{"d", svg})), HasSubstr("drawing 'd'")) << svg;
  }
}

TEST(ReportTextTest, ColumnsAreAsWideAsTheirCells) {
  const Table table{
      "", {{"n"}, {"name", false}, {"x"}}, {{"1", "long name", "2.50"}, {"1000", "b", "10"}}};
  EXPECT_EQ(
      "   n  name          x\n"
      "   1  long name  2.50\n"
      "1000  b            10\n",
      text(table));
}

TEST(ReportTextTest, ASpanningCellWidensNothing) {
  EXPECT_EQ("a  b  c\n1  does not fit\n",
            text(Table{"", {{"a"}, {"b"}, {"c"}}, {{"1", "does not fit"}}}));
  EXPECT_EQ("kind                   mpft\n", text(Facts{{{"kind", "mpft"}}}));
}

}  // namespace
}  // namespace cachalot::report
