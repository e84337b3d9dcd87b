//! The processes of a job: their arguments, how they are started and watched, what their end means.

use crate::error::CliError;
use crate::logs;
use crate::outcome::ExitReport;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpSocket;
use tokio::process::{ChildStdin, Command};
use tokio::sync::{mpsc, oneshot};

/// After how many milliseconds the allocator gives freed memory back to the operating system. Every checkpoint needs as
/// much as the one before it: fetched anew each time, its pages cost as much as what is done with them.
const PURGE_DELAY: &str = "MIMALLOC_PURGE_DELAY";
const PURGE_DELAY_MS: &str = "10000";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    Coordinator,
    Worker(usize),
}

impl Role {
    pub fn name(self) -> String {
        match self {
            Role::Coordinator => "coordinator".into(),
            Role::Worker(index) => format!("worker-{index}"),
        }
    }
}

/// What all processes of a run have in common.
#[derive(Debug, Clone)]
pub struct Blueprint {
    pub executable: PathBuf,
    pub job_file: PathBuf,
    pub checkpoints: PathBuf,
    pub logs: PathBuf,
    pub job_id: String,
    pub max_parallelism: u32,
    pub revision: u64,
    pub slots: u32,
    pub workers: usize,
    pub control: SocketAddr,
    pub rest: SocketAddr,
    /// Rows that workers print come through [`Happening::Rows`] instead of going to standard output by themselves.
    pub capture_rows: bool,
}

impl Blueprint {
    pub fn log(&self, role: Role) -> PathBuf {
        self.logs.join(format!("{}.log", role.name()))
    }

    /// Paths, addresses and ids; values of secrets are in the environment, which children inherit.
    pub fn arguments(&self, role: Role) -> Vec<OsString> {
        let verb = match role {
            Role::Coordinator => "coordinator",
            Role::Worker(_) => "worker",
        };
        let mut arguments: Vec<OsString> = vec![verb.into(), "--job".into(), self.job_file.clone().into()];
        arguments.extend(["--checkpoints".into(), self.checkpoints.clone().into()]);
        let mut option = |name: &str, value: String| arguments.extend([name.into(), value.into()]);
        option("--job-id", self.job_id.clone());
        option("--max-parallelism", self.max_parallelism.to_string());
        match role {
            Role::Coordinator => {
                option("--revision", self.revision.to_string());
                option("--control", self.control.to_string());
                option("--rest", self.rest.to_string());
            }
            Role::Worker(_) => {
                option("--coordinator", self.control.to_string());
                option("--slots", self.slots.to_string());
            }
        }
        arguments.push("--exit-with-stdin".into());
        arguments
    }
}

/// A loopback address that the system gives to nobody else as long as this is there, also while nobody listens on it: a
/// process that is started again finds it free. Who knows it can listen there.
pub struct Reserved {
    pub address: SocketAddr,
    _held: TcpSocket,
}

impl Reserved {
    pub fn new() -> Result<Reserved, CliError> {
        let hold = || {
            let socket = TcpSocket::new_v4()?;
            // Sockets that only hold an address share it with those that ask for it by its number.
            socket.set_reuseaddr(true)?;
            socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
            Ok(Reserved { address: socket.local_addr()?, _held: socket })
        };
        hold().map_err(|error: std::io::Error| {
            CliError::Process(format!("cannot find a free port on {}: {error}", Ipv4Addr::LOCALHOST))
        })
    }
}

#[derive(Debug)]
pub enum Happening {
    Exited { role: Role, pid: u32, end: End },
    Rows(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub status: ExitStatus,
    /// What a coordinator said at its end.
    pub report: ExitReport,
}

impl End {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// For people.
    pub fn describe(&self) -> String {
        match (self.status.signal(), self.status.code()) {
            (Some(signal), _) => {
                let name = nix::sys::signal::Signal::try_from(signal).map_or("a signal", |signal| signal.as_str());
                format!("was killed by {name}")
            }
            (None, Some(code)) => format!("ended with exit code {code}"),
            (None, None) => "ended".into(),
        }
    }
}

/// A running child. Dropping it kills the process.
pub struct Process {
    pub pid: u32,
    kill: Option<oneshot::Sender<()>>,
    /// Ends when this process does, however it ends; that tells the child to exit.
    _lifeline: Option<ChildStdin>,
}

impl Process {
    /// SIGKILL; its end is reported as any other.
    pub fn kill(&mut self) {
        if let Some(kill) = self.kill.take() {
            // The process may have ended already.
            let _ = kill.send(());
        }
    }
}

/// Starts a process and reports its end, and the rows it prints, to `happenings`.
pub fn spawn(blueprint: &Blueprint, role: Role, happenings: &mpsc::Sender<Happening>) -> Result<Process, CliError> {
    let failed = |error: std::io::Error| CliError::Spawn { process: role.name(), reason: error.to_string() };
    let log = blueprint.log(role);
    logs::turn_over_if_large(&log);
    let stdout = match role {
        Role::Worker(_) if !blueprint.capture_rows => Stdio::inherit(),
        _ => Stdio::piped(),
    };
    let mut child = Command::new(&blueprint.executable)
        .args(blueprint.arguments(role))
        .env(PURGE_DELAY, std::env::var_os(PURGE_DELAY).unwrap_or_else(|| PURGE_DELAY_MS.into()))
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(logs::append_to(&log).map_err(failed)?)
        // Ctrl-C on the terminal is for the supervisor, which takes a last checkpoint first.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let pid = child.id().unwrap_or(0);
    let lifeline = child.stdin.take();
    let output = child.stdout.take();
    let (kill, killed) = oneshot::channel::<()>();
    let happenings = happenings.clone();
    tokio::spawn(async move {
        let reader = output.map(|output| tokio::spawn(read_output(output, role, happenings.clone())));
        let status = tokio::select! {
            status = child.wait() => status,
            Ok(()) = killed => {
                // It may have ended meanwhile.
                let _ = child.start_kill();
                child.wait().await
            }
        };
        let report = match reader {
            // Somebody else may hold the pipe open.
            Some(reader) => tokio::time::timeout(Duration::from_secs(1), reader).await.ok().and_then(Result::ok),
            None => None,
        };
        // A process whose end cannot be learned counts as crashed.
        let status = status.unwrap_or_else(|_| ExitStatus::from_raw(1 << 8));
        let end = End { status, report: report.flatten().unwrap_or_default() };
        let _ = happenings.send(Happening::Exited { role, pid, end }).await;
    });
    Ok(Process { pid, kill: Some(kill), _lifeline: lifeline })
}

/// A worker's output are rows; a coordinator's last line is its report.
async fn read_output(
    mut output: impl AsyncRead + Unpin,
    role: Role,
    happenings: mpsc::Sender<Happening>,
) -> Option<ExitReport> {
    let mut pending = Vec::new();
    let mut chunk = vec![0u8; 64 << 10];
    loop {
        let length = output.read(&mut chunk).await.unwrap_or(0);
        pending.extend_from_slice(&chunk[..length]);
        if let Role::Worker(_) = role {
            // Whole lines only, so that rows of several workers do not mix.
            let end = if length == 0 {
                pending.len()
            } else {
                pending.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1)
            };
            let lines: Vec<u8> = pending.drain(..end).collect();
            if !lines.is_empty() {
                let _ = happenings.send(Happening::Rows(lines)).await;
            }
        }
        if length == 0 {
            break;
        }
    }
    let text = String::from_utf8_lossy(&pending);
    text.lines().rev().find_map(|line| serde_json::from_str(line).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blueprint() -> Blueprint {
        Blueprint {
            executable: "/bin/sh".into(),
            job_file: "state/job.yaml".into(),
            checkpoints: "state/checkpoints".into(),
            logs: "state/logs".into(),
            job_id: "ab".repeat(16),
            max_parallelism: 128,
            revision: 3,
            slots: 2,
            workers: 2,
            control: "127.0.0.1:4000".parse().unwrap(),
            rest: "127.0.0.1:4001".parse().unwrap(),
            capture_rows: false,
        }
    }

    fn parsed(role: Role) -> crate::arguments::Verb {
        use clap::Parser;
        let mut arguments: Vec<OsString> = vec!["streamjob-engine".into()];
        arguments.extend(blueprint().arguments(role));
        crate::arguments::Cli::try_parse_from(arguments).unwrap().verb
    }

    #[test]
    fn a_coordinator_understands_its_arguments() {
        let crate::arguments::Verb::Coordinator(found) = parsed(Role::Coordinator) else { panic!("not a coordinator") };
        assert_eq!(found.revision, 3);
        assert_eq!(found.control, "127.0.0.1:4000".parse().unwrap());
        assert_eq!(found.rest, "127.0.0.1:4001".parse().unwrap());
        assert_eq!(found.process.job, PathBuf::from("state/job.yaml"));
        assert_eq!(found.process.checkpoints, PathBuf::from("state/checkpoints"));
        assert_eq!(found.process.job_id, "ab".repeat(16));
        assert_eq!(found.process.max_parallelism, 128);
        assert!(found.process.exit_with_stdin);
    }

    #[test]
    fn a_worker_understands_its_arguments() {
        let crate::arguments::Verb::Worker(found) = parsed(Role::Worker(1)) else { panic!("not a worker") };
        assert_eq!(found.coordinator, "127.0.0.1:4000");
        assert_eq!(found.slots, 2);
        assert_eq!(found.process.max_parallelism, 128);
    }

    #[test]
    fn every_process_has_a_log_of_its_own() {
        let blueprint = blueprint();
        assert_eq!(blueprint.log(Role::Coordinator), PathBuf::from("state/logs/coordinator.log"));
        assert_eq!(blueprint.log(Role::Worker(3)), PathBuf::from("state/logs/worker-3.log"));
    }

    #[test]
    fn ends_for_people() {
        let end = |raw| End { status: ExitStatus::from_raw(raw), report: ExitReport::default() }.describe();
        assert_eq!(end(9), "was killed by SIGKILL");
        assert_eq!(end(3 << 8), "ended with exit code 3");
    }

    #[test]
    fn a_reserved_address_is_listened_on_by_one_process_after_the_other() {
        use std::net::TcpListener;
        let (one, other) = (Reserved::new().unwrap(), Reserved::new().unwrap());
        assert!(one.address.ip().is_loopback());
        assert_ne!(one.address, other.address);
        for _ in 0..2 {
            // Nobody listens there now, and still it is taken.
            let not_shared = TcpSocket::new_v4().unwrap().bind(one.address).unwrap_err();
            assert_eq!(not_shared.kind(), std::io::ErrorKind::AddrInUse);
            let _listening = TcpListener::bind(one.address).unwrap();
            let twice = TcpListener::bind(one.address).unwrap_err();
            assert_eq!(twice.kind(), std::io::ErrorKind::AddrInUse);
        }
    }

    #[tokio::test]
    async fn the_last_line_of_a_coordinator_is_its_report() {
        let (happenings, _received) = mpsc::channel(1);
        let output: &[u8] = b"something else\n{\"reason\":\"why\",\"checkpoint\":4}\n";
        let report = read_output(output, Role::Coordinator, happenings).await;
        assert_eq!(report, Some(ExitReport { reason: Some("why".into()), checkpoint: Some(4) }));
    }

    #[tokio::test]
    async fn rows_of_a_worker_come_in_whole_lines() {
        let (happenings, mut received) = mpsc::channel(10);
        let (mut writer, reader) = tokio::io::duplex(64);
        let reading = tokio::spawn(read_output(reader, Role::Worker(0), happenings));
        use tokio::io::AsyncWriteExt;
        for piece in ["+I[1]\n+I", "[2]\n", "+I[3]"] {
            writer.write_all(piece.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        drop(writer);
        reading.await.unwrap();
        let mut all = Vec::new();
        let mut pieces = Vec::new();
        while let Some(Happening::Rows(rows)) = received.recv().await {
            all.extend_from_slice(&rows);
            pieces.push(rows);
        }
        assert_eq!(all, b"+I[1]\n+I[2]\n+I[3]");
        let (last, earlier) = pieces.split_last().unwrap();
        assert!(!last.is_empty());
        assert!(earlier.iter().all(|piece| piece.ends_with(b"\n")));
    }
}
