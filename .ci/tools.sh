#!/usr/bin/env bash
# Makes sure that what a build needs from the system is there: installs Debian packages when it may, names what it may not.
set -euo pipefail

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v make >/dev/null || missing+=(make)
command -v python3 >/dev/null || missing+=(python3)
command -v column >/dev/null || missing+=(bsdextrautils)

if [ "${#missing[@]}" -gt 0 ]; then
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}"
  else
    echo "missing on this machine: ${missing[*]} (names of Debian packages; as root: apt-get install ${missing[*]})" >&2
    exit 1
  fi
fi

if ! command -v cargo >/dev/null; then
  echo "missing on this machine: Rust 1.95 or newer, with cargo, rustfmt and clippy (rustup installs all three)" >&2
  exit 1
fi
