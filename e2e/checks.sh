#!/usr/bin/env bash
# What a user sees, on the cluster of KUBECONFIG with the images `dev` present: the commands of the documentation, messages for wrong
# manifests, the chart's profiles of values, and the dashboard's queries. On a cluster of e2e/cluster: e2e/cluster/run.sh e2e/checks.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kubectl apply -f e2e/operator-namespace.yaml
kubectl apply -f e2e/cluster/minio.yaml
kubectl rollout status -n minio deployment/minio --timeout=120s
# They install the operator, in a namespace of pod security level restricted.
HELM_ARGUMENTS="${HELM_ARGUMENTS:---set image.tag=dev --set engine.image.tag=dev}" python3 .ci/docs_commands.py --cluster
e2e/manifests/check.py
e2e/chart.py
e2e/dashboard_queries.py --static
e2e/prometheus/dashboard.sh
