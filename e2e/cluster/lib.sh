# shellcheck shell=bash
# What the scripts of this directory share: names and places of a cluster, and how its processes are found and ended.
#
# Everything a cluster starts lies in control groups named `streamjob.<cluster>.<role>`; role is `control` or `node-1`, `node-2`.
# They are the record of what runs: processes are found through them, never by name, so a process that lost its parent is
# found as well and nothing else is ever touched. Each role is a PID, mount and (control and node-2) network namespace: with
# its first process everything in it ends, and mounts, interfaces and rules go with the namespaces.

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# Namespaces have a working directory of their own, so no path may be relative.
cache="$(realpath -m "${STREAMJOB_CACHE:-$HOME/.cache/streamjob}")"
hierarchies=/sys/fs/cgroup

# Addresses may be the same in each cluster: nothing outside its network namespace sees them.
node_address() { echo "172.30.0.$1"; }
pod_range() { echo "10.244.$1.0/24"; }
service_range=10.96.0.0/16
service_api=10.96.0.1
service_dns=10.96.0.10
api_server="https://$(node_address 1):6443"

fail() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

# Sets `cluster` and `run`, the folder of its state. A cluster's name becomes part of names in /sys, so it is kept plain.
use_cluster() {
  cluster="$1"
  [[ "$cluster" =~ ^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$ ]] ||
    fail "a cluster's name is 1 to 20 small letters, digits and dashes, got '$cluster'"
  run="$cache/clusters/$cluster"
}

default_cluster="${STREAMJOB_CLUSTER:-dev}"

need_root() {
  [ "$(id -u)" -eq 0 ] || fail "needs root: namespaces, control groups and mounts"
}

group() { echo "streamjob.$cluster.$1"; }

# Process ids of a role, children in pods included.
role_pids() {
  find "$hierarchies/pids/$(group "$1")" -name cgroup.procs -exec cat {} + 2>/dev/null || true
}

# Host process id of a role's first process, which holds its namespaces. Fails when the role does not run.
role_holder() {
  local pid
  pid="$(cat "$run/$1/holder" 2>/dev/null)" && [ -n "$pid" ] &&
    grep -qx "$pid" "$hierarchies/pids/$(group "$1")/system/cgroup.procs" 2>/dev/null && echo "$pid"
}

make_groups() {
  local hierarchy directory
  for hierarchy in "$hierarchies"/*/; do
    # The unified hierarchy of a hybrid machine has no controllers; a link is another name of a directory that is listed too.
    [ -e "${hierarchy}cgroup.procs" ] && [ ! -L "${hierarchy%/}" ] && [ ! -e "${hierarchy}cgroup.controllers" ] || continue
    for directory in "$hierarchy$(group "$1")" "$hierarchy$(group "$1")/system"; do
      mkdir -p "$directory"
      # A new group of the cpuset hierarchy has no processor and no memory, and takes no process.
      if [ -e "$directory/cpuset.cpus" ]; then
        cat "$directory/../cpuset.cpus" >"$directory/cpuset.cpus"
        cat "$directory/../cpuset.mems" >"$directory/cpuset.mems"
      fi
      # A build beside it must not starve the cluster's own processes: a node would be taken for dead.
      if [ -e "$directory/cpu.shares" ]; then
        echo 8192 >"$directory/cpu.shares"
      fi
    done
  done
}

enter_groups() {
  local file
  for file in "$hierarchies"/*/"$(group "$1")"/system/cgroup.procs; do
    echo "$BASHPID" >"$file"
  done
}

# Ends all processes of a role at once and removes its control groups.
kill_role() {
  local holder pids directory tries
  # The first process takes its whole PID namespace with it.
  if holder="$(role_holder "$1")"; then
    kill -KILL "$holder" 2>/dev/null || true
  fi
  for tries in $(seq 200); do
    pids="$(role_pids "$1")"
    [ -n "$pids" ] || break
    # shellcheck disable=SC2086
    [ "$tries" -lt 10 ] || kill -KILL $pids 2>/dev/null || true
    sleep 0.05
  done
  [ -z "$pids" ] || fail "processes of $1 do not end: ${pids//$'\n'/ }"
  for directory in "$hierarchies"/*/"$(group "$1")"; do
    [ -d "$directory" ] || continue
    # The kernel empties a group a moment after its last process has gone.
    for tries in $(seq 100); do
      find "$directory" -depth -type d -exec rmdir {} + 2>/dev/null || true
      [ -d "$directory" ] || break
      sleep 0.05
    done
    [ ! -d "$directory" ] || fail "control group $directory cannot be removed"
  done
  rm -f "$run/$1/holder"
}

# Roles that have a folder or a control group, whether or not they run.
known_roles() {
  {
    find "$run" -mindepth 1 -maxdepth 1 -type d \( -name control -o -name 'node-*' \) -printf '%f\n' 2>/dev/null
    find "$hierarchies" -mindepth 2 -maxdepth 2 -name "streamjob.$cluster.*" -printf '%f\n' 2>/dev/null |
      sed "s/^streamjob\.$cluster\.//"
  } | sort -u
}

# Runs a command inside a role's namespaces: as the role's processes see network, mounts and processes.
inside() {
  local role="$1" holder
  shift
  holder="$(role_holder "$role")" || fail "$role of cluster '$cluster' does not run"
  nsenter --target "$holder" --net --mount --pid "$@"
}

kubectl() {
  nsenter --net="/proc/$(role_holder control)/ns/net" "$parts/kubectl" --kubeconfig "$run/kubeconfig" "$@"
}

# Waits until a command succeeds; says what it waited for, and shows the last words of a log, when it does not.
wait_for() {
  local what="$1" seconds="$2" log="$3" end
  shift 3
  end=$((SECONDS + seconds))
  until "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$end" ]; then
      [ ! -e "$log" ] || tail -n 20 "$log" >&2
      fail "$what: not within $seconds s (log: $log)"
    fi
    sleep 0.1
  done
}
