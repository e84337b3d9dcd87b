#!/usr/bin/env bash
# Writes down what is known about a namespace of a failed story, and about the operator: resources, events, logs of all pods. Prints the folder.
#
#   diagnostics.sh NAMESPACE
set -uo pipefail
[ $# -eq 1 ] || { echo "usage: diagnostics.sh NAMESPACE" >&2; exit 2; }
folder="${STREAMJOB_E2E_DIAGNOSTICS:-${TMPDIR:-/tmp}/streamjob-e2e}/$1"
mkdir -p "$folder"

kubectl get streamjobs,savepoints -n "$1" -o yaml >"$folder/resources.yaml" 2>&1
kubectl get pods,deployments,statefulsets,services,configmaps,persistentvolumeclaims,poddisruptionbudgets,controllerrevisions -n "$1" -o wide \
  >"$folder/objects" 2>&1
kubectl get pods -n "$1" -o yaml >"$folder/pods.yaml" 2>&1
kubectl get events -n "$1" --sort-by=.metadata.creationTimestamp >"$folder/events" 2>&1
for namespace in "$1" streamjob-system; do
  for pod in $(kubectl get pods -n "$namespace" -o 'jsonpath={.items[*].metadata.name}' 2>/dev/null); do
    kubectl logs -n "$namespace" "$pod" --all-containers --tail=3000 >"$folder/$pod.log" 2>&1
    kubectl logs -n "$namespace" "$pod" --all-containers --previous --tail=1000 >"$folder/$pod.previous.log" 2>/dev/null ||
      rm -f "$folder/$pod.previous.log"
  done
done
echo "diagnostics of $1: $folder"
