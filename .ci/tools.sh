#!/usr/bin/env bash
# Makes sure that what a build needs from the system is there: installs Debian packages when it may, names what it may not.
# With the argument `test` also what the real parts and the tests need.
set -euo pipefail

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v make >/dev/null || missing+=(make)
command -v python3 >/dev/null || missing+=(python3)
command -v column >/dev/null || missing+=(bsdextrautils)
if [ "${1:-}" = test ]; then
  command -v openssl >/dev/null || missing+=(openssl)
  python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
  python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || missing+=(python3-venv)
  # The Kubernetes of e2e/cluster and its images; Prometheus scrapes what runs there.
  command -v containerd >/dev/null || missing+=(containerd)
  command -v runc >/dev/null || missing+=(runc)
  [ -x /usr/lib/cni/ptp ] || missing+=(containernetworking-plugins)
  command -v iptables >/dev/null || missing+=(iptables)
  command -v conntrack >/dev/null || missing+=(conntrack)
  command -v ip >/dev/null || missing+=(iproute2)
  command -v strip >/dev/null || missing+=(binutils)
  command -v promtool >/dev/null || missing+=(prometheus)
fi

if [ "${#missing[@]}" -gt 0 ]; then
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}"
  else
    echo "missing on this machine: ${missing[*]} (names of Debian packages; as root: apt-get install ${missing[*]})" >&2
    exit 1
  fi
fi

if [ "${1:-}" = test ] && ! python3 -c 'import yaml' 2>/dev/null; then
  python3 -m pip install --quiet pyyaml
fi

if ! command -v cargo >/dev/null; then
  echo "missing on this machine: Rust 1.95 or newer, with cargo, rustfmt and clippy (rustup installs all three)" >&2
  exit 1
fi

if [ "${1:-}" = test ]; then
  if ! command -v go >/dev/null; then
    echo "missing on this machine: Go, which builds the object store and the Kubernetes that tests use" >&2
    exit 1
  fi
  if ! command -v java >/dev/null || ! command -v keytool >/dev/null; then
    echo "missing on this machine: Java 17 or newer (a JDK), with which Flink's command line is run against the REST API" >&2
    exit 1
  fi
fi
