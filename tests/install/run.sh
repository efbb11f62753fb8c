#!/bin/bash
# Installs a finished build into a temporary folder, builds a small project against that alone, and runs it.
#   tests/install/run.sh BUILD_DIR [CMAKE_CXX_FLAGS]
set -euo pipefail
build=$(realpath "$1")
flags="${2:-}"
here=$(realpath "$(dirname "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$build" --prefix "$work/prefix" >"$work/install.log" || { cat "$work/install.log"; exit 1; }
for file in include/cachalot/base/error.h share/doc/cachalot/LICENSE; do
  [[ -f "$work/prefix/$file" ]] || { echo "install: $file was not installed"; exit 1; }
done
[[ ! -e "$work/prefix/include/cachalot/testing" ]] || { echo "install: headers of the tests were installed"; exit 1; }
cmake -S "$here" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS="$flags" \
  -DCMAKE_PREFIX_PATH="$work/prefix" >"$work/configure.log" 2>&1 || { cat "$work/configure.log"; exit 1; }
cmake --build "$work/build" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"$work/build/consumer"
