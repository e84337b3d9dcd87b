#!/usr/bin/env bash
# Shows that each query of the dashboard has data: runs a job on the cluster of KUBECONFIG, where the operator is installed, rescales it
# and kills a worker, while a Prometheus scrapes. On a cluster of e2e/cluster: e2e/cluster/run.sh e2e/prometheus/dashboard.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

port=9099
namespace="dashboard-$RANDOM"
finish() {
  local code=$?
  if [ "$code" -ne 0 ]; then
    kubectl get sj,pods -n "$namespace" -o wide >&2 || true
    kubectl get sj -n "$namespace" -o yaml >&2 || true
  fi
  kubectl delete -n "$namespace" sj --all --timeout=60s >&2 || true
  kubectl delete namespace "$namespace" --wait=false >&2 || true
  kill "$prometheus" 2>/dev/null || true
  wait 2>/dev/null || true
  exit "$code"
}
e2e/prometheus/run.sh "$port" &
prometheus=$!
trap finish EXIT

kubectl create namespace "$namespace"
kubectl apply -n "$namespace" -f e2e/prometheus/job.yaml
kubectl wait -n "$namespace" streamjob/shown --for=condition=Ready --timeout=120s
kubectl scale -n "$namespace" sj shown --replicas=2
kubectl wait -n "$namespace" streamjob/shown --for=jsonpath='{.status.parallelism}'=2 --timeout=120s
kubectl wait -n "$namespace" streamjob/shown --for=condition=Ready --timeout=120s
kubectl delete pod -n "$namespace" -l streamjob.dev/job=shown,app.kubernetes.io/component=worker --grace-period=0 --force --wait=false
e2e/dashboard_queries.py "http://127.0.0.1:$port" --wait 120
