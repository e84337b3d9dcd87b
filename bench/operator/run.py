"""Measures the operator with many StreamJobs on a real API server, whose nodes and engines are fakes. Run by run.sh.

Phases: the operator starts with nothing to do; all jobs are applied at once and become Ready; rest; the operator is started
again with all of them there; rest. Fails when a limit is not kept, or when not every job becomes Ready.

Memory and CPU are what the kernel says of the operator's process, requests what the API server's audit log says of its account.
"""

import argparse
import glob
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from datetime import datetime, timezone

from kube import Cluster, Refused

HERE = os.path.dirname(os.path.abspath(__file__))
NAMESPACES = 10
OWN, ACCOUNT = "streamjob-operator", "streamjob-operator"
WITNESS = "http://127.0.0.1:8090/"
METRICS = "127.0.0.1:18080"
MEMORY_LIMIT_MIB = 150
REQUESTS_LIMIT = 10
TICKS = os.sysconf("SC_CLK_TCK")

SQL = """\
CREATE TABLE clicks (user_id BIGINT, page STRING, at TIMESTAMP(3), WATERMARK FOR at AS at - INTERVAL '5' SECOND) WITH (
  'connector' = 'datagen', 'rows-per-second' = '1000'
);
CREATE TABLE counts (user_id BIGINT, opened TIMESTAMP(3), clicks BIGINT) WITH (
  'connector' = 'filesystem', 'path' = '/tmp/counts', 'format' = 'json'
);
INSERT INTO counts
  SELECT user_id, window_start, COUNT(*) FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(at), INTERVAL '1' MINUTE))
  GROUP BY user_id, window_start, window_end;
"""


def job(name, interval):
    return {
        "apiVersion": "streamjob.dev/v1alpha1", "kind": "StreamJob", "metadata": {"name": name},
        "spec": {
            "parallelism": 2,
            "program": {"sql": SQL},
            # As fake.py says that they are.
            "checkpoint": {"interval": f"{interval:g}s", "timeout": "10m", "minPause": "0s", "maxConcurrent": 1,
                           "tolerableFailures": 0, "retained": 1, "retention": "RetainOnCancellation"},
            "restartStrategy": {"fixedDelay": {"attempts": 10, "delay": "1s"}},
            "storage": {"persistentVolumeClaim": {"template": {"size": "1Gi"}}},
            "workers": {"slots": 2, "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}},
        },
    }


class Operator:
    """The process under test, and what the kernel says of it."""

    def __init__(self, binary, kubeconfig, log):
        self.log = open(log, "ab")
        self.arguments = [
            binary, "run", "--namespace", OWN, "--metrics-addr", METRICS, "--health-addr", "127.0.0.1:18081",
            "--engine-image", "docker.io/streamjob/engine:bench"]
        self.environment = {**os.environ, "KUBECONFIG": kubeconfig}
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            self.arguments, env=self.environment, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def memory(self, field):
        """MiB: VmRSS now, VmHWM at most so far."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(rf"^{field}:\s+(\d+) kB", status.read(), re.M)[1]) / 1024

    def cpu(self):
        """Seconds since its start."""
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def reconciles(self):
        """Passes over jobs that were carried out; nothing before it serves."""
        try:
            with urllib.request.urlopen(f"http://{METRICS}/metrics", timeout=10) as answer:
                text = answer.read().decode()
        except OSError:
            return 0
        counts = re.findall(r'^streamjob_operator_reconcile_total\{(.*)\} (\S+)$', text, re.M)
        return sum(float(value) for labels, value in counts if "StreamJob" in labels and '"waiting"' not in labels)

    def check(self):
        if self.process.poll() is not None:
            raise SystemExit(f"the operator ended with code {self.process.returncode}, see {self.log.name}")


class Requests:
    """Of the operator's account, in the audit log of e2e/cluster."""

    USER = f'"username":"system:serviceaccount:{OWN}:{ACCOUNT}"'

    def __init__(self, run):
        self.pattern = os.path.join(run, "audit", "log*")

    def between(self, begin, end):
        """Lines of `verb resource`, one a request. A watch counts when it begins."""
        found = []
        for name in glob.glob(self.pattern):
            if os.path.getmtime(name) < begin:
                continue
            with open(name) as lines:
                for line in lines:
                    if self.USER not in line:
                        continue
                    try:
                        event = json.loads(line)
                    except ValueError:
                        # The last line is being written.
                        continue
                    if event["stage"] != ("ResponseStarted" if event["verb"] == "watch" else "ResponseComplete"):
                        continue
                    received = datetime.strptime(event["requestReceivedTimestamp"], "%Y-%m-%dT%H:%M:%S.%fZ")
                    if begin <= received.replace(tzinfo=timezone.utc).timestamp() < end:
                        about = event.get("objectRef", {})
                        what = "/".join(filter(None, (about.get("resource"), about.get("subresource"))))
                        found.append(f"{event['verb']} {what}")
        return found


def witness():
    with urllib.request.urlopen(WITNESS, timeout=30) as answer:
        return json.load(answer)


def wait_until(what, seconds, check, operator, every=0.5):
    end = time.time() + seconds
    while not (result := check()):
        operator.check()
        if time.time() > end:
            raise SystemExit(f"{what}: not within {seconds} s")
        time.sleep(every)
    return result


def prepare(cluster, operator_binary, directory):
    """Resource definitions, namespaces, and an account for the operator. What that account is allowed is not measured here."""
    definitions = subprocess.check_output([operator_binary, "crds"])
    subprocess.run(["kubectl", "apply", "--server-side", "-f", "-"], input=definitions, check=True,
                   stdout=subprocess.DEVNULL)
    subprocess.run(["kubectl", "wait", "--for=condition=Established", "crd/streamjobs.streamjob.dev",
                    "crd/savepoints.streamjob.dev"], check=True, stdout=subprocess.DEVNULL)
    client = cluster.client()
    for name in [OWN] + [f"bench-{index}" for index in range(NAMESPACES)]:
        client.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    client.call("POST", f"/api/v1/namespaces/{OWN}/serviceaccounts", {"metadata": {"name": ACCOUNT}})
    client.call("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {
        "metadata": {"name": ACCOUNT},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "namespace": OWN, "name": ACCOUNT}],
    })
    token = client.call("POST", f"/api/v1/namespaces/{OWN}/serviceaccounts/{ACCOUNT}/token", {
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 86400}})
    kubeconfig = os.path.join(directory, "operator.kubeconfig")
    with open(os.open(kubeconfig, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
        json.dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": cluster.cluster}],
            "users": [{"name": "bench", "user": {"token": token["status"]["token"]}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        }, file)
    return kubeconfig


def apply_all(cluster, names, interval):
    """Unix time at which each job had been taken by the API server."""
    applied, left, failures = {}, list(reversed(names)), []

    def work():
        client = cluster.client()
        while left:
            try:
                namespace, name = left.pop()
            except IndexError:
                return
            try:
                client.call("POST", f"/apis/streamjob.dev/v1alpha1/namespaces/{namespace}/streamjobs", job(name, interval))
                applied[f"{namespace}/{name}"] = time.time()
            except (OSError, Refused) as error:
                failures.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"{len(failures)} jobs were not taken, the first: {failures[0]}")
    return applied


def quantile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * part))]


def first_and_last_pod(seen, applied):
    """For each job, seconds from apply to its first pod, and to its last one."""
    first, last = {}, {}
    for pod, at in seen.items():
        # <job>-c1-..., <job>-w1-0
        owner = re.sub(r"-[cw]\d+-.*$", "", pod)
        if owner in applied:
            first[owner] = min(first.get(owner, at), at)
            last[owner] = max(last.get(owner, at), at)
    return [first[name] - applied[name] for name in first], [last[name] - applied[name] for name in last]


def rest(operator, requests, seconds, jobs):
    begin, cpu = time.time(), operator.cpu()
    peak, reconciles = 0.0, operator.reconciles()
    while time.time() < begin + seconds:
        operator.check()
        peak = max(peak, operator.memory("VmRSS"))
        time.sleep(1)
    end, cpu = time.time(), operator.cpu() - cpu
    reconciles = operator.reconciles() - reconciles
    # The audit log is written a moment later.
    time.sleep(2)
    sent = requests.between(begin, end)
    minutes = (end - begin) / 60
    return {
        "cpu_percent": 100 * cpu / (end - begin), "memory": peak, "requests_a_minute": len(sent) / minutes,
        "a_job": len(sent) / minutes / jobs, "kinds": kinds(sent), "reconciles": reconciles / (end - begin),
    }


def kinds(sent):
    counts = {}
    for one in sent:
        counts[one] = counts.get(one, 0) + 1
    return sorted(counts.items(), key=lambda item: -item[1])


def show(rows):
    width = max(len(row[0]) for row in rows)
    for what, value, limit in rows:
        print(f"{what:<{width}}  {value:>12}  {limit}".rstrip())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operator", required=True, help="the program")
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--rest", type=float, default=60, help="seconds for which it is watched at rest")
    parser.add_argument("--settle", type=float, default=20, help="seconds before that")
    parser.add_argument("--checkpoint-interval", type=float, default=10, help="seconds, of every job")
    parser.add_argument("--details", action="store_true", help="also shows which requests were made")
    parser.add_argument("--json", help="file for the figures")
    options = parser.parse_args()
    run = os.environ.get("STREAMJOB_CLUSTER_RUN") or sys.exit("needs a cluster of e2e/cluster; see run.sh")
    directory = tempfile.mkdtemp(prefix="streamjob-bench-operator.")
    cluster, requests = Cluster(), Requests(run)
    kubeconfig = prepare(cluster, options.operator, directory)
    fake = subprocess.Popen(
        [sys.executable, "-B", os.path.join(HERE, "fake.py"), "--checkpoint-interval", str(options.checkpoint_interval)],
        stdout=subprocess.PIPE)
    operator = Operator(options.operator, kubeconfig, os.path.join(directory, "operator.log"))
    print(f"log of the operator: {operator.log.name}", file=sys.stderr)
    try:
        if fake.stdout.readline() != b"ready\n":
            raise SystemExit("the fake nodes did not start")
        figures = measure(options, cluster, operator, requests)
    finally:
        operator.stop()
        fake.kill()
        fake.wait()
    return report(figures, options)


def measure(options, cluster, operator, requests):
    names = [(f"bench-{index % NAMESPACES}", f"job-{index}") for index in range(options.jobs)]
    everyone = {f"{namespace}/{name}" for namespace, name in names}

    def all_ready():
        return everyone <= witness()["ready"].keys()

    figures = {}
    progress("the operator starts with nothing to do")
    operator.start()
    time.sleep(5)
    operator.check()
    figures["memory_without_jobs"] = operator.memory("VmRSS")

    progress(f"{options.jobs} jobs are applied")
    begin, reconciles, cpu = time.time(), operator.reconciles(), operator.cpu()
    applied = apply_all(cluster, names, options.checkpoint_interval)
    figures["apply_seconds"] = time.time() - begin
    try:
        # Machines differ; whoever is stuck is stuck for ever.
        wait_until("all jobs Ready", 120 + options.jobs, all_ready, operator)
    except SystemExit:
        now = witness()
        states = {}
        for state in now["states"].values():
            states[state] = states.get(state, 0) + 1
        print(f"ready {len(now['ready'])}, pods created {len(now['created'])}, states {states}", file=sys.stderr)
        raise
    seen = witness()
    end = max(seen["ready"].values())
    first, last = first_and_last_pod(seen["created"], applied)
    figures["first_pod"] = [quantile(first, 0.5), quantile(first, 0.99), max(first)]
    figures["all_pods"] = [quantile(last, 0.5), quantile(last, 0.99), max(last)]
    ready = [seen["ready"][name] - applied[name] for name in applied]
    figures["ready"] = [quantile(ready, 0.5), quantile(ready, 0.99), max(ready)]
    passes = operator.reconciles() - reconciles
    if passes < options.jobs:
        raise SystemExit(f"{options.jobs} jobs are Ready after {passes:.0f} reconciles: the metric is not what it was")
    figures["create_reconciles"] = passes / (time.time() - begin)
    figures["create_cpu"] = operator.cpu() - cpu
    sent = requests.between(begin, end)
    figures["create_requests_a_job"] = len(sent) / options.jobs
    figures["create_kinds"] = kinds(sent)
    figures["create_peak"] = operator.memory("VmHWM")

    progress("rest")
    time.sleep(options.settle)
    figures["rest"] = rest(operator, requests, options.rest, options.jobs)

    progress("the operator is started again")
    operator.stop()
    begin = time.time()
    operator.start()
    # Every job once. Not asked more often: each answer has all series of all jobs, and costs what is measured.
    wait_until("a pass over every job", 300, lambda: operator.reconciles() >= options.jobs, operator, every=0.5)
    figures["start_seconds"] = time.time() - begin
    figures["start_reconciles"] = operator.reconciles() / (time.time() - begin)
    time.sleep(options.settle)
    figures["start_cpu"] = operator.cpu()
    figures["start_peak"] = operator.memory("VmHWM")
    sent = requests.between(begin, time.time())
    figures["start_requests"] = len(sent)
    figures["start_kinds"] = kinds(sent)
    progress("rest")
    figures["rest_again"] = rest(operator, requests, options.rest, options.jobs)
    figures["peak"] = max(figures["create_peak"], operator.memory("VmHWM"))
    if not all_ready():
        raise SystemExit("not all jobs are Ready any more")
    return figures


def progress(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def report(figures, options):
    at_rest = max(figures["rest"]["a_job"], figures["rest_again"]["a_job"])
    seconds = lambda three: " ".join(f"{value:.1f}" for value in three)  # noqa: E731
    rows = [
        ("jobs", str(options.jobs), ""),
        ("memory without jobs, MiB", f"{figures['memory_without_jobs']:.0f}", ""),
        ("memory while all are created, peak, MiB", f"{figures['create_peak']:.0f}", f"<= {MEMORY_LIMIT_MIB}"),
        ("memory at rest, MiB", f"{figures['rest']['memory']:.0f}", ""),
        ("memory when started again, peak, MiB", f"{figures['start_peak']:.0f}", f"<= {MEMORY_LIMIT_MIB}"),
        ("memory at rest after that, MiB", f"{figures['rest_again']['memory']:.0f}", ""),
        ("apply to first pod created, s (p50 p99 max)", seconds(figures["first_pod"]), ""),
        ("apply to all pods created, s (p50 p99 max)", seconds(figures["all_pods"]), ""),
        ("apply to Ready, s (p50 p99 max)", seconds(figures["ready"]), ""),
        ("all jobs taken by the API server within, s", f"{figures['apply_seconds']:.1f}", ""),
        ("reconciles a second while created", f"{figures['create_reconciles']:.0f}", ""),
        ("API requests a job until Ready", f"{figures['create_requests_a_job']:.1f}", ""),
        ("CPU until all are Ready, s", f"{figures['create_cpu']:.1f}", ""),
        ("started again: every job looked at after, s", f"{figures['start_seconds']:.1f}", ""),
        ("started again: reconciles a second", f"{figures['start_reconciles']:.0f}", ""),
        (f"started again: CPU until {options.settle:.0f} s later, s", f"{figures['start_cpu']:.1f}", ""),
        ("started again: API requests", str(figures["start_requests"]), ""),
        ("at rest: CPU, % of a core", f"{figures['rest_again']['cpu_percent']:.1f}", ""),
        ("at rest: reconciles a second", f"{figures['rest_again']['reconciles']:.1f}", ""),
        ("at rest: API requests a minute", f"{figures['rest_again']['requests_a_minute']:.0f}", ""),
        ("at rest: API requests a job and minute", f"{at_rest:.2f}", f"< {REQUESTS_LIMIT}"),
    ]
    show(rows)
    if options.details:
        for phase, counts in (("until Ready", figures["create_kinds"]), ("started again", figures["start_kinds"]),
                              ("at rest", figures["rest_again"]["kinds"])):
            print(f"\nrequests {phase}: " + ", ".join(f"{count} {what}" for what, count in counts))
    if options.json:
        with open(options.json, "w") as file:
            json.dump(figures, file, indent=1)
    broken = []
    if figures["peak"] > MEMORY_LIMIT_MIB:
        broken.append(f"memory: {figures['peak']:.0f} MiB, not within {MEMORY_LIMIT_MIB}")
    if at_rest >= REQUESTS_LIMIT:
        broken.append(f"API requests at rest: {at_rest:.2f} a job and minute, not below {REQUESTS_LIMIT}")
    for text in broken:
        print(f"limit not kept: {text}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
