# shellcheck shell=bash
# How each role of a cluster is configured and started: control (etcd, the control plane, CoreDNS) and nodes (containerd, kubelet,
# kube-proxy). Functions only; needs lib.sh, and `parts` set to the directory that e2e/parts/kubernetes.sh prints.

pause_image=docker.io/streamjob/pause:1

# A program of a role; standard input is the body of its start script.
program() {
  { echo '#!/bin/sh'; cat; } >"$run/$1/programs/$2"
  chmod 755 "$run/$1/programs/$2"
}

# Key and certificate, signed by the cluster's authority: NAME SUBJECT [SUBJECT-ALTERNATIVE-NAMES].
certificate() {
  local extra=()
  [ -z "${3:-}" ] || extra=(-addext "subjectAltName=$3")
  openssl req -x509 -config "$run/pki/request" -CA "$run/pki/ca.crt" -CAkey "$run/pki/ca.key" -days 365 \
    -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -subj "$2" -addext basicConstraints=critical,CA:FALSE \
    -addext extendedKeyUsage=clientAuth,serverAuth "${extra[@]}" -keyout "$run/pki/$1.key" -out "$run/pki/$1.crt" 2>"$run/pki/log" ||
    { cat "$run/pki/log" >&2; fail "openssl cannot make a certificate"; }
}

authority() {
  mkdir -p "$run/pki"
  # Not the system's configuration: it would add extensions of its own.
  printf '[req]\ndistinguished_name=name\n[name]\n' >"$run/pki/request"
  openssl req -x509 -config "$run/pki/request" -days 365 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc \
    -subj "/CN=streamjob-$cluster" -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
    -keyout "$run/pki/ca.key" -out "$run/pki/ca.crt" 2>/dev/null
  openssl ecparam -name prime256v1 -genkey -noout -out "$run/pki/accounts.key"
  openssl ec -in "$run/pki/accounts.key" -pubout -out "$run/pki/accounts.pub" 2>/dev/null
}

# A kubeconfig with a client certificate in it: FILE NAME SUBJECT.
kubeconfig() {
  certificate "$2" "$3"
  cat >"$1" <<EOF
apiVersion: v1
kind: Config
clusters:
  - name: $cluster
    cluster: {server: "$api_server", certificate-authority-data: $(base64 -w0 <"$run/pki/ca.crt")}
users:
  - name: $2
    user: {client-certificate-data: $(base64 -w0 <"$run/pki/$2.crt"), client-key-data: $(base64 -w0 <"$run/pki/$2.key")}
contexts:
  - name: $cluster
    context: {cluster: $cluster, user: $2}
current-context: $cluster
EOF
  chmod 600 "$1"
}

# Starts a role's first process in its control groups and namespaces and waits until it has set them up.
start_role() {
  local role="$1" network=(--net) enter=()
  if [ "$role" = node-1 ]; then
    # The first node is the machine that the control plane runs on.
    network=()
    enter=(nsenter --net="/proc/$(role_holder control)/ns/net")
  fi
  mkdir -p "$run/$role"/{logs,pids,stopped,var/log,var/tmp}
  rm -f "$run/$role/holder"
  make_groups "$role"
  (
    enter_groups "$role"
    exec "${enter[@]}" setsid unshare "${network[@]}" --mount --pid --fork --kill-child \
      "$here/supervise.sh" "$run" "$role" "$parts"
  ) </dev/null >>"$run/$role/logs/supervise" 2>&1 9>&- &
  disown
  wait_for "start of $role" 20 "$run/$role/logs/supervise" role_holder "$role"
}

configure_control() {
  local directory="$run/control"
  mkdir -p "$directory"/programs "$run/volumes" "$run/audit"
  authority
  certificate apiserver /CN=kube-apiserver \
    "IP:$(node_address 1),IP:$service_api,IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
  certificate kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
  kubeconfig "$run/kubeconfig" admin /O=system:masters/CN=admin
  kubeconfig "$directory/scheduler" scheduler /CN=system:kube-scheduler
  kubeconfig "$directory/coredns.kubeconfig" coredns /CN=system:coredns

  # The controller manager makes the directories of host path volumes with mode 0750 and its own user: under the user of our
  # pods they can write there, although fsGroup means nothing to such volumes.
  mkdir -p "$directory/manager"
  kubeconfig "$directory/manager/kubeconfig" controller-manager /CN=system:kube-controller-manager
  cp "$run/pki/accounts.key" "$run/pki/ca.crt" "$directory/manager/"
  chown -R 65532:65532 "$directory/manager" "$run/volumes"

  cat >"$directory/network" <<EOF
ip link add node0 type bridge
ip address add $(node_address 1)/24 dev node0
ip link set node0 up
ip route add default dev node0
ip route add $(pod_range 2) via $(node_address 2)
echo 1 >/proc/sys/net/ipv4/ip_forward
EOF

  cp "$here/admission.yaml" "$here/audit.yaml" "$directory/"
  cat >"$directory/Corefile" <<EOF
cluster.local in-addr.arpa {
  bind $(node_address 1)
  errors
  ready
  kubernetes cluster.local in-addr.arpa {
    kubeconfig /mnt/control/coredns.kubeconfig
    ttl 5
  }
}
. {
  bind $(node_address 1)
  # Nothing outside can be reached; saying so at once makes a missing image fail as fast as where there is a registry.
  template ANY ANY {
    rcode NXDOMAIN
  }
}
EOF

  program control etcd <<'EOF'
exec etcd --data-dir=/var/etcd --unsafe-no-fsync --log-level=warn --name=etcd \
  --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
  --listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380 \
  --initial-cluster=etcd=http://127.0.0.1:2380
EOF
  program control kube-apiserver <<EOF
exec kube-apiserver --etcd-servers=http://127.0.0.1:2379 --advertise-address=$(node_address 1) \
  --service-cluster-ip-range=$service_range --allow-privileged=true --authorization-mode=Node,RBAC \
  --client-ca-file=/mnt/pki/ca.crt --tls-cert-file=/mnt/pki/apiserver.crt --tls-private-key-file=/mnt/pki/apiserver.key \
  --kubelet-client-certificate=/mnt/pki/kubelet-client.crt --kubelet-client-key=/mnt/pki/kubelet-client.key \
  --kubelet-preferred-address-types=InternalIP \
  --service-account-issuer=https://kubernetes.default.svc.cluster.local \
  --service-account-key-file=/mnt/pki/accounts.pub --service-account-signing-key-file=/mnt/pki/accounts.key \
  --admission-control-config-file=/mnt/control/admission.yaml \
  --audit-policy-file=/mnt/control/audit.yaml --audit-log-path=/mnt/audit/log --audit-log-maxsize=100 --audit-log-maxbackup=2
EOF
  program control kube-controller-manager <<EOF
exec setpriv --reuid=65532 --regid=65532 --clear-groups \
  kube-controller-manager --kubeconfig=/mnt/control/manager/kubeconfig --leader-elect=false \
  --use-service-account-credentials=true --service-account-private-key-file=/mnt/control/manager/accounts.key \
  --root-ca-file=/mnt/control/manager/ca.crt --enable-hostpath-provisioner=true \
  --node-monitor-grace-period=10s --node-monitor-period=1s --kube-api-qps=500 --kube-api-burst=1000
EOF
  program control kube-scheduler <<EOF
exec kube-scheduler --kubeconfig=/mnt/control/scheduler --leader-elect=false --kube-api-qps=500 --kube-api-burst=1000
EOF
  program control coredns <<EOF
exec coredns -conf /mnt/control/Corefile
EOF
}

configure_node() {
  local number="$1" role="node-$1" other=$((3 - $1))
  local directory="$run/$role"
  mkdir -p "$directory"/{programs,cni}
  kubeconfig "$directory/kubelet.kubeconfig" "$role" "/O=system:nodes/CN=system:node:$role"
  kubeconfig "$directory/proxy.kubeconfig" "$role-proxy" "/CN=system:kube-proxy"
  # What the node's own programs ask, and pods with the node's DNS policy.
  echo "nameserver $(node_address 1)" >"$directory/resolv.conf"

  if [ "$number" -ne 1 ]; then
    # The cable is plugged in from the other side, by start_node.
    cat >"$directory/network" <<EOF
until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
ip address add $(node_address "$number")/24 dev eth0
ip link set eth0 up
ip route add default via $(node_address 1)
ip route add $(pod_range "$other") via $(node_address "$other")
echo 1 >/proc/sys/net/ipv4/ip_forward
EOF
  fi

  cat >"$directory/containerd.toml" <<EOF
version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$pause_image"
  # Without CAP_SYS_RESOURCE no process may make itself less likely to be killed, and no sandbox would start.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/mnt/$role/cni"
EOF
  # Each pod has a cable of its own to the node's routing (not a bridge), so every packet passes the rules of Services.
  cat >"$directory/cni/pods.conflist" <<EOF
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local", "dataDir": "/run/cni",
    "ranges": [[{"subnet": "$(pod_range "$number")"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
EOF
  # Images are loaded, never pulled, so they must not be collected; and the disk is the machine's, which others fill.
  cat >"$directory/kubelet.yaml" <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {x509: {clientCAFile: /mnt/pki/ca.crt}, webhook: {enabled: true}, anonymous: {enabled: false}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$(group "$role")
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
maxOpenFiles: 20000
clusterDNS: ["$service_dns"]
clusterDomain: cluster.local
resolvConf: /mnt/$role/resolv.conf
nodeLeaseDurationSeconds: 8
nodeStatusUpdateFrequency: 2s
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}
serializeImagePulls: false
EOF
  program "$role" containerd <<EOF
exec containerd --config /mnt/$role/containerd.toml
EOF
  program "$role" kubelet <<EOF
# It would end with an error, and be started again later than is needed.
until [ -S /run/containerd/containerd.sock ]; do sleep 0.05; done
exec kubelet --config=/mnt/$role/kubelet.yaml --kubeconfig=/mnt/$role/kubelet.kubeconfig --hostname-override=$role \
  --node-ip=$(node_address "$number")
EOF
  program "$role" kube-proxy <<EOF
exec kube-proxy --kubeconfig=/mnt/$role/proxy.kubeconfig --hostname-override=$role --cluster-cidr=10.244.0.0/16 \
  --oom-score-adj=0 --conntrack-max-per-core=0 --conntrack-min=0 \
  --conntrack-tcp-timeout-established=0s --conntrack-tcp-timeout-close-wait=0s
EOF
  # Written last: what was interrupted is done again.
  touch "$directory/configured"
}

# Starts a node that is configured; its containers come back as after a power failure.
start_node() {
  local number="$1" role="node-$1" control
  if [ "$number" -ne 1 ]; then
    control="$(role_holder control)"
    # The old end disappears with the old node's namespace, but not at once.
    nsenter --net="/proc/$control/ns/net" ip link delete "$role" 2>/dev/null || true
    start_role "$role"
    nsenter --net="/proc/$control/ns/net" sh -ec "
      ip link add $role type veth peer name eth0 netns $(role_holder "$role")
      ip link set $role master node0 up"
  else
    start_role "$role"
  fi
  load_image "$role" "$cache/images/pause-1.tar"
}

# Imports an image archive into a node: ROLE FILE.
load_image() {
  local holder
  holder="$(role_holder "$1")" || fail "$1 of cluster '$cluster' does not run"
  wait_for "containerd of $1" 30 "$run/$1/logs/containerd" \
    nsenter --target "$holder" --mount ctr --connect-timeout 2s version
  nsenter --target "$holder" --mount --pid --net ctr --namespace k8s.io images import --all-platforms - <"$2" >/dev/null ||
    fail "$1 does not take the image archive $2"
}
