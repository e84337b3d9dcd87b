"""Apache Flink's own processes (JobManager and TaskManager, each a JVM) on loopback, and the jar of this directory.

Responsible for configuration, start and stop. What is run on the cluster, and all timing, is the caller's.
"""

import json
import os
import shutil
import socket
import subprocess
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
# What Flink's stock configuration opens for Java 17.
OPENED = [
    "--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED",
    "--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
] + [
    f"--add-opens=java.base/{package}=ALL-UNNAMED"
    for package in ("java.lang", "java.net", "java.io", "java.nio", "java.nio.file", "sun.nio.ch", "java.lang.reflect",
                    "java.text", "java.time", "java.util", "java.util.concurrent", "java.util.concurrent.atomic",
                    "java.util.concurrent.locks")
]
# MiB. The heap of the TaskManager is several times what 5 million keys need, so that collections do not decide.
JOBMANAGER_HEAP = 1024
TASK_HEAP, FRAMEWORK_HEAP, FRAMEWORK_DIRECT, NETWORK, MANAGED, METASPACE, OVERHEAD = 6144, 128, 128, 256, 128, 256, 512
LOGGING = """
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = Console
appender.console.name = Console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss,SSS} %-5p %c{1} - %m%n
"""


def cache():
    return os.environ.get("STREAMJOB_CACHE") or os.path.expanduser("~/.cache/streamjob")


def distribution():
    """Directory of Flink's jars; fetched on first use."""
    script = os.path.join(ROOT, "e2e", "parts", "flink.sh")
    return subprocess.run([script], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def build():
    """Builds the jar of the jobs if a source is newer; directory with it and what it needs besides Flink's jars."""
    out = os.path.join(cache(), "flink-bench")
    jar = os.path.join(out, "flink-bench-1.jar")
    sources = [os.path.join(HERE, "pom.xml")]
    for directory, _, names in os.walk(os.path.join(HERE, "src")):
        sources += [os.path.join(directory, name) for name in names]
    if not os.path.exists(jar) or os.path.getmtime(jar) < max(map(os.path.getmtime, sources)):
        if shutil.which("mvn") is None:
            raise SystemExit("the jobs for Apache Flink need Maven and a JDK 17 to build: install them (Debian: maven)")
        command = ["mvn", "-q", "-B", "-Dstyle.color=never", "-f", HERE, f"-Dbuild.dir={out}", "clean", "package"]
        subprocess.run(command, check=True)
    return out


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """One JobManager and one TaskManager with two slots; the adaptive scheduler, so that jobs rescale in place."""

    def __init__(self, directory):
        self.directory = directory
        self.processes = {}
        self.lib, self.jobs = distribution(), build()
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.jar = os.path.join(self.jobs, "flink-bench-1.jar")

    def start(self):
        configuration = os.path.join(self.directory, "conf")
        for name in ("conf", "tmp", "logs", "checkpoints"):
            os.makedirs(os.path.join(self.directory, name), exist_ok=True)
        with open(os.path.join(configuration, "config.yaml"), "w") as file:
            file.write(self.configuration())
        with open(os.path.join(configuration, "log4j.properties"), "w") as file:
            file.write(LOGGING)
        self.java("jobmanager", [f"-Xms{JOBMANAGER_HEAP}m", f"-Xmx{JOBMANAGER_HEAP}m"],
                  "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint")
        heap, direct = TASK_HEAP + FRAMEWORK_HEAP, FRAMEWORK_DIRECT + NETWORK
        self.java("taskmanager", [f"-Xms{heap}m", f"-Xmx{heap}m", f"-XX:MaxDirectMemorySize={direct}m"],
                  "org.apache.flink.runtime.taskexecutor.TaskManagerRunner")

    def configuration(self):
        settings = {
            "jobmanager.rpc.address": "127.0.0.1",
            "jobmanager.rpc.port": free_port(),
            "jobmanager.bind-host": "127.0.0.1",
            "jobmanager.scheduler": "adaptive",
            # A rescale goes ahead as soon as a checkpoint is there; waiting times are not what is compared.
            "jobmanager.adaptive-scheduler.executing.cooldown-after-rescaling": "0 s",
            "jobmanager.adaptive-scheduler.executing.resource-stabilization-timeout": "0 s",
            "jobmanager.adaptive-scheduler.submission.resource-stabilization-timeout": "0 s",
            "rest.address": "127.0.0.1",
            "rest.bind-address": "127.0.0.1",
            "rest.port": self.port,
            # The state that the interface shows is as fresh as it is polled.
            "web.refresh-interval": 5,
            "metrics.fetcher.update-interval": 50,
            "taskmanager.host": "127.0.0.1",
            "taskmanager.bind-host": "127.0.0.1",
            "taskmanager.numberOfTaskSlots": 2,
            "taskmanager.cpu.cores": 2,
            "taskmanager.memory.task.heap.size": f"{TASK_HEAP}m",
            "taskmanager.memory.task.off-heap.size": "0m",
            "taskmanager.memory.framework.heap.size": f"{FRAMEWORK_HEAP}m",
            "taskmanager.memory.framework.off-heap.size": f"{FRAMEWORK_DIRECT}m",
            "taskmanager.memory.network.min": f"{NETWORK}m",
            "taskmanager.memory.network.max": f"{NETWORK}m",
            "taskmanager.memory.managed.size": f"{MANAGED}m",
            "taskmanager.memory.jvm-metaspace.size": f"{METASPACE}m",
            "taskmanager.memory.jvm-overhead.min": f"{OVERHEAD}m",
            "taskmanager.memory.jvm-overhead.max": f"{OVERHEAD}m",
            "state.backend.type": "hashmap",
            "execution.checkpointing.dir": f"file://{self.directory}/checkpoints",
            "io.tmp.dirs": f"{self.directory}/tmp",
            "web.tmpdir": f"{self.directory}/tmp",
        }
        return "".join(f"{key}: {value}\n" for key, value in settings.items())

    def java(self, name, options, main_class):
        log = os.path.join(self.directory, "logs", name)
        command = ["java", "-XX:+UseG1GC", *options, *OPENED,
                   f"-Dlog4j.configurationFile=file:{self.directory}/conf/log4j.properties",
                   "-cp", f"{self.lib}/*:{self.jobs}/lib/*", main_class,
                   "--configDir", os.path.join(self.directory, "conf")]
        with open(log, "w") as output:
            self.processes[name] = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    def upload(self):
        """The identity of the uploaded jar. The interface takes the form that browsers send."""
        boundary = "----streamjob-bench"
        with open(self.jar, "rb") as file:
            content = file.read()
        head = (f"--{boundary}\r\nContent-Disposition: form-data; name=\"jarfile\"; filename=\"bench.jar\"\r\n"
                "Content-Type: application/x-java-archive\r\n\r\n").encode()
        request = urllib.request.Request(
            self.address + "/jars/upload", data=head + content + f"\r\n--{boundary}--\r\n".encode(), method="POST",
            headers={"Content-Type": f"multipart/form-data; boundary={boundary}"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)["filename"].rsplit("/", 1)[1]

    def check(self):
        """Exits with the end of the log of a process that has ended."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                with open(os.path.join(self.directory, "logs", name)) as file:
                    raise SystemExit(f"Flink's {name} ended with code {process.returncode}:\n{file.read()[-4000:]}")

    def stop(self):
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
