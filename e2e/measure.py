#!/usr/bin/env python3
"""Measures on a real cluster how long a job's output pauses for what, and what operator and job cost at rest; prints what the time was spent on.

One job: 20,000 rows a second, 100,000 keys, a checkpoint each second, one worker. Behind the counting by key a sample of the rows is
printed; a row counts when it reaches that sink, at the time that the node's container runtime wrote beside it. A pause is the
largest gap between two rows after the act. Runs in e2e/cluster/run.sh with operator and images in the cluster (`make bench-cluster`).
"""

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from datetime import datetime

NAMESPACE = "e2e-measure"
JOB = "bench"
PATIENCE = 120
SQL = """
CREATE TABLE numbers (n BIGINT) WITH (
  'connector' = 'datagen', 'rows-per-second' = '20000',
  'fields.n.kind' = 'sequence', 'fields.n.start' = '1', 'fields.n.end' = '1000000000000'
);
CREATE TABLE sampled (k BIGINT, cnt BIGINT) WITH ('connector' = 'print', 'print-identifier' = 'sink');
INSERT INTO sampled SELECT k, cnt FROM
  (SELECT n % 100000 AS k, COUNT(*) AS cnt FROM numbers GROUP BY n % 100000)
  WHERE (k + cnt) % 400 = 0 AND cnt > -1;
"""


def kubectl(*arguments, stdin=None):
    result = subprocess.run(["kubectl", *arguments], input=stdin, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"kubectl {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout


def spec(**changes):
    resources = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}
    value = {
        "parallelism": 1,
        "program": {"sql": SQL},
        "checkpoint": {"interval": "1s", "tolerableFailures": 10},
        "restartStrategy": {"fixedDelay": {"attempts": 1000000, "delay": "0ms"}},
        "deletion": {"policy": "Discard"},
        "storage": {"persistentVolumeClaim": {"template": {"size": "1Gi"}}},
        "workers": {"slots": 1, "resources": resources},
        "coordinator": {"resources": resources},
    }
    return {**value, **changes}


def apply(value):
    job = {"apiVersion": "streamjob.dev/v1alpha1", "kind": "StreamJob",
           "metadata": {"name": JOB, "namespace": NAMESPACE}, "spec": value}
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(job))


def stamp(text):
    """Seconds since the epoch of a time with nanoseconds."""
    whole, fraction = text[:19], text[19:].rstrip("Z").lstrip(".")
    return datetime.fromisoformat(whole + "+00:00").timestamp() + (float("0." + fraction) if fraction else 0)


class Watch:
    """Follows job, pods and the sink's rows; keeps what was seen first when."""

    def __init__(self):
        self.lock = threading.Lock()
        self.rows = []
        self.seen = {}
        self.job = {}
        self.pods = {}
        self.following = set()
        threading.Thread(target=self.stream, args=(["pods", "-l", f"streamjob.dev/job={JOB}"], self.pod), daemon=True).start()
        threading.Thread(target=self.stream, args=(["streamjobs"], self.on_job), daemon=True).start()

    def mark(self, what):
        with self.lock:
            self.seen.setdefault(what, time.time())

    def stream(self, what, use):
        while True:
            command = ["kubectl", "get", "-n", NAMESPACE, *what, "--watch", "--output-watch-events", "-o", "json"]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            decoder, buffer = json.JSONDecoder(), ""
            while chunk := os.read(process.stdout.fileno(), 1 << 16):
                buffer += chunk.decode()
                while buffer := buffer.lstrip():
                    try:
                        event, end = decoder.raw_decode(buffer)
                    except ValueError:
                        break
                    buffer = buffer[end:]
                    use(event["type"], event["object"])
            process.wait()

    def pod(self, kind, pod):
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        short = re.sub(r"^bench-(c\d+).*$", r"coordinator \1", re.sub(r"^bench-(w\d+-\d+)$", r"worker \1", name)) + " " + uid[:4]
        self.mark(f"{short} created")
        if pod["spec"].get("nodeName"):
            self.mark(f"{short} scheduled")
        for status in pod.get("status", {}).get("containerStatuses", []):
            if started := status["state"].get("running"):
                self.mark(f"{short} container started" + (" again" if status["restartCount"] else ""))
                if "worker" in short:
                    self.follow(name, uid, status["restartCount"])
            if status.get("ready"):
                self.mark(f"{short} ready")
            del started
        with self.lock:
            if kind == "DELETED":
                self.pods.pop(name, None)
            else:
                self.pods[name] = pod
        if kind == "DELETED":
            self.mark(f"{short} gone")

    def follow(self, name, uid, restarts):
        with self.lock:
            if (uid, restarts) in self.following:
                return
            self.following.add((uid, restarts))
        threading.Thread(target=self.logs, args=(name, uid), daemon=True).start()

    def logs(self, name, uid):
        for _ in range(3):
            command = ["kubectl", "logs", "-f", "--timestamps", "-n", NAMESPACE, name]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            rows = 0
            for line in process.stdout:
                moment, _, text = line.partition(" ")
                if text.startswith("sink"):
                    rows += 1
                    with self.lock:
                        self.rows.append(stamp(moment))
            process.wait()
            if rows:
                return
            time.sleep(0.05)

    def on_job(self, _, job):
        status = job.get("status", {})
        operation = status.get("operation")
        if operation:
            self.mark(f"operation {operation['kind']} r{operation.get('toRevision')} {operation['step']}")
        self.mark(f"state {status.get('state') or 'none'} (generation {job['metadata']['generation']}, revision {status.get('currentRevision')})")
        with self.lock:
            self.job = job

    def since(self, begun):
        with self.lock:
            return sorted(moment for moment in self.rows if moment >= begun)


def ready(job):
    status = job.get("status", {})
    condition = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {})
    generation = job.get("metadata", {}).get("generation")
    return (condition.get("status") == "True" and condition.get("observedGeneration") == generation
            and status.get("observedGeneration") == generation and not status.get("operation"))


def until(what, holds):
    end = time.time() + PATIENCE
    while not holds():
        if time.time() > end:
            sys.exit(f"waited {PATIENCE} s for: {what}")
        time.sleep(0.05)


class Measurements:
    def __init__(self, watch):
        self.watch = watch
        self.table = []

    def timeline(self, begun, until_moment):
        with self.watch.lock:
            events = sorted((moment, what) for what, moment in self.watch.seen.items() if begun <= moment <= until_moment)
        for moment, what in events:
            print(f"    {moment - begun:7.3f} s  {what}")

    def pause(self, what, target, act, changes):
        """The largest gap between rows after an act, once the job is ready again."""
        generation = self.watch.job["metadata"]["generation"]
        begun = time.time()
        act()
        if changes:
            until(f"{what}: the change is seen", lambda: self.watch.job["metadata"]["generation"] > generation)
        # Rows have to stop and to come again; what is quicker than this look is a short pause.
        time.sleep(2)
        until(f"{what}: ready", lambda: ready(self.watch.job))
        until(f"{what}: rows", lambda: len([m for m in self.watch.since(begun) if m > time.time() - 1]) > 5)
        time.sleep(2)
        rows = self.watch.since(begun - 1)
        gap, from_row, to_row = max(((b - a, a, b) for a, b in zip(rows, rows[1:])), default=(float("nan"), begun, begun))
        print(f"\n{what}: pause {gap:.2f} s, from {from_row - begun:.2f} to {to_row - begun:.2f} s after the act")
        self.timeline(begun, to_row + 1)
        self.table.append((what, gap, target))


def requests():
    """Requests that the API server has answered, by verb and resource."""
    total = {}
    for line in kubectl("get", "--raw", "/metrics").splitlines():
        if match := re.match(r"apiserver_request_total\{(.*)\} ([0-9.e+]+)$", line):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match[1]))
            key = f"{labels.get('verb', '')} {labels.get('resource', '')}.{labels.get('group', '')}".rstrip(".")
            total[key] = total.get(key, 0) + float(match[2])
    return total


def audited():
    """The operator's own requests, from the log of a cluster of e2e/cluster; empty elsewhere."""
    total = {}
    try:
        with open(os.path.join(os.environ.get("STREAMJOB_CLUSTER_RUN", ""), "audit", "log"), encoding="utf-8") as log:
            for line in log:
                if "serviceaccount:streamjob-system:" in line:
                    event = json.loads(line)
                    reference = event.get("objectRef", {})
                    key = f"{event['verb']} {reference.get('resource', '')}"
                    total[key] = total.get(key, 0) + 1
    except OSError:
        pass
    return total


def at_rest(seconds):
    """Requests a minute while nothing happens, by kind: of everybody, and of the operator alone."""
    before = requests(), audited()
    time.sleep(seconds)
    after = requests(), audited()
    return [{key: (count - old.get(key, 0)) * 60 / seconds for key, count in new.items() if count > old.get(key, 0)}
            for old, new in zip(before, after)]


def operator_memory():
    """Resident memory of the operator's processes in MiB, if they are on this machine."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", encoding="utf-8") as file:
                if not file.read().startswith("/usr/bin/streamjob-operator"):
                    continue
            with open(f"/proc/{entry}/cgroup", encoding="utf-8") as file:
                if f"streamjob.{os.environ.get('STREAMJOB_CLUSTER')}." not in file.read():
                    continue
            with open(f"/proc/{entry}/status", encoding="utf-8") as file:
                found += [int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS:")]
        except OSError:
            continue
    return found


def worker_process(watch):
    """Process ids of a worker, as this machine sees them."""
    with watch.lock:
        uids = [pod["metadata"]["uid"] for name, pod in watch.pods.items() if "-w" in name]
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cgroup", encoding="utf-8") as file:
                group = file.read()
            with open(f"/proc/{entry}/cmdline", encoding="utf-8") as file:
                if "streamjob-engine" in file.read() and any(f"pod{uid}" in group for uid in uids):
                    found.append(int(entry))
        except OSError:
            continue
    return found


def main():
    parser = argparse.ArgumentParser(description="Measures pauses and costs on a real cluster")
    parser.add_argument("--rest", type=int, default=60, help="seconds of rest for counting requests")
    arguments = parser.parse_args()
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait")
    kubectl("create", "namespace", NAMESPACE)
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    without = at_rest(arguments.rest)

    watch = Watch()
    measured = Measurements(watch)
    time.sleep(1)
    begun = time.time()
    apply(spec())
    until("first row", lambda: watch.since(begun))
    first = watch.since(begun)[0]
    until("ready", lambda: ready(watch.job))
    print(f"\napply to first row: {first - begun:.2f} s; ready after {time.time() - begun:.2f} s")
    measured.timeline(begun, first + 2)
    measured.table.append(("apply to first row", first - begun, 5))
    time.sleep(8)

    def delete(part):
        def act():
            with watch.lock:
                name = next(name for name in watch.pods if f"{JOB}-{part}" in name)
            kubectl("delete", "pod", "-n", NAMESPACE, name, "--force", "--grace-period=0")
        return act

    changed = SQL.replace("cnt > -1", "cnt > -2")
    measured.pause("worker pod killed", 4, delete("w"), False)
    if processes := worker_process(watch):
        measured.pause("worker process killed", 2, lambda: [os.kill(pid, 9) for pid in processes], False)
    measured.pause("coordinator pod killed", 3, delete("c"), False)
    measured.pause("upgrade through a savepoint", 2, lambda: apply(spec(program={"sql": changed})), True)
    last = {"mode": "LastCheckpoint"}
    measured.pause("upgrade from the last checkpoint", 2, lambda: apply(spec(upgrade=last)), True)
    measured.pause("parallelism 1 to 2", 3, lambda: apply(spec(upgrade=last, parallelism=2)), True)
    measured.pause("parallelism 2 to 1", 3, lambda: apply(spec()), True)
    apply(spec(state="Suspended"))
    until("suspended", lambda: watch.job.get("status", {}).get("state") == "Suspended")
    time.sleep(2)
    begun = time.time()
    apply(spec())
    until("rows after the resume", lambda: watch.since(begun))
    first = watch.since(begun)[0]
    print(f"\nresume to first row: {first - begun:.2f} s")
    measured.timeline(begun, first + 1)
    measured.table.append(("resume to first row", first - begun, 5))
    until("ready", lambda: ready(watch.job))
    time.sleep(10)

    with_job = at_rest(arguments.rest)
    more = {key: count - without[0].get(key, 0) for key, count in with_job[0].items()}
    print("\nAPI requests a minute, more than without the job (watches that happen to be renewed then among them):")
    for key, count in sorted(more.items(), key=lambda item: -item[1]):
        if count >= 0.5:
            print(f"    {count:6.1f}  {key}")
    print("of the operator alone, its lease included:")
    for key, count in sorted(with_job[1].items(), key=lambda item: -item[1]):
        print(f"    {count:6.1f}  {key}, without the job {without[1].get(key, 0):.1f}")
    print("\n| what | measured | target |\n|---|---|---|")
    for what, seconds, target in measured.table:
        print(f"| {what} | {seconds:.2f} s | < {target} s |")
    changes = sum(count for key, count in more.items() if count > 0 and not key.startswith("WATCH"))
    print(f"| API requests a minute and job at rest, without watches | {changes:.1f} | < 10 |")
    for memory in operator_memory():
        print(f"| operator, resident | {memory:.1f} MiB | < 40 MiB |")
    kubectl("delete", "namespace", NAMESPACE, "--wait=false")


if __name__ == "__main__":
    main()
