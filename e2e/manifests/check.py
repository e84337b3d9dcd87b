#!/usr/bin/env python3
"""Asks a real API server about manifests: wrong ones get exactly the message that they must get, right ones are taken.

    check.py            against the cluster of KUBECONFIG, whose custom resource definitions are those of crds/
    check.py --record   writes the messages that came into wrong/ (look at them before you commit them)

wrong/*.yaml are lists of cases; see read_cases. right/*.yaml are manifests as people write them. Nothing is left behind: creations are
dry runs, and what updates start from lives in a namespace of its own, which is deleted.
"""

import argparse
import json
import re
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
API = "streamjob.dev/v1alpha1"
BASE = {"StreamJob": {"program": {"sql": "SELECT 1"}}, "Savepoint": {"jobRef": {"name": "visits"}}}
ATTEMPTS = 20
NAMESPACE = f"manifests-{uuid.uuid4().hex[:8]}"
# What `kubectl explain` has to say, among other things.
EXPLAINED = {
    "streamjob": "A stream-processing job that keeps its state through failures, upgrades and rescaling.",
    "sj.spec.program.sql": "Flink SQL: CREATE TABLE, CREATE TEMPORARY VIEW, INSERT INTO",
    "sj.spec.checkpoint": "Periodic snapshots of the job's state.",
    "sj.spec.checkpoint.mode": "ENUM: ExactlyOnce AtLeastOnce",
    "sj.spec.upgrade": "onSavepointFailure",
    "sj.spec.storage.s3.credentialsSecret": "Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "sj.spec.restartStrategy.exponentialDelay": "jitterFactor",
    "sj.status": "What is observed of a job, and what is being done with it.",
    "sj.status.operation": "The disruptive act under way.",
    "sj.status.conditions": "Which aspect.",
    "savepoint.spec": "Keep the files when this resource is deleted.",
    "sjsp.status": "Where the savepoint lies.",
}
# Fields that every manifest on Kubernetes is refused for.
REFUSED = {".program.command", ".program.args", ".storage.directory"}
FORGOTTEN = re.compile(r"<no description>|\$ref|<empty>")


def kubectl(*arguments, text=None):
    return subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, timeout=120)


def merged(base, change):
    """Change over base; null takes a field away."""
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    result = dict(base)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def manifest(case, spec, name):
    kind = case.get("kind", "StreamJob")
    metadata = {"name": name, "namespace": NAMESPACE, **case.get("metadata", {})}
    whole = {"apiVersion": API, "kind": kind, "metadata": metadata, "spec": merged(BASE[kind], spec)}
    return merged(whole, case.get("whole", {}))


def read_cases(path):
    """name; kind (StreamJob); metadata; spec, over a smallest valid one; whole: fields beside spec. An update has `before`, the spec
    that is there, perhaps `status`, and `spec` as what it is replaced with. `scale` scales instead. error: what kubectl says."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def ask(number, case):
    """What kubectl says about a case, or None if the API server takes it."""
    name = f"case-{number}"
    if "before" not in case:
        answer = kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", text=as_text(case, case["spec"], name))
        return said(answer, name)
    kind = case.get("kind", "StreamJob").lower()
    answer = kubectl("create", "-f", "-", text=as_text(case, case["before"], name))
    if answer.returncode != 0:
        return "what it starts from is refused: " + answer.stderr.strip()
    if "status" in case:
        patch = json.dumps({"status": case["status"]})
        answer = kubectl("patch", kind, name, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", patch)
        if answer.returncode != 0:
            return "its status is refused: " + answer.stderr.strip()
    if "scale" in case:
        return said(kubectl("scale", kind, name, "-n", NAMESPACE, f"--replicas={case['scale']}"), name)
    for _ in range(ATTEMPTS):
        answer = kubectl("replace", "--dry-run=server", "--validate=strict", "-f", "-", text=as_text(case, case["spec"], name))
        # An operator that looks after what is there may have been quicker.
        if "(Conflict)" not in answer.stderr:
            break
        time.sleep(0.5)
    return said(answer, name)


def as_text(case, spec, name):
    return json.dumps(manifest(case, spec, name))


def said(answer, name):
    if answer.returncode == 0:
        return None
    return answer.stderr.strip().replace(name, "NAME").replace(NAMESPACE, "NAMESPACE")


def check_wrong(pool, record):
    files = {path: read_cases(path) for path in sorted((HERE / "wrong").glob("*.yaml"))}
    cases = [(path, case) for path, cases in files.items() for case in cases]
    answers = list(pool.map(lambda item: ask(item[0], item[1][1]), enumerate(cases)))
    failures = []
    for (path, case), answer in zip(cases, answers):
        if answer is None:
            failures.append(f"{path.name}: {case['name']}: the API server takes it")
        elif record:
            case["error"] = answer
        elif answer != case.get("error", "").strip():
            failures.append(f"{path.name}: {case['name']}:\n  expected: {case.get('error')}\n  found:    {answer}")
    if record:
        for path, cases_of_file in files.items():
            head = "".join(line + "\n" for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
            path.write_text(head + dumped(cases_of_file), encoding="utf-8")
    return len(cases), failures


def dumped(cases):
    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper, value):
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    return "\n".join(yaml.dump([case], Dumper=Dumper, sort_keys=False, width=120, allow_unicode=True) for case in cases)


def check_right(pool):
    paths = sorted((HERE / "right").glob("*.yaml")) + sorted((ROOT / "examples" / "kubernetes").glob("*.yaml"))

    def one(path):
        text = path.read_text(encoding="utf-8")
        return path, kubectl("create", "--dry-run=server", "--validate=strict", "-n", NAMESPACE, "-f", "-", text=text)

    failures = [
        f"{path.name}: {answer.stderr.strip()}" for path, answer in pool.map(one, paths) if answer.returncode != 0
    ]
    return len(paths), failures


def check_every_field():
    """right/every-field.yaml has each field of the spec once."""
    failures = []
    documents = list(yaml.safe_load_all((HERE / "right" / "every-field.yaml").read_text(encoding="utf-8")))
    for crd in ("streamjob", "savepoint"):
        definition = yaml.safe_load((ROOT / "crds" / f"{crd}.yaml").read_text(encoding="utf-8"))
        kind = definition["spec"]["names"]["kind"]
        schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        specs = [document["spec"] for document in documents if document["kind"] == kind]
        failures += [f"every-field.yaml: {kind} spec{path} is not there" for path in missing(schema, specs, "")]
    return 1, failures


def missing(schema, values, path):
    for name, field in schema.get("properties", {}).items():
        if f"{path}.{name}" in REFUSED:
            continue
        found = [value[name] for value in values if isinstance(value, dict) and name in value]
        if not found:
            yield f"{path}.{name}"
            continue
        if "items" in field:
            found = [item for items in found for item in items]
            yield from missing(field["items"], found, f"{path}.{name}[]")
        else:
            yield from missing(field, found, f"{path}.{name}")


def check_explained(pool):
    def one(item):
        path, expected = item
        answer = kubectl("explain", path)
        text = " ".join(answer.stdout.split())
        if expected not in text:
            return f"kubectl explain {path}: {expected!r} is not in: {text[:300]} {answer.stderr.strip()}"
        forgotten = FORGOTTEN.search(text)
        return f"kubectl explain {path}: {forgotten.group()}" if forgotten else None

    failures = [failure for failure in pool.map(one, EXPLAINED.items()) if failure]
    return len(EXPLAINED), failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write the messages that came")
    record = parser.parse_args().record
    created = kubectl("create", "namespace", NAMESPACE)
    if created.returncode != 0:
        sys.exit(f"check.py: no namespace in the cluster of KUBECONFIG: {created.stderr.strip()}")
    try:
        with ThreadPoolExecutor(4) as pool:
            results = [check_wrong(pool, record), check_right(pool), check_every_field(), check_explained(pool)]
    finally:
        # An operator that runs may have put its finalizer on them.
        patch = '{"metadata":{"finalizers":null}}'
        names = kubectl("get", "streamjobs,savepoints", "-n", NAMESPACE, "-o", "name").stdout.split()
        for name in names:
            kubectl("delete", name, "-n", NAMESPACE, "--wait=false")
            kubectl("patch", name, "-n", NAMESPACE, "--type=merge", "-p", patch)
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    failures = [failure for _, some in results for failure in some]
    for failure in failures:
        print(f"FAILED {failure}")
    total = sum(count for count, _ in results)
    # Several problems of one thing count as one.
    failed = sum(min(count, len(some)) for count, some in results)
    print(f"manifests: {total - failed} passed, {failed} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
