#include "serve/page_files.h"

#include <algorithm>
#include <deque>
#include <span>
#include <string>

#include "base/embedded_file.h"
#include "report/assets.h"

namespace cachalot::serve {

// cmake/embed.cmake
std::span<const EmbeddedFile> web_pages();
std::span<const EmbeddedFile> web_styles();
std::span<const EmbeddedFile> web_scripts();
std::span<const EmbeddedFile> marked_script();
std::span<const EmbeddedFile> purify_script();

namespace {

constexpr std::string_view kHtml = "text/html; charset=utf-8";
constexpr std::string_view kCss = "text/css; charset=utf-8";
constexpr std::string_view kScript = "text/javascript; charset=utf-8";

}  // namespace

const std::vector<PageFile>& page_files() {
  static std::deque<std::string> paths;  // what the views point to
  static const std::vector<PageFile> files = [] {
    std::vector<PageFile> all;
    const auto add = [&](std::string path, std::string_view type, std::string_view text) {
      all.push_back({paths.emplace_back(std::move(path)), type, text});
    };
    for (const EmbeddedFile& f : web_pages()) {
      add(f.name == "page" ? "/" : "/" + std::string(f.name) + ".html", kHtml, f.text);
    }
    for (const EmbeddedFile& f : web_styles())
      add("/" + std::string(f.name) + ".css", kCss, f.text);
    for (const EmbeddedFile& f : web_scripts()) {
      add("/" + std::string(f.name) + ".js", kScript, f.text);
    }
    // Libraries by short names: a new version of one changes no page.
    const auto library = [&](const char* path, std::string_view type,
                             std::span<const EmbeddedFile> embedded) {
      for (const EmbeddedFile& f : embedded) add(path, type, f.text);
    };
    library("/marked.js", kScript, marked_script());
    library("/purify.js", kScript, purify_script());
    library("/uplot.js", kScript, report::uplot_script());
    library("/uplot.css", kCss, report::uplot_style());
    return all;
  }();
  return files;
}

const PageFile* page_file(std::string_view path) {
  const auto& all = page_files();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const PageFile& file) { return file.path == path; });
  return found == all.end() ? nullptr : &*found;
}

}  // namespace cachalot::serve
