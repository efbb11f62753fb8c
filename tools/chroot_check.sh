#!/bin/bash
# Proof on a fresh machine: makes a clean Debian 12 with nothing but git and make, clones this repository into it,
# and runs targets of the Makefile there, each in a Debian of its own. Needs root and debootstrap.
#
#   tools/chroot_check.sh FOLDER [TARGET...]      targets default to: test demo
#
# FOLDER keeps base.tar.xz (reused by the next call), TARGET.log, and the tree of the last target.
# CACHALOT_MIRROR names another Debian mirror; the proxy that apt uses here is used there too.
set -euo pipefail

if [[ $# -lt 1 ]]; then sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; fi
[[ "$(id -u)" -eq 0 ]] || { echo "chroot_check: chroot and mount need root" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "chroot_check: apt-get install debootstrap" >&2; exit 1; }

repo=$(realpath "$(dirname "$0")/..")
mkdir -p "$1"
folder=$(realpath "$1")
shift
targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || targets=(test demo)
root=$folder/root
mirror=${CACHALOT_MIRROR:-http://deb.debian.org/debian}
proxy=$(apt-config dump --format '%f "%v";%n' Acquire::http::Proxy Acquire::https::Proxy 2>/dev/null || true)

unmount() {
  for place in dev/pts dev proc sys; do
    if mountpoint -q "$root/$place"; then umount -l "$root/$place"; fi
  done
}
trap unmount EXIT

if [[ ! -s $folder/base.tar.xz ]]; then
  echo "== making the base system from $mirror"
  rm -rf "$folder/base"
  debootstrap --variant=minbase --include=ca-certificates bookworm "$folder/base" "$mirror" >"$folder/base.log" ||
    { tail -n 20 "$folder/base.log"; exit 1; }
  rm -f "$folder/base/var/cache/apt/archives/"*.deb
  tar -C "$folder/base" --one-file-system -I 'xz -T0 -1' -cf "$folder/base.tar.xz.part" .
  mv "$folder/base.tar.xz.part" "$folder/base.tar.xz"
  rm -rf "$folder/base"
fi

inside() {
  chroot "$root" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
    LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive NODE_EXTRA_CA_CERTS=/etc/ssl/certs/of-the-host.crt "$@" </dev/null
}

for target in "${targets[@]}"; do
  unmount
  rm -rf --one-file-system "$root"
  mkdir "$root"
  tar -C "$root" -I xz -xpf "$folder/base.tar.xz"
  cp -L /etc/resolv.conf "$root/etc/resolv.conf"
  # Behind a proxy that signs with its own authority, npm has to know it as this machine does.
  cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/of-the-host.crt"
  echo "deb $mirror bookworm main" >"$root/etc/apt/sources.list"
  [[ -z "$proxy" ]] || echo "$proxy" >"$root/etc/apt/apt.conf.d/01proxy"
  for place in proc sys dev dev/pts; do mount --bind "/$place" "$root/$place"; done
  inside apt-get -qq update
  inside apt-get -qq -y --no-install-recommends install git make >"$folder/git-and-make.log" 2>&1
  git clone -q --no-local "$repo" "$root/usr/src/cachalot"
  echo "== make $target at $(git -C "$root/usr/src/cachalot" log -1 --format='%h %s')"
  began=$SECONDS
  status=0
  inside make -C /usr/src/cachalot "$target" 2>&1 | tee "$folder/$target.log" || status=$?
  echo "== make $target: status $status after $((SECONDS - began)) s"
  [[ $status -eq 0 ]] || exit "$status"
done
