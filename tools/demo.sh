#!/bin/bash
# The demo: trains a small but complete DeepSeek-V3 (MLA, bias-balanced experts, MTP) on the King James Bible that
# Debian ships, and says what it learned. Called by `make demo`, which installs and builds what this needs.
#
#   tools/demo.sh BUILD_DIR [RUN_DIR]          RUN_DIR defaults to runs/demo
#
# DEMO_RECIPE names another recipe, DEMO_ARGS holds more arguments of `cachalot train` (say, --set schedule.steps=50).
set -euo pipefail

repo=$(realpath "$(dirname "$0")/..")
build=$(realpath "$1")
run=${2:-$repo/runs/demo}
recipe=${DEMO_RECIPE:-$repo/configs/demo.toml}
cachalot=$build/cachalot
mkdir -p "$run"
run=$(realpath "$run")
say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

say "The text: the King James Bible of Debian's package bible-kjv"
data=$run/data
mkdir -p "$data"
bible -f Gen1:1-Rev22:21 >"$data/bible.txt" </dev/null
# Nine tenths to learn from; the rest, from the first new line after them, is held out. The trainer cuts the same way
# (validation_fraction = 0.1), so neither the tokenizer nor the model ever sees the held-out text.
python3 - "$data" <<'PYTHON'
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
text = (folder / "bible.txt").read_bytes()
cut = text.index(b"\n", len(text) * 9 // 10) + 1
(folder / "train.txt").write_bytes(text[:cut])
(folder / "held_out.txt").write_bytes(text[cut:])
print(f"{len(text):,} bytes: {cut:,} to learn from, {len(text) - cut:,} held out")
PYTHON

say "Training: $(realpath --relative-to="$PWD" "$recipe")"
trained=("$cachalot" train "$recipe" --run "$run" --set "data.corpus=$data/bible.txt")
# shellcheck disable=SC2206  # arguments are separated by blanks
[[ -z "${DEMO_ARGS:-}" ]] || trained+=($DEMO_ARGS)
# A demo that was interrupted goes on where it stopped; a finished one is not trained a second time.
if [[ -e $run/recipe.toml ]]; then trained+=(--resume); fi
began=$SECONDS
"${trained[@]}"
echo $((SECONDS - began)) >"$run/training_seconds"
model=$run/model  # a link to the newest checkpoint

say "The held-out tenth: $(wc -c <"$data/held_out.txt") bytes that it has not seen"
"$cachalot" eval "$model" --text "$data/held_out.txt" --json >"$run/eval.json"
# What a compressor needs for the held-out tenth once it has seen the rest: size(whole) - size(nine tenths).
# 7-Zip lowers PPMd's memory to that of the next power of two above 16 times the file, and the nine tenths lie below 4 MiB, the
# whole above: the nine tenths alone would fill their 64 MB, be begun anew and come out too large, the difference
# 12 % too small. A MiB of zeros before both (some 400 bytes, in both) gives both 128 MB.
ppmd() {
  rm -f "$data/x.7z" "$data/x"
  head -c 1M /dev/zero | cat - "$1" >"$data/x"
  7z a -bd -m0=ppmd:mem=256m:o="$2" "$data/x.7z" "$data/x" >/dev/null
  stat -c %s "$data/x.7z"
}
squeezed() { xz -9e -c "$1" | wc -c; }
{
  for order in 16 24; do
    echo "ppmd$order $(ppmd "$data/bible.txt" $order) $(ppmd "$data/train.txt" $order)"
  done
  echo "xz $(squeezed "$data/bible.txt") $(squeezed "$data/train.txt")"
} >"$run/compressors.txt"
rm -f "$data/x.7z" "$data/x"
"$cachalot" plan model "$model" --json >"$run/plan.json"
"$cachalot" generate "$model" --prompt "And it came to pass" --max-tokens 160 --temperature 0.8 --top-p 0.95 \
  --seed 7 --ignore-eos --json >"$run/sample.json"
"$cachalot" generate "$model" --prompt "And it came to pass" --max-tokens 256 --temperature 0 --mtp off \
  --ignore-eos --json >"$run/speed.json"
python3 "$repo/tools/plot_metrics.py" "$run/metrics.jsonl" --out "$run/loss.svg" --title "make demo: loss" >/dev/null

python3 "$repo/tools/demo_report.py" "$run" --model "$model" --cachalot "$cachalot"
