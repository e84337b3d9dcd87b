//! Runs the real binary in a directory of its own, kills its processes, and reads what it wrote.
//!
//! Knows nothing about single jobs; the expected results are in `expected`.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpSocket;

/// Marks every process of one run in its environment, so that children are found after their parent's death too.
const MARK: &str = "STREAMJOB_TEST_RUN";
/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(10);

/// Root of the source tree.
pub fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the source tree")
}

/// Waits until `condition` yields something; panics with `what` when it does not come.
pub fn eventually<T>(what: &str, patience: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} for: {what}");
        std::thread::sleep(POLL);
    }
}

/// A loopback address that nobody else is given as long as this is there. Processes of the test listen there, one after
/// the other.
pub struct Reserved {
    pub address: String,
    _held: TcpSocket,
}

impl Reserved {
    pub fn new() -> Reserved {
        let held = TcpSocket::new_v4().expect("a socket");
        held.set_reuseaddr(true).expect("a socket that shares its address");
        held.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        Reserved { address: held.local_addr().expect("its address").to_string(), _held: held }
    }
}

/// A working directory in which jobs run; kept and named when the test fails.
pub struct Place {
    root: Option<TempDir>,
}

impl Place {
    pub fn new() -> Place {
        Place { root: Some(TempDir::with_prefix("streamjob-e2e-").expect("a temporary directory")) }
    }

    pub fn root(&self) -> &Path {
        self.root.as_ref().expect("present until dropped").path()
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.root().join(relative)
    }

    /// Writes a job file and prepares its start with the data directory `state`.
    pub fn job(&self, job: &Job) -> Launch {
        let file = self.path(&format!("{}.yaml", job.name()));
        fs::write(&file, job.text()).expect("writing the job file");
        Launch::new(self.root(), &file)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(root) = self.root.take()
        {
            eprintln!("kept for a look: {}", root.keep().display());
        }
    }
}

/// A job file, an example of the tree or made of parts, with fields that a test changes.
#[derive(Clone)]
pub struct Job {
    text: String,
}

impl Job {
    /// `examples/<name>.yaml`.
    pub fn example(name: &str) -> Job {
        Job::file(&format!("examples/{name}.yaml"))
    }

    /// A job file of the tree.
    pub fn file(path: &str) -> Job {
        let file = tree().join(path);
        Job { text: fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())) }
    }

    /// A job with this SQL text and nothing else set but `parallelism: 1`.
    pub fn sql(name: &str, sql: &str) -> Job {
        let mut text = format!(
            "apiVersion: streamjob.dev/v1alpha1\nkind: StreamJob\nmetadata:\n  name: {name}\nspec:\n  parallelism: 1\n  program:\n    sql: |\n"
        );
        for line in sql.lines() {
            text.push_str(&format!("      {line}\n"));
        }
        Job { text }
    }

    /// Replaces a piece of text that occurs exactly once.
    pub fn replace(mut self, old: &str, new: &str) -> Job {
        assert_eq!(self.text.matches(old).count(), 1, "'{old}' in\n{}", self.text);
        self.text = self.text.replace(old, new);
        self
    }

    /// Sets a field of `spec` that has a value on its own line or a block below it.
    pub fn spec(mut self, field: &str, value: &str) -> Job {
        let head = format!("  {field}:");
        let mut lines: Vec<String> = Vec::new();
        let mut skipping = false;
        for line in self.text.lines() {
            if skipping && line.starts_with("    ") {
                continue;
            }
            skipping = line.starts_with(&head);
            if !skipping {
                lines.push(line.to_owned());
            }
        }
        let at = lines.iter().position(|line| line == "spec:").expect("a spec") + 1;
        lines.insert(at, if value.starts_with('\n') { format!("{head}{value}") } else { format!("{head} {value}") });
        self.text = lines.join("\n") + "\n";
        self
    }

    pub fn parallelism(self, parallelism: u32) -> Job {
        self.spec("parallelism", &parallelism.to_string())
    }

    /// Fields of `spec.checkpoint`, in YAML's flow form: `interval: 200ms, retained: 3`.
    pub fn checkpoint(self, fields: &str) -> Job {
        self.spec("checkpoint", &format!("{{ {fields} }}"))
    }

    pub fn without_checkpoints(self) -> Job {
        self.spec("checkpoint", "{}")
    }

    /// Restarts quickly and often enough for any test.
    pub fn restarting(self) -> Job {
        self.spec("restartStrategy", "{ fixedDelay: { attempts: 1000000, delay: 50ms } }")
            .spec("heartbeat", "{ interval: 200ms, timeout: 10s }")
    }

    /// Sets the value of an entry of `spec.env`.
    pub fn env(mut self, name: &str, value: impl std::fmt::Display) -> Job {
        let entry = format!("    - name: {name}\n      value: ");
        let start =
            self.text.find(&entry).unwrap_or_else(|| panic!("no env entry {name} in\n{}", self.text)) + entry.len();
        let end = start + self.text[start..].find('\n').expect("a line end");
        self.text.replace_range(start..end, &format!("\"{value}\""));
        self
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn name(&self) -> &str {
        let line = self.text.lines().find(|line| line.starts_with("  name:"));
        line.and_then(|line| line.split(':').nth(1)).map_or("job", str::trim)
    }
}

/// A run of the binary that is about to start.
pub struct Launch {
    root: PathBuf,
    log: PathBuf,
    mark: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Launch {
    fn new(root: &Path, file: &Path) -> Launch {
        let file = file.display().to_string();
        Launch::verb(root, &["run", &file, "--data-dir", "state"])
    }

    /// `inspect --json` of the data directory `state`.
    pub fn inspect(root: &Path) -> Launch {
        Launch::verb(root, &["inspect", "state", "--json"])
    }

    /// Any verb of the binary.
    pub fn verb(root: &Path, arguments: &[&str]) -> Launch {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Launch {
            root: root.to_owned(),
            log: root.join(format!("run-{number}.log")),
            mark: format!("{}-{number}", std::process::id()),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            environment: Vec::new(),
        }
    }

    pub fn argument(mut self, argument: &str) -> Launch {
        self.arguments.push(argument.to_owned());
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Launch {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn start(self) -> Engine {
        let log = File::create(&self.log).expect("a log file");
        let child = Command::new(env!("CARGO_BIN_EXE_streamjob-engine"))
            .args(&self.arguments)
            .current_dir(&self.root)
            .env(MARK, &self.mark)
            .env("RUST_BACKTRACE", "1")
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file"))
            .stderr(log)
            .spawn()
            .expect("starting streamjob-engine");
        Engine { child, mark: self.mark, root: self.root, log: self.log, status: None }
    }

    /// Runs to the end, which must be a success.
    pub fn succeed(self) -> String {
        self.start().succeed()
    }

    /// Runs to the end, which must be a failure with one of this text in what it prints.
    pub fn fail(self, expected: &[&str]) -> String {
        self.start().fail(expected)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Supervisor,
    Coordinator,
    Worker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub role: Role,
}

/// A running engine: the supervisor and the processes that it started.
pub struct Engine {
    child: Child,
    mark: String,
    root: PathBuf,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Engine {
    /// Every living process of this run, the supervisor first.
    pub fn processes(&self) -> Vec<Process> {
        let mut processes = processes_with(&self.mark);
        processes.sort_by_key(|process| (process.role != Role::Supervisor, process.pid));
        processes
    }

    pub fn of_role(&self, role: Role) -> Vec<Process> {
        self.processes().into_iter().filter(|process| process.role == role).collect()
    }

    pub fn workers(&self, at_least: usize) -> Vec<Process> {
        self.await_role(Role::Worker, at_least)
    }

    pub fn coordinator(&self) -> Process {
        self.await_role(Role::Coordinator, 1)[0]
    }

    fn await_role(&self, role: Role, at_least: usize) -> Vec<Process> {
        self.eventually(&format!("{at_least} processes in the role {role:?}"), || {
            Some(self.of_role(role)).filter(|processes| processes.len() >= at_least)
        })
    }

    /// As [`eventually`], with the end of the log in the panic.
    pub fn eventually<T>(&self, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = condition() {
                return value;
            }
            assert!(Instant::now() < deadline, "waited {PATIENCE:?} for: {what}\n{}", self.log_end());
            std::thread::sleep(POLL);
        }
    }

    /// What the run showed, and the rows of `print` tables.
    pub fn log(&self) -> String {
        text(&self.log)
    }

    /// What the coordinator and the workers of the data directory wrote down, of earlier runs too.
    pub fn process_logs(&self) -> String {
        files_below(&self.root.join("state/logs")).iter().map(|file| text(file)).collect()
    }

    /// Address of the coordinator's REST and metrics, as the run wrote it down.
    pub fn rest(&self) -> String {
        self.eventually("run.json", || {
            let run: serde_json::Value = serde_json::from_str(&text(&self.root.join("state/run.json"))).ok()?;
            Some(run["rest"].as_str()?.strip_prefix("http://")?.to_owned())
        })
    }

    pub fn log_end(&self) -> String {
        let mut ends = String::new();
        for file in std::iter::once(self.log.clone()).chain(files_below(&self.root.join("state/logs"))) {
            let text = text(&file);
            let lines: Vec<&str> = text.lines().collect();
            ends +=
                &format!("--- end of {}:\n{}\n", file.display(), lines[lines.len().saturating_sub(25)..].join("\n"));
        }
        ends
    }

    pub fn has_ended(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("waiting for the supervisor");
        }
        self.status.is_some()
    }

    /// SIGKILL to one process.
    pub fn kill(&self, process: Process) {
        signal(process.pid, Signal::SIGKILL);
    }

    /// SIGKILL to every process at once, and waits until none is left.
    pub fn kill_all(&mut self) {
        for process in self.processes() {
            signal(process.pid, Signal::SIGKILL);
        }
        self.await_end();
    }

    /// SIGINT to the supervisor, as Ctrl-C.
    pub fn interrupt(&self) {
        signal(self.child.id() as i32, Signal::SIGINT);
    }

    /// SIGTERM, as Kubernetes ends a pod.
    pub fn terminate(&self) {
        signal(self.child.id() as i32, Signal::SIGTERM);
    }

    /// Stops every process without its knowing.
    pub fn freeze(&self) {
        // Twice: a supervisor may have started a process between the listing and its own stop.
        for _ in 0..2 {
            for process in self.processes() {
                signal(process.pid, Signal::SIGSTOP);
            }
        }
    }

    pub fn thaw(&self) {
        for process in self.processes() {
            signal(process.pid, Signal::SIGCONT);
        }
    }

    /// Waits for the end of the supervisor and of all that it started.
    pub fn await_end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        while !self.has_ended() {
            assert!(Instant::now() < deadline, "still running after {PATIENCE:?}\n{}", self.log_end());
            std::thread::sleep(POLL);
        }
        let mark = self.mark.clone();
        self.eventually("the end of all processes of the run", || processes_with(&mark).is_empty().then_some(()));
        self.status.expect("has ended")
    }

    /// Waits for the end, whatever it is; what was printed if it was a good one.
    pub fn ended_well(mut self) -> Option<String> {
        let status = self.await_end();
        status.success().then(|| self.log())
    }

    /// Waits for the end, whatever it is.
    pub fn ended(self) {
        self.ended_well();
    }

    pub fn succeed(mut self) -> String {
        let status = self.await_end();
        assert!(status.success(), "{status}\n{}", self.log_end());
        self.log()
    }

    pub fn fail(mut self, expected: &[&str]) -> String {
        let status = self.await_end();
        let log = self.log();
        assert!(!status.success(), "a failure was expected\n{}", self.log_end());
        assert!(!log.contains("panicked at"), "an error message was expected, not a panic\n{}", self.log_end());
        for text in expected {
            assert!(log.contains(text), "'{text}' is not in the output\n{}", self.log_end());
        }
        log
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for process in self.processes() {
            signal(process.pid, Signal::SIGKILL);
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log_end());
        }
    }
}

/// Body of the answer to a GET request, if it is a good one.
pub fn http_get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

fn text(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}

fn signal(pid: i32, signal: Signal) {
    // The process may have ended since it was listed.
    let _ = kill(Pid::from_raw(pid), signal);
}

fn processes_with(mark: &str) -> Vec<Process> {
    let entry = format!("{MARK}={mark}");
    let Ok(directory) = fs::read_dir("/proc") else { return Vec::new() };
    directory
        .flatten()
        .filter_map(|process| process.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| {
            // A zombie has an empty environment: it is over.
            let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
            if !environment.split(|&byte| byte == 0).any(|variable| variable == entry.as_bytes()) {
                return None;
            }
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let role = match arguments.split(|&byte| byte == 0).nth(1) {
                Some(b"coordinator") => Role::Coordinator,
                Some(b"worker") => Role::Worker,
                _ => Role::Supervisor,
            };
            Some(Process { pid, role })
        })
        .collect()
}

/// What `inspect --json` says about the data directory `state`.
pub fn inspection(root: &Path) -> serde_json::Value {
    parsed(Launch::inspect(root))
}

/// Runs an inspection that was prepared with [`Launch::inspect`].
pub fn parsed(launch: Launch) -> serde_json::Value {
    let text = launch.succeed();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Ids of the checkpoints that are complete and not discarded, oldest first.
pub fn complete_checkpoints(inspection: &serde_json::Value) -> Vec<u64> {
    let checkpoints = inspection["checkpoints"].as_array().expect("a list of checkpoints");
    checkpoints.iter().filter_map(|checkpoint| checkpoint["id"].as_u64()).collect()
}

/// Ids of the checkpoints whose manifests lie below a directory, complete or about to be.
pub fn checkpoints(directory: &Path) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    for file in files_below(directory) {
        if file.file_name().is_some_and(|name| name == "_metadata")
            && let Some(name) = file.parent().and_then(Path::file_name).and_then(|name| name.to_str())
            && let Some(id) = name.strip_prefix("chk-").and_then(|id| id.parse().ok())
        {
            found.insert(id);
        }
    }
    found
}

pub fn latest_checkpoint(directory: &Path) -> u64 {
    checkpoints(directory).last().copied().unwrap_or(0)
}

/// Every regular file below a directory, sorted. Files that vanish while this looks are left out.
pub fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => pending.push(entry.path()),
                Ok(kind) if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files.sort();
    files
}

/// Lines of the finished files of a file sink, sorted: equal outputs are equal here.
pub fn visible_rows(directory: &Path) -> Vec<String> {
    let mut rows: Vec<String> = visible_files(directory)
        .iter()
        .flat_map(|file| {
            let text = fs::read_to_string(file).unwrap_or_default();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    rows.sort();
    rows
}

/// Finished files of a file sink: no component of their path starts with a dot or an underscore.
pub fn visible_files(directory: &Path) -> Vec<PathBuf> {
    files_below(directory)
        .into_iter()
        .filter(|file| {
            file.strip_prefix(directory).is_ok_and(|relative| {
                relative.components().all(|part| !part.as_os_str().to_string_lossy().starts_with(['.', '_']))
            })
        })
        .collect()
}

/// Numbers that a seed fixes: splitmix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % bound
    }

    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from)
    }
}
