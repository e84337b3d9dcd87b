#!/usr/bin/env bash
# Puts images into the nodes of a cluster: archives as `docker save` writes them. Pods use them with imagePullPolicy IfNotPresent.
#
#   load.sh [--name NAME] IMAGE.tar...
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$here/roles.sh"

name="$default_cluster"
if [ "${1:-}" = --name ]; then
  name="${2:-}"
  shift 2
fi
[ $# -gt 0 ] || fail "usage: load.sh [--name NAME] IMAGE.tar..."
use_cluster "$name"
need_root

loads=()
for role in $(known_roles); do
  if [ "$role" != control ] && role_holder "$role" >/dev/null; then
    for archive in "$@"; do
      load_image "$role" "$archive" &
      loads+=($!)
    done
  fi
done
[ "${#loads[@]}" -gt 0 ] || fail "cluster '$cluster' does not run; start it with up.sh --name $cluster"
for load in "${loads[@]}"; do
  wait "$load"
done
