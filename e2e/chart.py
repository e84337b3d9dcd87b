#!/usr/bin/env python3
"""Checks the Helm chart: lint, values that are refused, and what each profile of values renders to, which the API server of
KUBECONFIG takes without a warning in a namespace of pod security level restricted. Creates nothing but that namespace.
"""

import subprocess
import sys
import uuid
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "streamjob-operator"
NAMESPACE = f"chart-{uuid.uuid4().hex[:8]}"
CLUSTER_KINDS = {"ClusterRole", "ClusterRoleBinding"}

# Name: values, and a check of what is rendered.
PROFILES = {
    "default": ([], lambda found: kinds(found) >= CLUSTER_KINDS and "PodDisruptionBudget" not in kinds(found)),
    "several replicas": (["replicas=2"], lambda found: "PodDisruptionBudget" in kinds(found)),
    "namespaced": (
        [f"watchNamespaces={{{NAMESPACE}}}", "rbac.aggregate=false"],
        lambda found: not kinds(found) & CLUSTER_KINDS and len(of(found, "Role")) == 2,
    ),
    "without definitions": (["crds.install=false"], lambda found: "CustomResourceDefinition" not in kinds(found)),
    "definitions that go": (
        ["crds.keep=false"],
        lambda found: not any("annotations" in crd["metadata"] for crd in of(found, "CustomResourceDefinition")),
    ),
    "own account": (
        ["serviceAccount.create=false", "serviceAccount.name=other", "rbac.create=false"],
        lambda found: account(found) == "other" and "RoleBinding" not in kinds(found),
    ),
    "digests": (
        [f"image.digest=sha256:{'0' * 64}", "image.tag=x"],
        lambda found: container(found)["image"] == f"docker.io/streamjob/operator@sha256:{'0' * 64}",
    ),
    "everything": (
        [
            "dashboards.enabled=true",
            "replicas=3",
            "engine.image.pullPolicy=Always",
            "image.pullSecrets[0].name=registry",
            "priorityClassName=system-cluster-critical",
            "nodeSelector.disk=ssd",
            "tolerations[0].operator=Exists",
            "podLabels.a=b",
            "podAnnotations.c=d",
            "serviceAccount.annotations.e=f",
            "metrics.service.annotations.g=h",
            "fullnameOverride=other",
        ],
        lambda found: len(of(found, "ConfigMap")) == 1 and of(found, "Deployment")[0]["metadata"]["name"] == "other",
    ),
}
# Values, and a word of what Helm must say.
REFUSED = {
    "unknown=1": "unknown",
    "replicas=many": "replicas",
    "replicas=11": "replicas",
    "image.tags=x": "tags",
    "image.digest=abc": "digest",
    "watchNamespaces={A_b}": "watchNamespaces",
    "logging.format=xml": "format",
    "metrics.port=80": "port",
    "serviceAccount.create=false": "serviceAccount.name",
}


def of(found, kind):
    return [item for item in found if item["kind"] == kind]


def kinds(found):
    return {item["kind"] for item in found}


def pod(found):
    return of(found, "Deployment")[0]["spec"]["template"]["spec"]


def account(found):
    return pod(found)["serviceAccountName"]


def container(found):
    return pod(found)["containers"][0]


def run(*command, text=None):
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)


def rendered(*values):
    # A Helm that was not built by its makers knows no version of Kubernetes.
    arguments = ["helm", "template", "streamjob", str(CHART), "--namespace", NAMESPACE, "--kube-version", "1.34.0"]
    for value in values:
        arguments += ["--set", value]
    return run(*arguments)


def check_profile(values, expected):
    answer = rendered(*values)
    if answer.returncode != 0:
        return answer.stderr.strip()
    found = [item for item in yaml.safe_load_all(answer.stdout) if item]
    if not expected(found):
        return f"not what was expected: {sorted(kinds(found))}"
    applied = run("kubectl", "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-", text=answer.stdout)
    # A violation of pod security shows as a warning of the Deployment.
    return applied.stderr.strip() or None


def check_refused(value, word):
    answer = rendered(value)
    if answer.returncode == 0:
        return "it is taken"
    return None if word in answer.stderr else f"{word} is not in: {answer.stderr.strip()}"


def check_reasons():
    """Each rule of the operator has a comment above it."""
    lines = (CHART / "templates" / "_helpers.tpl").read_text(encoding="utf-8").splitlines()
    rules = [index for index, line in enumerate(lines) if line.startswith("- apiGroups:")]
    bare = [lines[index + 1].strip() for index in rules if not lines[index - 1].startswith("#")]
    if bare or not rules:
        return f"rules without a reason: {bare}"
    return None


def check_verbs():
    """Nothing by wildcard, nothing that gives rights away, and of Secrets nothing but `create`, except the one key."""
    found = [item for item in yaml.safe_load_all(rendered().stdout) if item]
    for role in of(found, "ClusterRole") + of(found, "Role"):
        for rule in role["rules"]:
            words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            if words & {"*", "escalate", "bind", "impersonate", "pods/exec", "nodes/proxy"}:
                return f"{role['metadata']['name']}: {rule}"
            if "secrets" in rule["resources"] and not rule.get("resourceNames") and rule["verbs"] != ["create"]:
                return f"{role['metadata']['name']}: {rule}"
    return None


def main():
    made = run("kubectl", "create", "namespace", NAMESPACE)
    if made.returncode != 0:
        sys.exit(f"chart.py: no namespace in the cluster of KUBECONFIG: {made.stderr.strip()}")
    try:
        for mode in ("enforce", "warn"):
            run("kubectl", "label", "namespace", NAMESPACE, f"pod-security.kubernetes.io/{mode}=restricted")
        lint = run("helm", "lint", "--strict", str(CHART))
        results = {
            "lint": lint.stdout + lint.stderr if lint.returncode else None,
            "reasons of rules": check_reasons(),
            "verbs": check_verbs(),
        }
        for name, (values, expected) in PROFILES.items():
            results[f"profile {name}"] = check_profile(values, expected)
        for value, word in REFUSED.items():
            results[f"refuses {value}"] = check_refused(value, word)
    finally:
        run("kubectl", "delete", "namespace", NAMESPACE, "--wait=false")
    failures = {name: problem for name, problem in results.items() if problem}
    for name, problem in failures.items():
        print(f"FAILED {name}: {problem}")
    print(f"chart: {len(results) - len(failures)} passed, {len(failures)} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
