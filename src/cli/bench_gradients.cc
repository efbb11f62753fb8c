// cachalot bench gradients: the gradients of one step in several precisions beside each other.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "base/atomic_file.h"
#include "base/error.h"
#include "cli/command.h"
#include "cli/output.h"
#include "runtime/describe.h"
#include "runtime/runtime.h"
#include "train/compare_gradients.h"

namespace cachalot::cli {

namespace {

using train::GradientAgreement;
using train::GradientComparison;

struct Options {
  std::string recipe, text;
  std::vector<std::string> set, cases{"f32", "bf16", "fp8"};
  int steps = 0;
  bool hold_routing = false;
};

// "bf16,numerics.swiglu_input=f32": a precision, then fields of the recipe.
train::GradientCase parse_case(const std::string& text, const Options& o) {
  std::vector<std::string> set = o.set;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    set.push_back((begin == 0 ? "run.precision=" : "") + text.substr(begin, end - begin));
    begin = end + 1;
  }
  try {
    return {text, train::load_recipe(o.recipe, set)};
  } catch (const Error& e) {
    constexpr std::string_view kSet = "--set";  // which the recipe's reader takes it for
    std::string what = e.what();
    const std::string flag = cat("--case ", text);
    what = what.starts_with(kSet) ? flag + what.substr(kSet.size()) : cat(flag, ": ", what);
    throw Error(e.code(), what);
  }
}

Json to_json(const GradientAgreement& k) {
  return {{"kind", k.kind},     {"parameters", k.parameters},     {"norm", k.norm},
          {"cosine", k.cosine}, {"worst_cosine", k.worst_cosine}, {"worst", k.worst},
          {"ratio", k.ratio},   {"least_ratio", k.least_ratio},   {"most_ratio", k.most_ratio}};
}

Json to_json(const std::vector<GradientComparison>& all) {
  Json list = Json::array();
  for (const GradientComparison& c : all) {
    Json kinds = Json::array();
    for (const GradientAgreement& k : c.kinds) kinds.push_back(to_json(k));
    list.push_back({{"name", c.name},
                    {"loss", c.loss},
                    {"mtp_loss", c.mtp_loss},
                    {"norm", c.norm},
                    {"same_experts", c.same_experts},
                    {"kinds", kinds}});
  }
  return {{"cases", list}};
}

void print_tables(const std::vector<GradientComparison>& all) {
  for (const GradientComparison& c : all) {
    print_line(
        fmt::format("{}: loss {:.5f}, MTP {:.5f}, norm of the gradients {:.5g}, the same "
                    "experts for {:.2f} % of choices",
                    c.name, c.loss, c.mtp_loss, c.norm, 100 * c.same_experts));
    if (&c == &all.front()) continue;
    print_line(fmt::format("{:<44} {:>4} {:>10} {:>9} {:>9} {:>7} {:>13}",
                           "beside " + all.front().name, "n", "norm", "cosine", "worst", "ratio",
                           "of any"));
    for (const GradientAgreement& k : c.kinds) {
      print_line(fmt::format("{:<44} {:>4} {:>10.3g} {:>9.6f} {:>9.6f} {:>7.4f} {:>6.3f} {:>6.3f}",
                             k.kind, k.parameters, k.norm, k.cosine, k.worst_cosine, k.ratio,
                             k.least_ratio, k.most_ratio));
    }
  }
}

void run(const Options& o, const Globals& globals) {
  (void)train::load_recipe(o.recipe, o.set);  // what is wrong with it is no case's fault
  std::vector<train::GradientCase> cases;
  for (const std::string& text : o.cases) cases.push_back(parse_case(text, o));
  constexpr std::uint64_t kMostText = std::uint64_t{1} << 30;
  const std::string text = o.text.empty() ? "" : read_file(o.text, kMostText);
  const train::Recipe& first = cases.front().recipe;
  const int vocab = first.model.vocab_size > 0 ? first.model.vocab_size : 256;
  const runtime::Runtime rt({.threads = globals.threads, .cpu = {}, .on_device = true});
  const auto all =
      train::compare_gradients(rt, cases, vocab, {o.steps, o.hold_routing, text},
                               [](const std::string& what) { spdlog::info("{}", what); });
  if (globals.json) {
    print_json(to_json(all));
  } else {
    print_tables(all);
  }
}

}  // namespace

void add_bench_gradients(CLI::App& bench, Globals& globals) {
  CLI::App* command = add_command(
      bench, globals, "gradients",
      "Gradients of one step in several precisions beside the first one's: cosines and norms");
  auto o = std::make_shared<Options>();
  command->add_option("recipe", o->recipe, "Recipe, as for train")
      ->required()
      ->check(CLI::ExistingFile)
      ->type_name("RECIPE");
  command->add_option("--set", o->set, "Overrides one field: section.key=value")
      ->allow_extra_args(false)
      ->type_name("A.B=V");
  command
      ->add_option(
          "--case", o->cases,
          "What computes: a precision, then fields of the recipe that differ, separated by "
          "commas; once for each; f32, bf16 and fp8 by default")
      ->allow_extra_args(false)
      ->type_name("P[,A.B=V]");
  command
      ->add_option("--text", o->text, "Tokens are the bytes of this file; without it random ones")
      ->check(CLI::ExistingFile)
      ->type_name("FILE");
  command->add_option("--steps", o->steps, "Steps of training before, as the second case computes")
      ->check(CLI::Range(0, 1 << 20))
      ->type_name("N");
  command->add_flag("--hold-routing", o->hold_routing,
                    "Send every token to the first experts, whatever the router says");
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
