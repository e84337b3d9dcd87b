#!/usr/bin/env bash
# The part of our images that is not ours: what a dynamically linked Rust binary needs, out of Debian packages, and nothing else (no
# shell, no package manager). The Dockerfile and build.sh both call this, so users get the images that tests run.
#
#   rootfs.sh make DIRECTORY            writes the files
#   rootfs.sh check DIRECTORY BINARY... fails when a binary asks for a library that is not there
#
# Needs Debian (or a container of it) with its package archive; not root.
set -euo pipefail

packages=(libc6 libgcc-s1 ca-certificates tzdata)

usage() {
  echo "usage: rootfs.sh make DIRECTORY | check DIRECTORY BINARY..." >&2
  exit 2
}

make() {
  local target="$1" downloads package name
  downloads="$(mktemp -d)"
  # shellcheck disable=SC2064
  trap "rm -rf '$downloads'" EXIT
  # apt's own user may not write into our directory.
  (cd "$downloads" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "${packages[@]}")

  mkdir -p "$target"/{etc/ssl/certs,var/lib/dpkg/status.d,home,tmp}
  for package in "$downloads"/*.deb; do
    name="$(dpkg-deb --field "$package" Package)"
    dpkg-deb --extract "$package" "$target"
    # What scanners of images look for when there is no package manager.
    dpkg-deb --field "$package" >"$target/var/lib/dpkg/status.d/$name"
  done

  # Packages that are built together share one licence file, which is in yet another package.
  for name in "$target"/usr/share/doc/*; do
    if [ -L "$name" ] && [ ! -e "$name" ]; then
      package="$(basename "$(readlink "$name")")"
      (cd "$downloads" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$package")
      dpkg-deb --fsys-tarfile "$downloads/$package"_*.deb | tar --extract --directory "$target" "./usr/share/doc/$package/copyright"
    fi
  done

  # The package's own script would do this when installed.
  find "$target/usr/share/ca-certificates" -name '*.crt' | LC_ALL=C sort | xargs awk 1 >"$target/etc/ssl/certs/ca-certificates.crt"
  # Documentation but for licences, character sets and tools that need a shell.
  find "$target/usr/share/doc" -mindepth 2 -maxdepth 2 ! -name copyright -exec rm -r {} +
  rm -rf "$target"/usr/{bin,sbin} "$target/sbin" "$target/usr/share"/{man,lintian,ca-certificates,bug} \
    "$target/usr/share/zoneinfo"/{right,posix} "$target/etc"/{ca-certificates,ld.so.conf.d} \
    "$target"/{usr/,}lib/*/gconv "$target"/{usr/,}lib/*/audit
  mkdir -p "$target/usr/bin"

  printf 'root:x:0:0:root:/:/sbin/nologin\nstreamjob:x:65532:65532:streamjob:/home:/sbin/nologin\n' >"$target/etc/passwd"
  printf 'root:x:0:\nstreamjob:x:65532:\n' >"$target/etc/group"
  printf 'hosts: files dns\n' >"$target/etc/nsswitch.conf"
  chmod 1777 "$target/tmp"
}

check() {
  local target="$1" binary library missing=0
  shift
  for binary in "$@"; do
    for library in $(objdump -p "$binary" | awk '$1 == "NEEDED" { print $2 }'); do
      if [ -z "$(find "$target" -name "$library" -print -quit)" ]; then
        echo "rootfs.sh: $(basename "$binary") needs $library, which no package of the image has; add its package here" >&2
        missing=1
      fi
    done
  done
  return "$missing"
}

case "${1:-}" in
  make) [ $# -eq 2 ] || usage; make "$2" ;;
  check) [ $# -ge 3 ] || usage; check "${@:2}" ;;
  *) usage ;;
esac
