// cachalot plan design: the model to train on given hardware within a budget, and its recipe.
#include <fmt/format.h>

#include <filesystem>

#include "base/atomic_file.h"
#include "base/error.h"
#include "cli/command.h"
#include "cli/design_recipe.h"
#include "cli/finite.h"
#include "cli/html_page.h"
#include "cli/output.h"
#include "cli/output_file.h"
#include "cli/plan_design_report.h"
#include "plan/design.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::string hardware;
  std::string budget;
  std::vector<std::string> constraints;
  int nodes = 1;
  int sequence = 0;
  int vocabulary = 0;
  double unique_tokens = 0;
  std::vector<std::string> corpus;
  std::string tokens = "auto";
  std::vector<std::string> beside;
  std::string law = "auto";
  std::string precision = "auto";
  std::string out;
  std::string html;
};

// Above 0; what is larger than anybody could mean is a slip.
LeadingNumber number(const std::string& text, const char* flag) {
  constexpr double kMost = 1e15;
  const std::optional<LeadingNumber> found = leading_number(text);
  if (found && found->value > 0 && found->value <= kMost) return *found;
  throw Error(Code::kUsage, cat(flag, ": '", text, "' does not begin with a number above 0, of at ",
                                "most ", kMost, "."));
}

double priced_hours(double money, const plan::HardwareProfile& hardware) {
  if (hardware.device_hour() > 0) return money / hardware.device_hour();
  throw Error(Code::kConfig, cat("hardware profile '", hardware.name,
                                 "' has no price; give price.device_hour, or a budget in hours."));
}

// "1h", "90min", "2788000h" are device hours; "$5.5e6", "5.5e6USD" and a bare number with the
// profile's currency money.
double unbounded_hours(const std::string& text, const plan::HardwareProfile& hardware) {
  const bool dollar = text.starts_with("$");
  const auto [x, unit] = number(dollar ? text.substr(1) : text, "--budget");
  const std::string& currency = hardware.price.currency;
  if (!dollar && unit == "h") return x;
  if (!dollar && unit == "min") return x / 60;
  if (dollar ? unit.empty() && currency == "USD" : unit == currency) {
    return priced_hours(x, hardware);
  }
  throw Error(Code::kUsage, cat("--budget: '", text, "' is neither device hours (1h, 90min) nor ",
                                "money in the profile's currency (1000", currency, ")."));
}

double device_hours(const std::string& text, const plan::HardwareProfile& hardware) {
  constexpr double kMost = 1e12;  // far above any run, far below overflow
  const double hours = unbounded_hours(text, hardware);
  if (hours <= kMost) return hours;
  throw Error(Code::kUsage, cat("--budget: '", text, "' are ", hours, " device hours; at most ",
                                kMost, " are planned."));
}

void constrain(const std::string& item, plan::DesignRequest& r) {
  static constexpr std::string_view kKeys[] = {"kv_bytes", "tpot", "active", "parameters"};
  const std::size_t at = item.find("<=");
  const std::string key = item.substr(0, at);
  double* const targets[] = {&r.kv_bytes, &r.tpot_ms, &r.active_parameters, &r.total_parameters};
  for (std::size_t i = 0; at != std::string::npos && i < std::size(kKeys); ++i) {
    if (key != kKeys[i]) continue;
    const auto [value, unit] = number(item.substr(at + 2), "--constraint");
    if (!unit.empty() && !(key == "tpot" && unit == "ms")) break;
    *targets[i] = value;
    return;
  }
  const std::string near = nearest(key, std::begin(kKeys), std::end(kKeys));
  throw Error(Code::kUsage,
              cat("--constraint: '", item, "' is not understood",
                  near.empty() || near == key ? "" : "; did you mean ", near == key ? "" : near,
                  ". It takes kv_bytes<=N (of the cache, per token), tpot<=N (ms), active<=N and "
                  "parameters<=N."));
}

plan::DesignRequest request(const Options& o, const plan::HardwareProfile& hardware,
                            const Corpus& corpus) {
  plan::DesignRequest r;
  r.device_hours = device_hours(o.budget, hardware);
  r.nodes = o.nodes;
  if (o.law != "auto") r.law = plan::parse_scaling_law(o.law);
  const bool large = plan::is_large(hardware);
  r.sequence = o.sequence > 0 ? o.sequence : large ? 4096 : 512;
  r.vocabulary = o.vocabulary > 0   ? o.vocabulary
                 : corpus.bytes > 0 ? corpus.vocabulary
                 : large            ? 129280
                                    : 8192;
  r.unique_tokens = o.unique_tokens > 0 ? o.unique_tokens : corpus.tokens;
  r.token_bytes = corpus.token_bytes;
  for (const std::string& item : o.constraints) constrain(item, r);
  if (o.precision == "f32") r.precision = cost::TrainPrecision::kF32;
  if (o.precision == "bf16") r.precision = cost::TrainPrecision::kBf16;
  if (o.precision == "fp8") r.precision = cost::TrainPrecision::kFp8;
  return r;
}

// The joint law turns against experts below some 10^8 tokens, three decades under its fit. Runs of
// that size had the order of the other one (docs/planning-training.md).
plan::DesignResult search(const Options& o, const plan::HardwareProfile& hardware,
                          plan::DesignRequest& r) {
  constexpr double kFewTokens = 1e8;
  plan::DesignResult result = plan::search_designs(hardware, r);
  const double own = r.token_bytes > 0 ? r.token_bytes / plan::kLawTokenBytes : 1;
  if (o.law == "auto" && own * result.best.tokens < kFewTokens) {
    r.law = plan::ScalingLaw::kBesiroglu;
    result = plan::search_designs(hardware, r);
  }
  return result;
}

void run(const Options& o, const Globals& globals) {
  // A model that reads a text often learns it by heart, the sooner the larger the pieces it sees;
  // one that hardly gets through it once learns more from larger pieces.
  constexpr double kOften = 4;
  check_output_folder("--out", o.out);
  check_output_file("--html", o.html);
  if (!o.beside.empty() && o.corpus.empty()) {
    throw Error(Code::kUsage, "--beside compares recipes on one text; name it with --corpus FILE.");
  }
  const plan::HardwareProfile hardware = plan::load_hardware(o.hardware);
  Corpus corpus = look_at_corpus(o.corpus, o.tokens == "bpe" ? TokenKind::kBpe : TokenKind::kBytes);
  plan::DesignRequest r = request(o, hardware, corpus);
  plan::DesignResult result = search(o, hardware, r);
  if (o.tokens == "auto" && corpus.bytes > 0 && result.best.tokens < kOften * corpus.tokens) {
    corpus = look_at_corpus(o.corpus, TokenKind::kBpe);
    r = request(o, hardware, corpus);
    result = search(o, hardware, r);
  }
  if (result.best.steps < 1) {
    throw Error(Code::kUsage, cat("--budget ", o.budget, " pays for ", result.best.tokens,
                                  " tokens, less than a step of the best design; give more."));
  }
  std::vector<HandMade> by_hand;
  for (const std::string& file : o.beside) {
    by_hand.push_back(judge(file, hardware, r, result.best.precision, corpus));
  }
  if (!o.out.empty()) write_design(o.out, hardware, r, result, corpus, by_hand);
  const DesignReport report{hardware, r, result, by_hand};
  if (!o.html.empty()) write_html(o.html, page_of(report), globals);
  if (globals.json) {
    print_json(to_json(report));
  } else {
    print(to_text(report));
    if (!o.out.empty()) {
      print_line(
          fmt::format("wrote {0}/config.json and {0}/recipe.toml; train with\n"
                      "  cachalot train {0}/recipe.toml --run DIR",
                      o.out));
    }
  }
}

}  // namespace

void add_plan_design(CLI::App& plan, Globals& globals) {
  CLI::App* command = add_command(
      plan, globals, "design",
      "The model of lowest predicted loss that given hardware can train within a budget");
  auto o = std::make_shared<Options>();
  command->add_option("--hardware", o->hardware, "A profile's name or TOML file")
      ->required()
      ->type_name("PROFILE");
  command
      ->add_option("--budget", o->budget,
                   "Device hours (1h, 90min) or money in the profile's currency (1000USD)")
      ->required()
      ->type_name("BUDGET");
  command
      ->add_option("--constraint", o->constraints,
                   "kv_bytes<=N per token, tpot<=MS, active<=N, parameters<=N; several with commas")
      ->delimiter(',')
      ->type_name("C");
  command->add_option("--nodes", o->nodes, "Nodes")->check(CLI::Range(1, 1 << 20))->type_name("N");
  command
      ->add_option("--sequence", o->sequence,
                   "Tokens of a sequence; 0: 4096, 512 where CPUs compute")
      ->check(CLI::Range(0, 1 << 24))
      ->type_name("N");
  command
      ->add_option("--vocabulary", o->vocabulary,
                   "Rows of embedding and head; 0: the corpus's tokenizer, else 129280, 8192 where "
                   "CPUs compute")
      ->check(CLI::Range(0, 1 << 24))
      ->type_name("N");
  command
      ->add_option("--unique-tokens", o->unique_tokens,
                   "Tokens there are to learn from; 0: those of --corpus, else no end")
      ->check(finite_range(0, 1e18))
      ->type_name("N");
  command->add_option("--corpus", o->corpus, "Text files the recipe trains on")->type_name("FILE");
  command
      ->add_option(
          "--tokens", o->tokens,
          "Of the corpus: bytes, bpe, or auto: bytes where they are read four times or more")
      ->check(CLI::IsMember({"auto", "bytes", "bpe"}))
      ->type_name("KIND");
  command
      ->add_option("--beside", o->beside,
                   "Recipes made by hand: judged by the same law, and with --out written as "
                   "NAME.toml with the same details (dropout, weight decay, warm-up, ...)")
      ->type_name("RECIPE.toml");
  command
      ->add_option(
          "--law", o->law,
          "ludziejewski2025, besiroglu2024+clark2022, or auto: the former, unless its best "
          "design reads fewer than 10^8 tokens")
      ->type_name("LAW");
  command
      ->add_option("--precision", o->precision,
                   "f32, bf16, fp8, or auto: what gives the lower loss")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "fp8"}))
      ->type_name("P");
  command->add_option("--out", o->out, "Folder to write config.json and recipe.toml into")
      ->type_name("DIR");
  add_html_flag(*command, o->html);
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
