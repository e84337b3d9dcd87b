#!/usr/bin/env bash
# Builds the MinIO server that the storage tests start, once, outside the tree; prints the binary's path.
#
# Needs Go 1.24 or newer and a Go module proxy. STREAMJOB_CACHE moves the cache.
set -euo pipefail

version=v0.0.0-20260212201848-7aac2a2c5b7c
bin="${STREAMJOB_CACHE:-$HOME/.cache/streamjob}/bin"
binary="$bin/minio-$version"

if [ ! -x "$binary" ]; then
  if ! command -v go >/dev/null; then
    echo "minio.sh: needs the Go toolchain (1.24 or newer) to build MinIO, and 'go' is not on PATH" >&2
    exit 1
  fi
  mkdir -p "$bin"
  # Installed into a directory of its own first: a killed build leaves no half binary under the final name.
  staging="$(mktemp -d "$bin/build.XXXXXX")"
  trap 'rm -rf "$staging"' EXIT
  GOBIN="$staging" CGO_ENABLED=0 nice -n 10 go install -trimpath -ldflags '-s -w' "github.com/minio/minio@$version" >&2
  mv "$staging/minio" "$binary"
fi
echo "$binary"
