#!/bin/bash
# Runs every fuzzer of a build (make fuzz) for some seconds each. What one learns stays in BUILD_DIR/corpus-NAME for the
# next time; an input that makes it fail lies in BUILD_DIR/NAME-crash-*.
#   tools/fuzz.sh BUILD_DIR SECONDS_EACH [NAME...]
set -euo pipefail
build=$1
seconds=$2
shift 2
repo=$(realpath "$(dirname "$0")/..")
mapfile -t fuzzers < <(find "$build" -maxdepth 2 -type f -perm -u+x -name 'fuzz_*' | sort)
[[ ${#fuzzers[@]} -gt 0 ]] || { echo "fuzz: no fuzz_* program in $build: cmake --preset fuzz, then build it" >&2; exit 1; }
for fuzzer in "${fuzzers[@]}"; do
  name=$(basename "$fuzzer")
  if [[ $# -gt 0 ]] && [[ " $* " != *" $name "* ]]; then continue; fi
  learnt=$build/corpus-$name
  mkdir -p "$learnt"
  more=()
  if [[ -f $repo/fuzz/$name.dict ]]; then more+=("-dict=$repo/fuzz/$name.dict"); fi
  if [[ -d $repo/fuzz/corpus/$name ]]; then more+=("$repo/fuzz/corpus/$name"); fi
  echo "== $name for $seconds s"
  if ! "$fuzzer" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 \
       -artifact_prefix="$build/$name-" "$learnt" "${more[@]}" >"$build/$name.log" 2>&1 </dev/null; then
    tail -n 40 "$build/$name.log"
    echo "fuzz: $name found a fault; its input is named above" >&2
    exit 1
  fi
  grep -E 'stat::number_of_executed_units|stat::peak_rss_mb' "$build/$name.log"
done
