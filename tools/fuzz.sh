#!/bin/bash
# Runs every fuzzer of a build for some seconds each; what it learns stays in build/fuzz/corpus-NAME for the next time.
#   tools/fuzz.sh BUILD_DIR SECONDS_EACH [NAME...]
set -euo pipefail
build=$1 seconds=$2
shift 2
repo=$(realpath "$(dirname "$0")/..")
mapfile -t fuzzers < <(find "$build" -maxdepth 2 -type f -perm -u+x -name '*_fuzz' | sort)
[[ ${#fuzzers[@]} -gt 0 ]] || { echo "fuzz: no *_fuzz program in $build: cmake --preset fuzz, then build it" >&2; exit 1; }
for fuzzer in "${fuzzers[@]}"; do
  name=$(basename "$fuzzer")
  if [[ $# -gt 0 ]] && [[ " $* " != *" $name "* ]]; then continue; fi
  corpus=$build/corpus-$name
  mkdir -p "$corpus"
  seeds=()
  [[ -d $repo/fuzz/seeds/${name%_fuzz} ]] && seeds=("$repo/fuzz/seeds/${name%_fuzz}")
  echo "== $name for $seconds s"
  "$fuzzer" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 \
    -artifact_prefix="$build/crash-$name-" "$corpus" "${seeds[@]}" 2>"$build/$name.log" </dev/null ||
    { tail -n 40 "$build/$name.log"; echo "fuzz: $name found a fault; its input: $(ls "$build"/crash-"$name"-* 2>/dev/null)"; exit 1; }
  grep -E 'stat::number_of_executed_units|stat::peak_rss_mb' "$build/$name.log" || true
done
