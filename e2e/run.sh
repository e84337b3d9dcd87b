#!/usr/bin/env bash
# Runs the stories on a cluster of two nodes of its own: builds the programs and their images, starts the cluster, runs, writes down what
# is known when something failed, and takes the cluster away.
#
#   run.sh checks                                        what a user sees: documentation, manifests, chart, dashboard
#   run.sh stories|bench|soak [ARGUMENT OF THE TESTS...]
#
# STREAMJOB_E2E_KEEP=1 leaves the cluster where it is; a second run then uses it. On another cluster, with the images in its
# registry: KUBECONFIG=... cargo test -p streamjob-e2e --test cluster -- --skip machine
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mode="${1:-stories}"
[ $# -eq 0 ] || shift
name="${STREAMJOB_E2E_CLUSTER:-e2e}"
target="$(realpath -m "${CARGO_TARGET_DIR:-target}")"
export STREAMJOB_E2E_DIAGNOSTICS="${STREAMJOB_E2E_DIAGNOSTICS:-$(mktemp -d "${TMPDIR:-/tmp}/streamjob-e2e.XXXXXX")}"
# Six stories at a time keep two cores busy; those that break what they share run alone in any case.
threads=6

# Always the whole workspace: other packages would mean other features, and so DataFusion and all else once more.
cargo build --workspace --locked
if [ "$mode" != checks ]; then
  tests="$(cargo test --workspace --locked --test cluster --no-run 2>&1 | tee /dev/stderr | sed -n 's/.*Executable .*(\(.*\))/\1/p' | tail -n 1)"
  tests="$(realpath "$tests")"
fi

finish() {
  local code=$?
  if [ "$code" -ne 0 ]; then
    echo "diagnostics: $STREAMJOB_E2E_DIAGNOSTICS" >&2
    cp -r "${STREAMJOB_CACHE:-$HOME/.cache/streamjob}/clusters/$name/control/logs" "$STREAMJOB_E2E_DIAGNOSTICS/" 2>/dev/null || true
  fi
  [ -n "${STREAMJOB_E2E_KEEP:-}" ] || e2e/cluster/down.sh --name "$name"
  exit "$code"
}
trap finish EXIT

e2e/cluster/up.sh --name "$name" --nodes 2
images=()
images+=("$(e2e/images/build.sh engine "$target/debug/streamjob-engine")")
# The same program under another tag, for upgrades of the image.
images+=("$(e2e/images/build.sh engine "$target/debug/streamjob-engine" next)")
images+=("$(e2e/images/build.sh operator "$target/debug/streamjob-operator")")
images+=("$(e2e/images/build.sh operator "$target/debug/streamjob-operator" next)")
images+=("$(e2e/images/build.sh minio)" "$(e2e/images/build.sh busybox)")
e2e/cluster/load.sh --name "$name" "${images[@]}"

run() { e2e/cluster/run.sh --name "$name" "$@"; }
if [ "$mode" = bench ]; then
  run kubectl apply -f e2e/operator-namespace.yaml
  run helm upgrade --install streamjob charts/streamjob-operator --namespace streamjob-system --set image.tag=dev --set engine.image.tag=dev \
    --wait --timeout 120s >/dev/null
  run python3 -u e2e/measure.py "$@"
  exit
fi
case "$mode" in
  checks) run e2e/checks.sh; exit ;;
  stories) set -- --test-threads "$threads" --skip soak "$@" ;;
  soak) set -- --test-threads 1 --nocapture soak "$@" ;;
  *) echo "usage: run.sh checks|stories|bench|soak [ARGUMENT...]" >&2; exit 2 ;;
esac
run env --chdir=e2e "$tests" "$@"
