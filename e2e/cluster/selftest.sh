#!/usr/bin/env bash
# Shows that the scripts of this directory do what they say, on a cluster of its own: a pod under the restricted standard writes to a
# claim and another node's pod reads it; a Service is reached across nodes by its name; logs and exec work; failures can be
# made and end; nothing is left at the end, also when parts were killed before.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name="selftest-$$"
use_cluster "$name"
need_root
passed=0
# The cluster goes in any case; with its logs in view when something failed.
finish() {
  local code=$?
  [ "$code" -eq 0 ] || tail -n 5 "$run"/*/logs/* >&2 2>/dev/null || true
  "$here/down.sh" --name "$name"
  rm -f "$cache/clusters/$name.lock"
  [ "$code" -eq 0 ] && echo "$passed passed, 0 failed" || echo "$passed passed, 1 failed"
  exit "$code"
}
trap finish EXIT
trap 'echo "failed in line $LINENO: $BASH_COMMAND" >&2' ERR

step() { echo "--- $*"; }
pass() { passed=$((passed + 1)); echo "ok: $*"; }
k() { "$here/run.sh" --name "$name" kubectl "$@"; }
# WHAT SECONDS COMMAND...
until_true() {
  local what="$1" end=$((SECONDS + $2))
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || { echo "not reached: $what" >&2; exit 1; }
    sleep 0.2
  done
  pass "$what"
}
node_state() { k get node "$1" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'; }
is() { [ "$("${@:2}")" = "$1" ]; }

step "start"
seconds=$SECONDS
"$here/up.sh" --name "$name" --nodes 2
pass "two nodes are Ready and names resolve ($((SECONDS - seconds)) s)"
programs() { cat "$run"/*/holder "$run"/*/pids/*; }
before="$(programs)"
"$here/up.sh" --name "$name" --nodes 2 >/dev/null
[ "$(programs)" = "$before" ]
pass "up again starts and ends nothing"

step "image, claim, Service"
"$here/load.sh" --name "$name" "$("$here/../images/build.sh" busybox)"
k apply -f "$here/selftest.yaml"
k wait --for=condition=Ready pod/writer pod/reader --timeout=60s
pass "restricted pods on both nodes run with the claim mounted"
is "written by 65532" k exec reader -- cat /data/index.html
pass "exec, and what one node's pod wrote the other's reads"
is "served" k logs writer
pass "logs"
is "written by 65532" k exec reader -- wget -q -O - http://writer.default.svc.cluster.local
pass "a Service is reached across nodes by its name"
is "written by 65532" "$here/run.sh" --name "$name" python3 -c \
  'import urllib.request; print(urllib.request.urlopen("http://writer.default.svc.cluster.local", timeout=5).read().decode().strip())'
pass "and from run.sh"
answer="$(k run privileged --image docker.io/streamjob/busybox:dev --privileged 2>&1)" && exit 1
[[ "$answer" == *"violates PodSecurity"* ]]
pass "a privileged pod is refused"

step "failures"
"$here/node.sh" --name "$name" cut 2
until_true "a node that is cut off is seen" 60 is Unknown node_state node-2
"$here/node.sh" --name "$name" join 2
until_true "and comes back" 60 is True node_state node-2
"$here/node.sh" --name "$name" kill 2
until_true "a killed node is seen" 60 is Unknown node_state node-2
[ -z "$(role_pids node-2)" ]
pass "with all its processes"
"$here/node.sh" --name "$name" start 2
until_true "and comes back" 60 is True node_state node-2
"$here/part.sh" --name "$name" stop kube-apiserver
if k get --raw /readyz >/dev/null 2>&1; then
  echo "a stopped API server answers" >&2
  exit 1
fi
"$here/part.sh" --name "$name" start kube-apiserver
until_true "a stopped API server comes back" 60 k get --raw /readyz
for program in control/etcd control/kube-controller-manager node-1/containerd node-1/kubelet; do
  "$here/part.sh" --name "$name" --role "${program%/*}" kill "${program#*/}"
done
until_true "killed programs come back" 60 k get --raw /readyz
k delete pod writer --grace-period=1
k apply -f "$here/selftest.yaml" >/dev/null
until_true "and pods are started and reached" 60 \
  is "written by 65532" k exec reader -- wget -q -O - http://writer.default.svc.cluster.local

step "start anew, after the first process of the control plane was killed"
kill -KILL "$(role_holder control)"
"$here/up.sh" --name "$name"
is "" k get pods --output name
[ -z "$(role_pids node-2)" ]
pass "a cluster without its control plane is replaced"

step "end, after the first process of its node was killed"
kill -KILL "$(role_holder node-1)"
seconds=$SECONDS
"$here/down.sh" --name "$name"
left="$(find "$hierarchies" -maxdepth 2 -name "streamjob.$name.*"; grep -l "streamjob.$name" /proc/[0-9]*/cgroup 2>/dev/null || true)"
left+="$(grep -F "/$name/" /proc/mounts || true)$(ip netns list | grep -F "$name" || true)"
left+="$(find "$cache/clusters" -maxdepth 1 -name "$name")"
[ -z "$left" ] || { echo "left behind: $left" >&2; exit 1; }
pass "nothing is left ($((SECONDS - seconds)) s)"
