#!/usr/bin/env bash
# First process of a role (`control` or a node) in its namespaces: puts the role's files where its programs look for them, then
# starts the programs and starts again what ends, as an init system would. Called by start_role only.
#
#   supervise.sh RUN ROLE PARTS
#
# In RUN/ROLE: network (commands that set up the network, if any), programs/NAME (what to start), stopped/NAME (exists: not to be running), pids/NAME (in this PID namespace),
# logs/NAME, holder (this process, as the machine sees it), var (the role's /var).
set -euo pipefail

run="$1" role="$2" parts="$3"

# /proc is still the machine's.
read -r holder _ </proc/self/stat

mount --make-rprivate /
mkdir -p "$run/bin"
mount --bind "$parts" "$run/bin"
# Volumes of pods have to be seen by the pods' own mount namespaces.
mount --make-rshared /
# From here on everything is reached below /mnt, since the run folder may lie in a directory that is covered now.
mount --rbind "$run" /mnt
mount --bind "/mnt/$role/var" /var
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t proc proc /proc
# Where the host path provisioner of the controller manager makes its directories: the same ones on both nodes.
mkdir /tmp/hostpath_pv
mount --bind /mnt/volumes /tmp/hostpath_pv
if [ -e "/mnt/$role/resolv.conf" ]; then
  mount --bind "/mnt/$role/resolv.conf" /etc/resolv.conf
fi
ip link set lo up
cd /
export PATH="/mnt/bin:$PATH" HOME=/var

state="/mnt/$role"
rm -f "$state/pids/"*

keep() {
  local name="$1" pid code
  while :; do
    if [ -e "$state/stopped/$name" ]; then
      sleep 0.2
      continue
    fi
    "$state/programs/$name" >>"$state/logs/$name" 2>&1 </dev/null &
    pid=$!
    echo "$pid" >"$state/pids/$name"
    code=0
    wait "$pid" || code=$?
    rm -f "$state/pids/$name"
    echo "supervise.sh: $name ended with code $code" >>"$state/logs/$name"
    sleep 0.5
  done
}

# A holder is there from when the namespaces are complete: a node's network is connected from outside after that.
echo "$holder" >"$state/holder.new"
mv "$state/holder.new" "$state/holder"
if [ -e "$state/network" ]; then
  sh -e "$state/network"
fi
for program in "$state/programs/"*; do
  keep "${program##*/}" &
done
# Also the parent of whatever lost its own in this namespace; bash reaps those too.
wait
