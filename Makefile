# What a person does with this tree. CI calls `.ci/run`, which calls `make test`.
SHELL := /bin/bash
.DEFAULT_GOAL := help

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
export STREAMJOB_ENGINE := $(TARGET_DIR)/debug/streamjob-engine

# `--workspace` also where one binary is wanted: the features of dependencies are those of all selected packages, so
# `-p` builds Arrow and DataFusion once more.

.PHONY: help
help: ## Lists the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1|/' | column -t -s '|'

.PHONY: quickstart
quickstart: tools build ## Builds the engine, runs a job, kills one of its workers, checks the result
	examples/quickstart.sh

.PHONY: build
build: ## Builds the engine for daily use
	cargo build --locked --workspace --bin streamjob-engine

.PHONY: test
test: test-tools lint dependencies docs-check parts ## Everything that CI checks
	e2e/cluster/selftest.sh
	# Most of them wait for processes of their own: two for each processor keep it busy.
	RUST_TEST_THREADS=$$((2 * $$(nproc))) cargo test --workspace --locked --no-fail-fast
	cargo build --workspace --locked
	python3 .ci/docs_commands.py
	e2e/run.sh checks
	e2e/run.sh stories

.PHONY: e2e
e2e: test-tools parts ## Stories on a real cluster of two nodes, with real pods, as root
	e2e/run.sh stories

.PHONY: soak
soak: test-tools parts ## Chaos on a real cluster, for an hour (SOAK_MINUTES)
	e2e/run.sh soak

.PHONY: bench-cluster
bench-cluster: test-tools parts ## How long jobs on a real cluster pause for what, and what it costs the API server
	e2e/run.sh bench

.PHONY: lint
lint: ## Formatting and clippy, warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

.PHONY: dependencies
dependencies: ## Licences, versions and, where a database is present, advisories of all dependencies
	python3 .ci/licences.py

.PHONY: parts
parts: ## Builds the real parts that tests start, outside the tree
	e2e/parts/minio.sh
	e2e/parts/pyarrow.sh
	e2e/parts/flink.sh
	e2e/parts/kubernetes.sh

.PHONY: images
images: test-tools ## Builds the images of engine and operator and what else the test cluster runs, as files
	cargo build --workspace --locked
	e2e/images/build.sh engine $(TARGET_DIR)/debug/streamjob-engine
	e2e/images/build.sh operator $(TARGET_DIR)/debug/streamjob-operator
	e2e/images/build.sh minio
	e2e/images/build.sh busybox

.PHONY: cluster-up
cluster-up: test-tools ## Starts a Kubernetes on this machine, as root; NODES=2 for two nodes, NAME=x for another than `dev`
	e2e/cluster/up.sh --nodes $(or $(NODES),1) --name $(or $(NAME),dev)

.PHONY: cluster-down
cluster-down: ## Ends it and removes everything it has left; NAME=x for another than `dev`
	e2e/cluster/down.sh --name $(or $(NAME),dev)

.PHONY: cluster-test
cluster-test: test-tools ## Shows on a cluster of its own that the scripts of e2e/cluster do what they say
	e2e/cluster/selftest.sh

.PHONY: crds
crds: ## Writes the custom resource definitions anew, in crds/ and in the chart
	UPDATE_CRDS=1 cargo test --locked --workspace --lib crds

.PHONY: docs
docs: ## Writes the generated pages anew
	python3 .ci/rows.py
	UPDATE_DOCS=1 cargo test --locked --workspace --lib
	UPDATE_DOCS=1 cargo test --locked --workspace --test docs

.PHONY: docs-check
docs-check: ## Fails when a generated page is stale; the others are checked by tests
	python3 .ci/rows.py --check

.PHONY: bench
bench: tools ## Throughput, CPU, memory and checkpoint durations of a release build
	cargo build --locked --release --workspace --bin streamjob-engine
	python3 bench/run.py --engine $(TARGET_DIR)/release/streamjob-engine --flink bench/flink.json

.PHONY: bench-savepoints
bench-savepoints: tools ## Savepoint, restore and rescaling in place, beside Apache Flink 2.3 (needs Maven and JDK 17)
	cargo build --locked --release --workspace --bin streamjob-engine
	python3 bench/savepoints.py --engine $(TARGET_DIR)/release/streamjob-engine --json $(TARGET_DIR)/bench-savepoints.json

.PHONY: bench-operator
bench-operator: test-tools ## Memory, CPU and API requests of the operator with 1,000 jobs (JOBS) on a real API server, as root
	cargo build --locked --release --workspace --bin streamjob-operator
	bench/operator/run.sh $(TARGET_DIR)/release/streamjob-operator --jobs $(or $(JOBS),1000) --details

.PHONY: bench-operator-check
bench-operator-check: test-tools ## The same with 50 jobs and the build for daily use, within a minute
	cargo build --locked --workspace --bin streamjob-operator
	bench/operator/run.sh $(TARGET_DIR)/debug/streamjob-operator --jobs 50 --settle 5 --rest 10

.PHONY: tools
tools:
	@.ci/tools.sh

.PHONY: test-tools
test-tools:
	@.ci/tools.sh test
