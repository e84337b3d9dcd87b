#!/usr/bin/env bash
# Puts pyarrow into a Python environment of its own, once, outside the tree; prints the path of that environment's
# interpreter. Tests read state files with it, because it shares no code with the engine.
#
# Needs python3 with venv and pip, and a package index that has pyarrow. STREAMJOB_CACHE moves the cache.
set -euo pipefail

version=26.0.1
cache="${STREAMJOB_CACHE:-$HOME/.cache/streamjob}"

if ! tag="$(python3 -c 'import ensurepip, sys, venv; print(sys.implementation.cache_tag)' 2>/dev/null)"; then
  echo "pyarrow.sh: needs python3 with venv to install pyarrow $version; install it (Debian: python3-venv)" >&2
  exit 1
fi
home="$cache/pyarrow-venv-$version-$tag"
interpreter="$home/bin/python3"
# An environment knows its own path, so it is made where it stays; this file says that it is whole.
complete="$home/.complete"

if [ ! -e "$complete" ]; then
  mkdir -p "$cache"
  # Two at once: the second waits and finds what the first has made. A killed one leaves the lock free.
  exec 9>"$home.lock"
  flock 9
  if [ ! -e "$complete" ]; then
    rm -rf "$home"
    python3 -m venv "$home" >&2
    "$interpreter" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
      "pyarrow==$version" >&2
    "$interpreter" -c "import pyarrow.ipc" >&2
    touch "$complete"
  fi
fi
echo "$interpreter"
