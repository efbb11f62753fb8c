#include "cli/eval_answers.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <filesystem>

#include "cli/output.h"
#include "infer/evaluate_answers.h"
#include "text/conversation_files.h"

namespace cachalot::cli {

namespace {

double share(std::int64_t part, std::int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0.0;
}

struct AnswerScores {
  infer::AnswersEvaluation sum;
  std::int64_t conversations = 0;
  std::uint64_t bytes = 0;  // of the answers' text
  int context = 0;
  double seconds = 0;
  double rows_per_s = 0;
  double nats_per_token() const { return sum.nats / static_cast<double>(sum.tokens); }
  // Ends of answers have no bytes, and cost nats all the same.
  double nats_per_byte() const { return sum.nats / static_cast<double>(bytes); }
};

Json to_json(const AnswerScores& s) {
  const infer::AnswersEvaluation& sum = s.sum;
  // A byte's share is known where every answer was scored to its end.
  const bool whole_bytes = sum.cut == 0 && s.bytes > 0;
  Json json = {{"conversations", s.conversations},
               {"samples", sum.samples},
               {"samples_cut", sum.cut},
               {"answers", sum.answers},
               {"whole_answers", sum.whole},
               {"whole_answers_share", share(sum.whole, sum.answers)},
               {"tokens", sum.tokens},
               {"first_choice_share", share(sum.correct, sum.tokens)},
               {"nats_per_token", s.nats_per_token()},
               {"nats_per_byte", whole_bytes ? Json(s.nats_per_byte()) : Json(nullptr)},
               {"bits_per_byte", whole_bytes ? Json(s.nats_per_byte() / std::log(2.0)) : Json()},
               {"perplexity", std::exp(s.nats_per_token())},
               {"bytes", s.bytes},
               {"context", s.context},
               {"tokens_per_s", s.rows_per_s},
               {"mtp", nullptr}};
  if (sum.drafts > 0) {
    json["mtp"] = {{"drafted", sum.drafts},
                   {"accepted", sum.accepted},
                   {"acceptance", share(sum.accepted, sum.drafts)}};
  }
  return json;
}

void print_text(const AnswerScores& s) {
  const infer::AnswersEvaluation& sum = s.sum;
  print_line(fmt::format("nats per token   {:.4f} of the answers", s.nats_per_token()));
  if (sum.cut == 0 && s.bytes > 0) {
    print_line(fmt::format("bits per byte    {:.4f}", s.nats_per_byte() / std::log(2.0)));
  }
  print_line(fmt::format("first choice     {:.1f}% of {} tokens",
                         100 * share(sum.correct, sum.tokens), sum.tokens));
  print_line(
      fmt::format("whole answers    {:.1f}% ({} of {}): what greedy decoding would write, to the "
                  "letter",
                  100 * share(sum.whole, sum.answers), sum.whole, sum.answers));
  print_line(fmt::format("scored           {} conversations, {} samples, {} bytes of answers",
                         s.conversations, sum.samples, s.bytes));
  if (sum.cut > 0) {
    print_line(fmt::format("cut              {} samples longer than the context of {}", sum.cut,
                           s.context));
  }
  if (sum.drafts > 0) {
    print_line(fmt::format("MTP acceptance   {:.1f}% ({} of {})",
                           100 * share(sum.accepted, sum.drafts), sum.accepted, sum.drafts));
  }
  spdlog::info("{:.0f} tokens/s", s.rows_per_s);
}

}  // namespace

void eval_answers(const Session& session, const std::string& file, int context,
                  const CacheOptions& cache, bool json) {
  const text::Tokenizer& tokenizer = session.need_tokenizer("eval", "");
  const std::filesystem::path files[] = {file};
  const text::ConversationLines lines(files);
  const text::ConversationTokens read =
      text::read_conversations(tokenizer, lines, *session.context().pool);

  infer::AnswersOptions options{
      .context = context, .attention = cache.attention(), .cache = cache.latent_format()};
  const bool terminal = ::isatty(STDERR_FILENO) != 0;
  options.progress = [&](std::int64_t done, std::int64_t total) {
    if (terminal) fmt::print(stderr, "\r{} of {} tokens{}", done, total, done == total ? "\n" : "");
  };
  AnswerScores scores;
  const auto start = std::chrono::steady_clock::now();
  scores.sum = infer::evaluate_answers(session.context(), session.model, read.samples, options);
  scores.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  scores.rows_per_s = static_cast<double>(read.samples.tokens.size()) / scores.seconds;
  scores.bytes = read.learnt_bytes;
  scores.conversations = read.conversations;
  scores.context = std::min(context, session.model.config().max_position_embeddings);
  if (json) {
    print_json(to_json(scores));
  } else {
    print_text(scores);
  }
}

}  // namespace cachalot::cli
