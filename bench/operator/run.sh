#!/usr/bin/env bash
# Measures the operator with many StreamJobs on a real API server: a control plane of its own, nodes and engines that are fakes
# (fake.py). Takes the cluster away again. Needs root, as all of e2e/cluster.
#
#   run.sh OPERATOR [ARGUMENT OF run.py...]
set -euo pipefail
operator="$(realpath "$1")"
shift
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
name=bench-operator

finish() {
  local code=$?
  e2e/cluster/down.sh --name "$name"
  exit "$code"
}
e2e/cluster/down.sh --name "$name"
trap finish EXIT
e2e/cluster/up.sh --name "$name" --nodes 0 >/dev/null
# All addresses of pods are this machine's, as seen from the cluster, so one process answers at all of them. A range of their own:
# that of pods has a route to the second node, whether or not there is one.
e2e/cluster/run.sh --name "$name" ip route replace local 10.128.0.0/16 dev lo
e2e/cluster/run.sh --name "$name" python3 -B bench/operator/run.py --operator "$operator" "$@"
