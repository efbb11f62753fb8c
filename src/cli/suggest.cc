#include "cli/suggest.h"

#include <vector>

#include "base/error.h"

namespace cachalot::cli {

namespace {

std::string nearest_of(const std::string& word, const std::vector<std::string>& candidates) {
  std::vector<std::string_view> views(candidates.begin(), candidates.end());
  return nearest(word, views.data(), views.data() + views.size());
}

std::string did_you_mean(const std::string& word, const std::vector<std::string>& candidates) {
  const std::string near = nearest_of(word, candidates);
  return near.empty() ? "." : cat("; did you mean `", near, "`?");
}

// The command the line got to: the last parsed subcommand, and what to type to get its help.
const CLI::App* innermost(const CLI::App& root, std::string& path) {
  const CLI::App* app = &root;
  path = "cachalot";
  for (bool deeper = true; deeper;) {
    deeper = false;
    for (const CLI::App* sub : app->get_subcommands()) {
      app = sub;
      path += " " + sub->get_name();
      deeper = true;
      break;
    }
  }
  return app;
}

std::vector<std::string> flags_of(const CLI::App& app) {
  std::vector<std::string> flags;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
  }
  return flags;
}

std::vector<std::string> commands_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(sub->get_name());
  }
  return names;
}

}  // namespace

std::string explain(const CLI::App& root, const CLI::ParseError& error) {
  std::string path;
  const CLI::App* app = innermost(root, path);
  const std::string help = cat("\nTry `", path, " --help`.");
  for (const std::string& word : root.remaining(true)) {
    if (word.size() > 1 && word.front() == '-') {
      const std::string flag = word.substr(0, word.find('='));
      return cat("unknown flag `", flag, "` for `", path, "`", did_you_mean(flag, flags_of(*app)),
                 help);
    }
    if (app->get_require_subcommand_min() > 0) {
      return cat("unknown command `", word, "`", did_you_mean(word, commands_of(*app)), help);
    }
    return cat("`", path, "` takes no further argument, but got `", word, "`.", help);
  }
  if (app->get_require_subcommand_min() > 0) {
    std::string names;
    for (const std::string& name : commands_of(*app)) {
      names += (names.empty() ? "" : ", ") + name;
    }
    return cat("a command is needed after `", path, "`, one of: ", names, ".", help);
  }
  return cat(error.what(), help);
}

}  // namespace cachalot::cli
