#!/usr/bin/env bash
# Failures of whole nodes.
#
#   node.sh [--name NAME] kill|start|cut|join NUMBER
#
# kill: every process of the node ends at once, pods included, as when its power fails. start: it comes back, with its disk.
# cut: nobody reaches the node and it reaches nobody, but its pods run on. join: ends that. Both only for node 2: the first
# node shares its network with the control plane.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$here/roles.sh"

name="$default_cluster"
if [ "${1:-}" = --name ]; then
  name="${2:-}"
  shift 2
fi
action="${1:-}" number="${2:-}"
[[ $# -eq 2 && "$action" =~ ^(kill|start|cut|join)$ && "$number" =~ ^[12]$ ]] ||
  fail "usage: node.sh [--name NAME] kill|start|cut|join NUMBER"
use_cluster "$name"
need_root
control="$(role_holder control)" || fail "cluster '$cluster' does not run; start it with up.sh --name $cluster"
role="node-$number"
[ -d "$run/$role" ] || fail "cluster '$cluster' has no $role"

case "$action" in
  kill)
    kill_role "$role"
    ;;
  start)
    parts="$("$here/../parts/kubernetes.sh")"
    role_holder "$role" >/dev/null || start_node "$number"
    ;;
  cut | join)
    [ "$number" -ne 1 ] || fail "node 1 shares its network with the control plane; only node 2 can be cut off"
    state=up
    [ "$action" = join ] || state=down
    nsenter --net="/proc/$control/ns/net" ip link set "$role" "$state"
    ;;
esac
