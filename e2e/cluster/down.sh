#!/usr/bin/env bash
# Ends a cluster of up.sh at once and removes everything it has left, whatever state it is in: processes, control groups, its
# folder with all volumes and logs. Mounts, network interfaces and rules are in its namespaces and go with them.
#
#   down.sh [--name NAME]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name="$default_cluster"
while [ $# -gt 0 ]; do
  case "$1" in
    --name) name="${2:-}"; shift 2 ;;
    *) fail "usage: down.sh [--name NAME]" ;;
  esac
done
use_cluster "$name"
need_root

# up.sh holds the lock when it calls this.
if [ -z "${STREAMJOB_CLUSTER_LOCKED:-}" ] && [ -d "$cache/clusters" ]; then
  exec 9>"$cache/clusters/$cluster.lock"
  flock 9
fi
for role in $(known_roles); do
  kill_role "$role"
done
rm -rf --one-file-system "$run"
