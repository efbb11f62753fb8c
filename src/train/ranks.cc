#include "train/ranks.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"
#include "train/schedule.h"

namespace cachalot::train {

using nlohmann::json;

int Ranks::micro_batch(const Recipe& recipe, std::int64_t step) const {
  const int all = micro_batch_size(recipe, step);
  return recipe.schedule.micro_batch > 0 ? all : std::max(1, all / size());
}

void Ranks::check(const Recipe& recipe) const {
  const int micro = micro_batch(recipe, 0), batch = batch_size(recipe, 0);  // it only grows
  const int passes = (batch + micro - 1) / micro;
  if (size() > 1 && recipe.loss.balance_over == BalanceOver::kBatch) {
    throw Error(
        Code::kUnsupported,
        cat("loss.balance_over = \"batch\" is a loss over all tokens of a step in one pass, "
            "but ",
            size(), " ranks share them: take \"sequence\", or one rank"));
  }
  if (passes >= size()) return;
  throw Error(Code::kUsage,
              cat("a step of ", batch, " sequences in micro-batches of ", micro, " makes ", passes,
                  " of them, but ", size(),
                  " ranks take at least one each: lower "
                  "schedule.micro_batch, raise schedule.batch, or start fewer ranks"));
}

FoundCheckpoint Ranks::share(const FoundCheckpoint& found) const {
  if (all_ == nullptr) return found;
  const json sent{{"path", found.path ? found.path->string() : ""}, {"step", found.step}};
  const json got = json::parse(all_->from_first(sent.dump()));
  FoundCheckpoint out;
  const auto path = got.at("path").get<std::string>();
  if (!path.empty()) out.path = path;
  out.step = got.at("step");
  return out;
}

RunData Ranks::share(const RunData& data) const {
  if (all_ == nullptr) return data;
  const json sent{{"train", data.train.string()},
                  {"validation", data.validation.string()},
                  {"train_samples", data.train_samples.string()},
                  {"validation_samples", data.validation_samples.string()},
                  {"tokenizer", data.tokenizer.string()},
                  {"vocab_size", data.vocab_size},
                  {"bos", data.bos},
                  {"eos", data.eos}};
  const json got = json::parse(all_->from_first(sent.dump()));
  RunData out;
  out.train = got.at("train").get<std::string>();
  out.validation = got.at("validation").get<std::string>();
  out.train_samples = got.at("train_samples").get<std::string>();
  out.validation_samples = got.at("validation_samples").get<std::string>();
  out.tokenizer = got.at("tokenizer").get<std::string>();
  out.vocab_size = got.at("vocab_size");
  out.bos = got.at("bos");
  out.eos = got.at("eos");
  return out;
}

void Ranks::same_weights(model::Parameters& parameters) const {
  if (all_ != nullptr) all_->broadcast(parameters.values(), 0);
}

void Ranks::add(model::Parameters& parameters) const {
  if (all_ != nullptr) all_->all_reduce(parameters.gradients());
}

void Ranks::add(model::Losses& losses) const {
  if (all_ == nullptr) return;
  std::vector<double> x{losses.main, losses.mtp, losses.balance, losses.total};
  for (const auto& layer : losses.expert_load) x.insert(x.end(), layer.begin(), layer.end());
  all_->sum_numbers(x);
  losses.main = x[0];
  losses.mtp = x[1];
  losses.balance = x[2];
  losses.total = x[3];
  auto next = x.begin() + 4;
  for (auto& layer : losses.expert_load) {
    for (std::int64_t& n : layer) n = static_cast<std::int64_t>(*next++);
  }
}

Ranks::Ends Ranks::agree(Ends own, std::int64_t& steps) const {
  if (all_ == nullptr) return own;
  double x[] = {own.stop ? 1.0 : 0.0, own.time_up ? 1.0 : 0.0,
                first() ? static_cast<double>(steps) : 0.0};
  all_->sum_numbers(x);
  steps = static_cast<std::int64_t>(x[2]);
  return {x[0] > 0, x[1] > 0};
}

}  // namespace cachalot::train
