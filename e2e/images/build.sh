#!/usr/bin/env bash
# Builds a container image without a container engine; prints the archive, which e2e/cluster/load.sh, `docker load` and
# `kind load image-archive` take.
#
#   build.sh engine|operator BINARY [TAG]   docker.io/streamjob/engine:TAG, docker.io/streamjob/operator:TAG (default: dev)
#   build.sh minio                          docker.io/streamjob/minio:dev, an S3 for tests
#   build.sh busybox                        docker.io/streamjob/busybox:dev, a shell and small tools for tests
#   build.sh pause                          docker.io/streamjob/pause:1, what holds a pod
#
# The first two are what the Dockerfile builds; the layer below the binary is kept outside the tree (STREAMJOB_CACHE moves it).
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="${STREAMJOB_CACHE:-$HOME/.cache/streamjob}"
images="$cache/images"
mkdir -p "$images"
work="$(mktemp -d "$images/work.XXXXXX")"
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

usage() {
  echo "usage: build.sh engine|operator BINARY [TAG] | minio | busybox | pause" >&2
  exit 2
}

# DIRECTORY FILE; the same files give the same layer.
layer() {
  tar --create --file "$2" --directory "$1" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 .
}

# Sets `base`: the directory, with its layer beside it. Another recipe is another directory.
use_base() {
  base="$images/base-$(sha256sum <"$here/rootfs.sh" | cut -c1-12)"
  if [ ! -e "$base.tar" ]; then
    "$here/rootfs.sh" make "$work/base"
    layer "$work/base" "$work/base.tar"
    mv -T "$work/base" "$base" 2>/dev/null || [ -d "$base" ]
    mv "$work/base.tar" "$base.tar"
  fi
}

# IMAGE TAG ENTRYPOINT... with layers in `layers`.
archive() {
  local output="$images/$1-$2.tar" arguments=() word
  for word in "${layers[@]}"; do arguments+=(--layer "$word"); done
  for word in "${@:3}"; do arguments+=("--entrypoint=$word"); done
  python3 "$here/archive.py" --output "$work/image.tar" --name "docker.io/streamjob/$1:$2" --user 65532:65532 "${arguments[@]}"
  mv "$work/image.tar" "$output"
  echo "$output"
}

mkdir -p "$work/top/usr/bin" "$work/top/bin"
case "${1:-}" in
  engine | operator)
    [ $# -eq 2 ] || [ $# -eq 3 ] || usage
    use_base
    rmdir "$work/top/bin"
    strip -o "$work/top/usr/bin/streamjob-$1" "$2"
    "$here/rootfs.sh" check "$base" "$work/top/usr/bin/streamjob-$1"
    layer "$work/top" "$work/top.tar"
    layers=("$base.tar" "$work/top.tar")
    archive "$1" "${3:-dev}" "/usr/bin/streamjob-$1"
    ;;
  minio | busybox)
    [ $# -eq 1 ] || usage
    use_base
    if [ ! -e "$images/busybox" ]; then
      (cd "$work" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download busybox && dpkg-deb --extract busybox_*.deb package)
      mv "$work/package/bin/busybox" "$images/busybox"
    fi
    cp "$images/busybox" "$work/top/bin/busybox"
    for applet in $("$images/busybox" --list); do
      [ "$applet" = busybox ] || ln -s busybox "$work/top/bin/$applet"
    done
    "$here/rootfs.sh" check "$base" "$work/top/bin/busybox"
    program=/bin/sh
    if [ "$1" = minio ]; then
      program=/usr/bin/minio
      cp "$("$here/../parts/minio.sh")" "$work/top$program"
    fi
    layer "$work/top" "$work/top.tar"
    layers=("$base.tar" "$work/top.tar")
    archive "$1" dev "$program"
    ;;
  pause)
    [ $# -eq 1 ] || usage
    rm -r "$work/top"
    mkdir "$work/top"
    cp "$("$here/../parts/kubernetes.sh")/pause" "$work/top/pause"
    layer "$work/top" "$work/top.tar"
    layers=("$work/top.tar")
    archive pause 1 /pause
    ;;
  *) usage ;;
esac
