#!/usr/bin/env bash
# Runs a command in a cluster's network namespace, where pod addresses, Services, their names and the API server can be reached, with
# KUBECONFIG and PATH (kubectl, helm) set. Its own listeners are reached by pods at 172.30.0.1. Nothing outside can be reached.
#
#   run.sh [--name NAME] COMMAND [ARGUMENT...]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name="$default_cluster"
if [ "${1:-}" = --name ]; then
  name="${2:-}"
  shift 2
fi
[ $# -gt 0 ] || fail "usage: run.sh [--name NAME] COMMAND [ARGUMENT...]"
use_cluster "$name"
need_root
holder="$(role_holder control)" || fail "cluster '$cluster' does not run; start it with up.sh --name $cluster"
parts="$("$here/../parts/kubernetes.sh")"

# Only the network is entered: `ip netns exec` would also mount /sys anew and hide the control groups.
KUBECONFIG="$run/kubeconfig" STREAMJOB_CLUSTER="$cluster" STREAMJOB_CLUSTER_RUN="$run" PATH="$parts:$PATH" \
  exec nsenter --net="/proc/$holder/ns/net" unshare --mount sh -c \
  'mount --bind "$STREAMJOB_CLUSTER_RUN/resolv.conf" /etc/resolv.conf && exec "$@"' sh "$@"
