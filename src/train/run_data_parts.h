// Of the making of a run's data: what texts and conversations share. Internal to train/.
#pragma once

#include <filesystem>
#include <string>

#include "text/tokenizer.h"
#include "train/run_data.h"

namespace cachalot::train {

// Why this token file cannot be trained on as it lies there; empty where it can.
std::string why_unusable(const std::filesystem::path& file, const text::Tokenizer& tokenizer);
void create_folder(const std::filesystem::path& folder);
// RUN/tokenizer where the recipe asks for a tokenizer of its own, else the folder that it names.
std::filesystem::path tokenizer_folder(const Recipe& recipe, const std::filesystem::path& run_dir);
// What a model needs to know of its tokenizer.
void describe(const text::Tokenizer& tokenizer, RunData& data);

// data.conversations, encoded.
RunData from_conversations(const Recipe& recipe, const std::filesystem::path& run_dir,
                           ThreadPool& pool, const DataProgress& progress);

}  // namespace cachalot::train
