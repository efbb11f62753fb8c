// cachalot verify: two model folders compared tensor by tensor.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "model/convert.h"
#include "runtime/runtime.h"

namespace cachalot::cli {

namespace {

using model::TensorComparison;

struct Options {
  std::string a, b;
};

// The words of one line, and the value of "result" in JSON.
std::string verdict(const TensorComparison& c) {
  if (!c.in_b) return "only in A";
  if (!c.in_a) return "only in B";
  if (!c.compared) return "shapes differ";
  if (c.bit_identical) return "identical";
  return c.max_abs_error == 0 ? "equal" : "differs";
}

Json number(double x) { return std::isfinite(x) ? Json(x) : Json(nullptr); }

Json to_json(const TensorComparison& c) {
  Json json = {{"name", c.name}, {"result", verdict(c)}};
  if (c.in_a) json["a"] = {{"dtype", c.type_a}, {"shape", c.shape_a}};
  if (c.in_b) json["b"] = {{"dtype", c.type_b}, {"shape", c.shape_b}};
  if (c.compared) {
    json["max_abs_error"] = number(c.max_abs_error);
    json["max_rel_error"] = number(c.max_rel_error);
    json["rms_error"] = number(c.rms_error);
    json["rms_a"] = number(c.rms_a);
  }
  return json;
}

void run(const Options& o, const Globals& globals) {
  const runtime::Runtime rt({.threads = globals.threads, .cpu = {}});
  Progress progress;
  const std::vector<TensorComparison> all =
      model::compare_models(rt.context(), o.a, o.b, [&](std::size_t done, std::size_t count) {
        progress.show(fmt::format("{} of {} tensors", done, count), done == count);
      });
  std::size_t identical = 0, equal = 0, differing = 0, unmatched = 0;
  double worst = 0;
  for (const TensorComparison& c : all) {
    const std::string v = verdict(c);
    identical += v == "identical" ? 1 : 0;
    equal += v == "equal" ? 1 : 0;
    differing += v == "differs" ? 1 : 0;
    unmatched += c.compared ? 0 : 1;
    if (c.compared) worst = std::max(worst, c.max_rel_error);
  }
  if (globals.json) {
    Json tensors = Json::array();
    for (const TensorComparison& c : all) tensors.push_back(to_json(c));
    print_json({{"identical", identical},
                {"equal", equal},
                {"differing", differing},
                {"unmatched", unmatched},
                {"max_rel_error", number(worst)},
                {"tensors", tensors}});
  } else {
    for (const TensorComparison& c : all) {
      print(fmt::format("{:<14} {}", verdict(c), c.name));
      if (c.in_a && c.in_b) {
        print(fmt::format("  {} {} / {} {}", c.type_a, to_string(c.shape_a), c.type_b,
                          to_string(c.shape_b)));
      }
      if (c.compared && !c.bit_identical) {
        print(fmt::format(
            "  largest error {:.3g} ({:.3g} of the largest value), rms {:.3g} of {:.3g}",
            c.max_abs_error, c.max_rel_error, c.rms_error, c.rms_a));
      }
      print("\n");
    }
    print_line(fmt::format(
        "{} tensors: {} identical, {} equal in another type, {} differ, {} without a counterpart",
        all.size(), identical, equal, differing, unmatched));
  }
  if (unmatched > 0) {
    flush_output();
    throw Error(Code::kFormat, cat(unmatched, " of ", all.size(),
                                   " tensors are in one folder only or have "
                                   "another shape: these are not the same model"));
  }
}

}  // namespace

void add_verify(CLI::App& root, Globals& globals) {
  CLI::App* command = add_command(
      root, globals, "verify",
      "Compare two model folders tensor by tensor, codes in 8 and 4 bits multiplied out.\n"
      "Exit status 1 where a tensor has no counterpart of the same shape; how far "
      "values may differ "
      "is for the reader to judge.");
  auto o = std::make_shared<Options>();
  command->add_option("a", o->a, "Model folder")->required()->type_name("A");
  command->add_option("b", o->b, "Model folder")->required()->type_name("B");
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
