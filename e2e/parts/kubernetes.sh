#!/usr/bin/env bash
# Builds a Kubernetes release with what a cluster needs besides (etcd, CoreDNS, the pause program) and Helm, once, outside the
# tree; prints the directory that holds them: kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy,
# kubectl (links to one binary), etcd, coredns, helm, pause. It starts nothing: that is e2e/cluster/up.sh.
#
# Needs Go 1.24 or newer, a Go module proxy and a C compiler. STREAMJOB_CACHE moves the cache. From nothing it takes about
# 10 minutes on 2 cores.
set -euo pipefail

kubernetes=1.34.4
helm=v3.19.4
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="${STREAMJOB_CACHE:-$HOME/.cache/streamjob}"
# Other sources or versions are another directory; it gets its name only when it is whole, so its existence is the answer.
sources="$(cd "$here" && cat {kubernetes,coredns}/go.{mod,sum} kubernetes/*/main.go coredns/main.go kubernetes/pause.c | sha256sum)"
home="$cache/kubernetes-$kubernetes-helm-$helm-${sources:0:12}"

if [ ! -d "$home" ]; then
  for tool in go gcc; do
    if ! command -v "$tool" >/dev/null; then
      echo "kubernetes.sh: needs $tool to build Kubernetes $kubernetes, and it is not on PATH" >&2
      exit 1
    fi
  done
  mkdir -p "$cache"
  staging="$(mktemp -d "$cache/kubernetes-build.XXXXXX")"
  trap 'rm -rf "$staging"' EXIT
  chmod 755 "$staging"
  export CGO_ENABLED=0
  # Without a version clients see v0.0.0 and refuse to work with it.
  version="k8s.io/component-base/version"
  echo "kubernetes.sh: building Kubernetes $kubernetes and etcd, once" >&2
  (cd "$here/kubernetes" && nice -n 5 go build -mod=readonly -trimpath -o "$staging/" -ldflags \
    "-s -w -X $version.gitVersion=v$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=$(cut -d. -f2 <<<"$kubernetes")" \
    ./kube ./etcd) >&2
  for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
    ln -s kube "$staging/$name"
  done
  echo "kubernetes.sh: building CoreDNS and Helm $helm, once" >&2
  (cd "$here/coredns" && nice -n 5 go build -mod=readonly -trimpath -ldflags '-s -w' -o "$staging/coredns" .) >&2
  GOBIN="$staging" nice -n 5 go install -trimpath -ldflags "-s -w -X helm.sh/helm/v3/internal/version.version=$helm" \
    "helm.sh/helm/v3/cmd/helm@$helm" >&2
  gcc -Os -static -Wall -Werror -o "$staging/pause" "$here/kubernetes/pause.c"
  strip "$staging/pause"
  # Two at once: the second finds the directory of the first, which is the same.
  mv -T "$staging" "$home" 2>/dev/null || [ -x "$home/kube" ]
fi
echo "$home"
