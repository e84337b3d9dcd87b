#!/usr/bin/env bash
# Failures of single programs of a cluster: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, coredns of role control
# (the default); containerd, kubelet, kube-proxy of a node.
#
#   part.sh [--name NAME] [--role control|node-1|node-2] kill|stop|start|pause|continue PROGRAM
#
# kill: it ends at once and is started again half a second later. stop: it ends and stays away (connections are refused) until
# start. pause: it keeps its connections and answers nothing until continue.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage="usage: part.sh [--name NAME] [--role control|node-1|node-2] kill|stop|start|pause|continue PROGRAM"
name="$default_cluster" role=control
while [ $# -gt 0 ]; do
  case "$1" in
    --name) name="${2:-}"; shift 2 ;;
    --role) role="${2:-}"; shift 2 ;;
    *) break ;;
  esac
done
[ $# -eq 2 ] || fail "$usage"
action="$1" program="$2"
use_cluster "$name"
need_root
role_holder "$role" >/dev/null || fail "$role of cluster '$cluster' does not run"
[ -e "$run/$role/programs/$program" ] || fail "$role has no program '$program', it has: $(ls "$run/$role/programs" | xargs)"

# Process ids in the file are those of the role's own namespace.
signal() {
  inside "$role" sh -c 'pid="$(cat "$1")" && kill "-$2" "$pid"' sh "/mnt/$role/pids/$program" "$1"
}

case "$action" in
  kill) signal KILL ;;
  stop)
    touch "$run/$role/stopped/$program"
    [ ! -e "$run/$role/pids/$program" ] || signal KILL
    ;;
  start) rm -f "$run/$role/stopped/$program" ;;
  pause) signal STOP ;;
  continue) signal CONT ;;
  *) fail "$usage" ;;
esac
