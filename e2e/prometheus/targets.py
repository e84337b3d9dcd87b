#!/usr/bin/env python3
"""Writes what Prometheus scrapes, again and again: the pods of the operator and of all jobs in the cluster of KUBECONFIG.

    targets.py DIRECTORY     operator.json and jobs.json there, for file_sd_configs
"""

import json
import subprocess
import sys
import time
from pathlib import Path

# Group, label and port's name.
GROUPS = [("operator", "streamjob-operator", "metrics"), ("jobs", "streamjob", "rest")]
EVERY_SECONDS = 2


def targets(label, port_name):
    command = ["kubectl", "get", "pods", "-A", "-l", f"app.kubernetes.io/name={label}", "-o", "json"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if answer.returncode != 0:
        return None
    groups = []
    for pod in json.loads(answer.stdout)["items"]:
        address = pod["status"].get("podIP")
        ports = [port for container in pod["spec"]["containers"] for port in container.get("ports", [])]
        labels = {"namespace": pod["metadata"]["namespace"], "pod": pod["metadata"]["name"]}
        for port in ports:
            if address and port.get("name") == port_name:
                groups.append({"targets": [f"{address}:{port['containerPort']}"], "labels": labels})
    return groups


def main():
    directory = Path(sys.argv[1])
    while True:
        for name, label, port_name in GROUPS:
            found = targets(label, port_name)
            # While the API server is away, what was known goes on being scraped.
            if found is not None:
                file = directory / f"{name}.json"
                new = file.with_suffix(".new")
                new.write_text(json.dumps(found), encoding="utf-8")
                new.replace(file)
        time.sleep(EVERY_SECONDS)


if __name__ == "__main__":
    main()
