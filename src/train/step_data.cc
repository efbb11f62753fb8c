#include "train/step_data.h"

#include <xxhash.h>

#include "base/error.h"

namespace cachalot::train {

StepData::StepData(const Recipe& recipe, const RunData& data, bool mtp)
    : seq_len_(recipe.data.seq_len), mtp_(mtp) {
  const auto seed = static_cast<std::uint64_t>(recipe.run.seed);
  if (recipe.learns_conversations()) {
    samples_ = std::make_unique<text::PackedSamples>(
        data.train, data.train_samples, text::PackedOptions{.seq_len = seq_len_, .seed = seed});
  } else {
    text_ = std::make_unique<text::Dataset>(
        data.train, text::DatasetOptions{.seq_len = seq_len_, .seed = seed});
  }
}

// Into read_; without a new allocation once a step of that size was read.
void StepData::gather(std::int64_t first, int n) {
  if (samples_ != nullptr) {
    read_.clear();
    for (int i = 0; i < n; ++i) samples_->append(first + i, read_);
    return;
  }
  const auto length = static_cast<std::size_t>(text_->sample_tokens());
  read_.tokens.resize(static_cast<std::size_t>(n) * length);
  read_.lengths.assign(static_cast<std::size_t>(n), static_cast<std::int32_t>(length));
  const std::span<std::int32_t> tokens = read_.tokens;
  for (int i = 0; i < n; ++i) {
    text_->sample(first + i, tokens.subspan(static_cast<std::size_t>(i) * length, length));
  }
}

model::Sequences StepData::read(std::int64_t first, int n) {
  gather(first, n);
  return {read_.tokens, read_.lengths, read_.learnt};
}

model::LossRows StepData::rows(std::int64_t first, int n) {
  if (samples_ != nullptr) return model::loss_rows(read(first, n), mtp_);
  const std::int64_t rows = n * seq_len_, mtp = mtp_ ? n * (seq_len_ - 1) : 0;
  return {rows, mtp, rows, mtp};
}

std::int64_t StepData::windows() const noexcept {
  return samples_ != nullptr ? samples_->windows() : text_->windows();
}

double StepData::rows_per_window() const noexcept {
  if (samples_ == nullptr) return static_cast<double>(seq_len_);
  return static_cast<double>(samples_->rows()) / static_cast<double>(samples_->windows());
}

double StepData::rows_per_sequence() const noexcept {
  if (samples_ == nullptr) return static_cast<double>(seq_len_);
  return static_cast<double>(samples_->rows()) / static_cast<double>(samples_->samples());
}

std::int64_t StepData::rows_before(std::int64_t window) {
  if (samples_ == nullptr) return window * seq_len_;
  const std::int64_t epochs = window / windows();
  std::int64_t rows = epochs * samples_->rows();
  for (std::int64_t w = epochs * windows(); w < window; ++w) rows += this->rows(w, 1).all;
  return rows;
}

std::uint64_t StepData::hash() const {
  if (samples_ == nullptr) return text_->file().ids_hash();
  const text::SampleTable& table = samples_->table();
  std::uint64_t hash = samples_->file().ids_hash();
  for (std::int64_t s = 0; s < table.samples(); ++s) {
    const auto runs = table.runs(s);
    hash = XXH64(runs.data(), runs.size_bytes(), hash);
  }
  return hash;
}

std::string StepData::remark() const {
  if (samples_ == nullptr) return {};
  const text::SampleTable& table = samples_->table();
  std::string remark = cat(samples_->samples(), " samples of conversations, ", table.tokens(),
                           " tokens, ", table.learnt_tokens(), " of them answers to learn; ",
                           samples_->windows(), " windows of at most ", seq_len_, " tokens");
  if (samples_->cut() > 0) {
    remark += cat("; ", samples_->cut(), " samples are longer than data.seq_len = ", seq_len_,
                  " and are cut there");
  }
  if (samples_->left_out() > 0) {
    remark += cat("; ", samples_->left_out(), " have no answer before that and are left out");
  }
  return remark;
}

}  // namespace cachalot::train
