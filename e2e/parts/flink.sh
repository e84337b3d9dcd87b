#!/usr/bin/env bash
# Puts the jars of Apache Flink 2.3.0 (the peer of benchmarks, and the owner of the command line that our REST API has to
# satisfy) outside the tree, once; prints the directory that holds them. It does not build, start or configure anything.
#
# Needs python3 with pip and a package index that has `apache-flink-libraries`. STREAMJOB_CACHE moves the cache.
#
# There are only jars: no bin/, no conf/. Main classes are started with java (17) and a configuration directory of one's own
# that holds a file `config.yaml`, which may be empty but for what is said below:
#
#   lib="$(e2e/parts/flink.sh)"
#   FLINK_CONF_DIR=/some/dir java -cp "$lib/*" org.apache.flink.client.cli.CliFrontend list -m 127.0.0.1:8081
#
# - `list [-a]`, `savepoint JOB [DIR]`, `savepoint -d PATH`, `stop --savepointPath DIR [--drain] JOB`, `checkpoint JOB` and
#   `cancel JOB` need no java option and no address but -m (or `rest.address` and `rest.port` in config.yaml), each takes about
#   2 s. Exit code 0, else 1 with a stack trace, on standard output as well as on standard error.
# - A client repeats a request to an address that does not answer 20 times, for a minute; `rest.retry.max-attempts: 1` in
#   config.yaml makes that 3 s.
# - Without a config.yaml in FLINK_CONF_DIR (unset: ../conf, then conf) it ends with code 31 and says nothing at all.
# - Headers of requests, one a line, come from the environment variable FLINK_REST_CLIENT_HEADERS.
# - JobManager and TaskManager (bench/flink/cluster.py) want `--configDir DIR` and the --add-opens that are listed there.
set -euo pipefail

version=2.3.0
sha256=570bf8831d3c1336311e924e97119e52d8842e5485a4a7709ff9a92db709b006
cache="${STREAMJOB_CACHE:-$HOME/.cache/streamjob}"
home="$cache/flink-$version"

# The directory gets its name only when it is whole, so its existence is the answer.
if [ ! -d "$home" ]; then
  python="$(command -v python3 || true)"
  if [ -z "$python" ] || ! "$python" -m pip --version >/dev/null 2>&1; then
    echo "flink.sh: needs python3 with pip to get apache-flink-libraries $version; install them (Debian: python3-pip)" >&2
    exit 1
  fi
  mkdir -p "$cache"
  staging="$(mktemp -d "$cache/flink-download.XXXXXX")"
  trap 'rm -rf "$staging"' EXIT
  # The wheel would be as good but is not published; pip insists on reading the source package's metadata.
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary apache-flink-libraries \
    --dest "$staging" "apache-flink-libraries==$version" >&2
  archive="$staging/apache_flink_libraries-$version.tar.gz"
  if ! echo "$sha256  $archive" | sha256sum --check --status; then
    echo "flink.sh: $(basename "$archive") has another SHA-256 than the one that this script was written for" \
      "($(sha256sum "$archive" | cut -d' ' -f1)); nothing was installed: check the package index" >&2
    exit 1
  fi
  mkdir "$staging/flink"
  tar -xzf "$archive" -C "$staging/flink" --strip-components=2 "apache_flink_libraries-$version/deps/lib"
  # Two at once: the second finds the directory of the first, which is the same.
  mv -T "$staging/flink" "$home" 2>/dev/null || [ -d "$home/lib" ]
fi
echo "$home/lib"
