#!/usr/bin/env bash
# Starts a real Kubernetes on this machine and waits until its nodes are Ready and names resolve: etcd, kube-apiserver (RBAC, pod
# security `restricted` by default), controller manager, scheduler, CoreDNS; containerd, kubelet and kube-proxy for each node; a
# default StorageClass whose ReadWriteMany volumes user 65532 can write to. Prints the file of environment variables.
#
#   up.sh [--nodes 0|1|2] [--name NAME]
#
# Everything lies in a network namespace of its own (run.sh runs a command in it) and in a folder below the cache
# (STREAMJOB_CACHE), so clusters of different names do not see each other. A cluster that runs already is left as it is; what
# is left of one that does not is removed first. Without nodes it is a control plane alone, without Services; whoever needs nodes
# registers their own.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$here/roles.sh"

nodes="" name="$default_cluster"
while [ $# -gt 0 ]; do
  case "$1" in
    --nodes) nodes="${2:-}"; shift 2 ;;
    --name) name="${2:-}"; shift 2 ;;
    *) fail "usage: up.sh [--nodes 0|1|2] [--name NAME]" ;;
  esac
done
[[ "$nodes" =~ ^[012]?$ ]] || fail "--nodes is 0, 1 or 2, got '$nodes'"
use_cluster "$name"
need_root
for hierarchy in pids memory cpu cpuset; do
  [ -d "$hierarchies/$hierarchy" ] ||
    fail "needs control groups of version 1 ($hierarchies/$hierarchy is not there); use another cluster, such as kind"
done
for tool in containerd runc ctr iptables conntrack ip nsenter setpriv openssl; do
  command -v "$tool" >/dev/null || fail "needs $tool, and it is not on PATH; .ci/tools.sh test installs it"
done
parts="$("$here/../parts/kubernetes.sh")"

mkdir -p "$cache/clusters"
exec 9>"$cache/clusters/$cluster.lock"
flock 9

answers() { kubectl get --raw /readyz; }

if role_holder control >/dev/null; then
  # Ends failures that part.sh has made.
  for role in $(known_roles); do
    rm -f "$run/$role/stopped/"*
    # A process that has ended meanwhile needs no signal.
    role_pids "$role" | xargs --no-run-if-empty kill -CONT 2>/dev/null || true
  done
else
  # Without its control plane nothing of a cluster can be used, whatever else is left of it.
  STREAMJOB_CLUSTER_LOCKED=1 "$here/down.sh" --name "$cluster"
  mkdir -p "$run"
  configure_control
  "$here/../images/build.sh" pause >/dev/null
  start_role control
fi
wait_for "API server" 60 "$run/control/logs/kube-apiserver" answers
# The roles of components are made by the API server itself, a moment after it is ready.
wait_for "objects that a cluster has from its start" 30 "$run/control/logs/kube-apiserver" kubectl apply -f "$here/system.yaml"

numbers="$(seq "${nodes:-1}")"
[ ! -d "$run/node-2" ] || numbers="1 2"
for number in $numbers; do
  [ -e "$run/node-$number/configured" ] || configure_node "$number"
  role_holder "node-$number" >/dev/null || start_node "$number"
done
for number in $numbers; do
  wait_for "node-$number to be registered" 60 "$run/node-$number/logs/kubelet" kubectl get node "node-$number"
  kubectl wait --for=condition=Ready "node/node-$number" --timeout=60s >/dev/null ||
    fail "node-$number is not Ready, see $run/node-$number/logs"
done
cat >"$run/resolv.conf" <<EOF
nameserver $service_dns
search svc.cluster.local cluster.local
options timeout:2
EOF
# Its address is a Service's, and those are the nodes' work.
if [ -n "$numbers" ]; then
  wait_for "cluster DNS" 60 "$run/control/logs/coredns" "$here/run.sh" --name "$cluster" python3 -c \
    'import socket; assert socket.gethostbyname("kubernetes.default.svc.cluster.local") == "'"$service_api"'"'
fi
wait_for "account of namespace default" 30 "$run/control/logs/kube-controller-manager" kubectl get serviceaccount default

cat >"$run/env" <<EOF
export STREAMJOB_CLUSTER=$cluster
export STREAMJOB_CLUSTER_RUN=$run
export KUBECONFIG=$run/kubeconfig
export PATH=$parts:\$PATH
EOF
echo "$run/env"
