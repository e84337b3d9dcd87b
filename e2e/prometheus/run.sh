#!/usr/bin/env bash
# Runs a Prometheus that scrapes operator and jobs of the cluster of KUBECONFIG, in the foreground, at http://127.0.0.1:PORT.
# On a cluster of e2e/cluster: e2e/cluster/run.sh e2e/prometheus/run.sh [PORT]. Needs Debian's package prometheus.
set -euo pipefail

port="${1:-9090}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
: "${KUBECONFIG:?names the cluster}"
data="$(mktemp -d)"
children=()
trap 'kill "${children[@]}" 2>/dev/null || true; wait || true; rm -rf "$data"' EXIT
trap 'exit 143' TERM INT
cp "$here/prometheus.yml" "$data/"
python3 "$here/targets.py" "$data" &
children+=($!)
prometheus --config.file="$data/prometheus.yml" --storage.tsdb.path="$data/tsdb" --web.listen-address="127.0.0.1:$port" \
  --log.level=warn &
children+=($!)
wait -n
