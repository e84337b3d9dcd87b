//! Keeps the processes of a running job alive, shows how it goes, and ends with it.
//!
//! Decides nothing about the job's state: a process that died is started again, and coordinator and journal see to the
//! rest.

use crate::client::Client;
use crate::data_dir::DataDir;
use crate::display::Display;
use crate::error::CliError;
use crate::format::{duration_ms, number_of};
use crate::logs::{self, Tail};
use crate::outcome::{self, Outcome};
use crate::processes::{self, Blueprint, End, Happening, Process, Role};
use crate::progress::{self, Look, Progress};
use crate::status::{self, Status};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

const TICK: Duration = Duration::from_millis(100);
/// Between two looks at the job.
const LOOK: Duration = Duration::from_millis(400);
/// For the last checkpoint after Ctrl-C.
const SUSPEND_LIMIT: Duration = Duration::from_secs(30);
/// A local process that takes longer to answer is stopped or gone.
const ANSWER: Duration = Duration::from_secs(2);
/// For workers to end after the coordinator has.
const FAREWELL: Duration = Duration::from_secs(5);
/// A process that lived for less has died quickly.
const QUICK: Duration = Duration::from_secs(5);
const SHORTEST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// A coordinator that fails to start so often in a row, before it ever worked, will not start.
const HOPELESS: u32 = 5;

/// One process that shall run.
struct Slot {
    process: Option<Process>,
    started: Instant,
    /// Quick deaths in a row.
    deaths: u32,
    /// When it is started again; `None` while it runs, or when it is not to.
    due: Option<Instant>,
}

enum Stopping {
    No,
    /// Ctrl-C: the coordinator was asked, or will be as soon as it answers.
    Suspending {
        since: Instant,
        asked: bool,
    },
}

struct Supervisor {
    blueprint: Blueprint,
    /// The coordinator's REST API.
    client: Client,
    directory: DataDir,
    display: Display,
    slots: BTreeMap<u32, (Role, Slot)>,
    progress: Progress,
    coordinator_log: Tail,
    stopping: Stopping,
    /// The coordinator has answered at least once.
    worked: bool,
    happenings: mpsc::Sender<Happening>,
}

/// How supervising goes on.
enum Next {
    Continue,
    End(Outcome, End),
    Killed,
}

/// Runs the job to its end and returns the exit code of `run`.
pub async fn supervise(blueprint: Blueprint, directory: DataDir, display: Display) -> Result<ExitCode, CliError> {
    let (happenings, mut happened) = mpsc::channel(256);
    let mut interrupts = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .into_iter()
        .map(signal)
        .collect::<Result<Vec<Signal>, _>>()
        .map_err(|error| CliError::Process(format!("cannot listen to signals: {error}")))?;
    let client = Client::local(blueprint.rest)?.with_timeout(ANSWER)?;
    let coordinator_log = Tail::from_end(blueprint.log(Role::Coordinator));
    let mut supervisor = Supervisor {
        blueprint,
        client,
        directory,
        display,
        slots: BTreeMap::new(),
        progress: Progress::default(),
        coordinator_log,
        stopping: Stopping::No,
        worked: false,
        happenings,
    };
    let next = supervisor.drive(&mut happened, &mut interrupts).await;
    supervisor.end(next, &mut happened).await
}

async fn any_signal(signals: &mut [Signal]) {
    let [interrupt, terminate, hangup] = signals else { return std::future::pending().await };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

impl Supervisor {
    /// Until the job or this process has to end.
    async fn drive(
        &mut self,
        happened: &mut mpsc::Receiver<Happening>,
        interrupts: &mut [Signal],
    ) -> Result<Next, CliError> {
        self.start_all()?;
        let (looks, mut looked) = mpsc::channel::<Result<Status, String>>(1);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut next_look = Instant::now();
        let mut looking = false;
        loop {
            let next = tokio::select! {
                Some(happening) = happened.recv() => self.on_happening(happening)?,
                Some(look) = looked.recv() => {
                    looking = false;
                    self.on_look(look);
                    Next::Continue
                }
                () = any_signal(interrupts) => self.on_interrupt(),
                _ = tick.tick() => {
                    if !looking && Instant::now() >= next_look {
                        next_look = Instant::now() + LOOK;
                        looking = true;
                        let (looks, client) = (looks.clone(), self.client.clone());
                        tokio::spawn(async move {
                            let _ = looks.send(status::fetch(&client).await).await;
                        });
                    }
                    self.on_tick().await?
                }
            };
            if !matches!(next, Next::Continue) {
                return Ok(next);
            }
        }
    }

    fn start_all(&mut self) -> Result<(), CliError> {
        let workers = (0..self.blueprint.workers).map(Role::Worker);
        for role in std::iter::once(Role::Coordinator).chain(workers) {
            let process = processes::spawn(&self.blueprint, role, &self.happenings)?;
            let slot = Slot { process: Some(process), started: Instant::now(), deaths: 0, due: None };
            self.slots.insert(key(role), (role, slot));
        }
        self.write_run_file()
    }

    /// For people and scripts that want to know where the job runs.
    fn write_run_file(&self) -> Result<(), CliError> {
        let pid = |slot: &Slot| slot.process.as_ref().map(|process| process.pid);
        let pids_of_workers: Vec<_> =
            self.slots.values().filter(|(role, _)| *role != Role::Coordinator).map(|(_, slot)| pid(slot)).collect();
        let run = serde_json::json!({
            "pid": std::process::id(),
            "job_id": self.blueprint.job_id,
            "rest": self.client.base(),
            "coordinator": self.slots.get(&key(Role::Coordinator)).and_then(|(_, slot)| pid(slot)),
            "workers": pids_of_workers,
        });
        self.directory.replace("run.json", &format!("{run:#}\n"))
    }

    fn on_happening(&mut self, happening: Happening) -> Result<Next, CliError> {
        match happening {
            Happening::Rows(rows) => self.display.rows(&rows),
            Happening::Exited { role, pid, end } => return self.on_exit(role, pid, end),
        }
        Ok(Next::Continue)
    }

    fn on_exit(&mut self, role: Role, pid: u32, end: End) -> Result<Next, CliError> {
        self.show_events();
        let outcome = end.code().and_then(Outcome::of_code);
        if role == Role::Coordinator
            && let Some(outcome) = outcome
        {
            return Ok(Next::End(outcome, end));
        }
        let worked = self.worked;
        let Some((_, slot)) = self.slots.get_mut(&key(role)) else { return Ok(Next::Continue) };
        if slot.process.as_ref().is_some_and(|process| process.pid != pid) {
            return Ok(Next::Continue);
        }
        slot.process = None;
        if role != Role::Coordinator && end.code() == Some(0) {
            // Told to by the coordinator, which is about to end as well.
            return Ok(Next::Continue);
        }
        slot.deaths = if slot.started.elapsed() < QUICK { slot.deaths + 1 } else { 1 };
        let pause = backoff(slot.deaths);
        slot.due = Some(Instant::now() + pause);
        let log = self.blueprint.log(role);
        let cause = match end.code() {
            Some(_) => end.report.reason.clone().or_else(|| logs::last_words(&log)),
            None => None,
        };
        let hopeless = role == Role::Coordinator && !worked && slot.deaths >= HOPELESS && end.code().is_some();
        let said = cause.as_ref().map_or_else(String::new, |cause| format!(": {cause}"));
        if hopeless {
            return Err(CliError::NoCoordinator { reason: format!("it {}{said}", end.describe()), log });
        }
        let again =
            if pause.is_zero() { "at once".into() } else { format!("in {}", duration_ms(pause.as_millis() as u64)) };
        self.display.event(&format!(
            "{} (process {pid}) {}{said}; starting it again {again}",
            role.name(),
            end.describe()
        ));
        Ok(Next::Continue)
    }

    fn on_look(&mut self, look: Result<Status, String>) {
        // While the coordinator is down there is nothing to see; that it died was said already.
        let Ok(status) = look else { return };
        self.worked = true;
        let at_ms = self.display.elapsed().as_millis() as u64;
        self.progress.update(Look { status, at_ms, unix_ms: unix_ms() });
    }

    fn on_interrupt(&mut self) -> Next {
        if let Stopping::Suspending { .. } = self.stopping {
            self.display.event("stopped without a last checkpoint");
            return Next::Killed;
        }
        self.display.event("taking a last checkpoint; press Ctrl-C again to stop at once");
        self.stopping = Stopping::Suspending { since: Instant::now(), asked: false };
        Next::Continue
    }

    async fn on_tick(&mut self) -> Result<Next, CliError> {
        self.show_events();
        self.display.progress(&self.progress);
        self.directory.lock_if_free();
        self.start_due()?;
        if let Stopping::Suspending { since, asked } = &mut self.stopping {
            if since.elapsed() >= SUSPEND_LIMIT {
                self.display
                    .event(&format!("no last checkpoint within {} s, stopped without it", SUSPEND_LIMIT.as_secs()));
                return Ok(Next::Killed);
            }
            if !*asked {
                // A coordinator that is just starting is asked again.
                *asked = status::suspend(&self.client).await.is_ok();
            }
        }
        Ok(Next::Continue)
    }

    fn start_due(&mut self) -> Result<(), CliError> {
        let now = Instant::now();
        let due: Vec<Role> = self
            .slots
            .values()
            .filter(|(_, slot)| slot.due.is_some_and(|due| due <= now))
            .map(|(role, _)| *role)
            .collect();
        for role in &due {
            self.start(*role)?;
        }
        if due.contains(&Role::Coordinator) {
            // A successor has not heard of the request, and needs workers that its predecessor sent home.
            if let Stopping::Suspending { asked, .. } = &mut self.stopping {
                *asked = false;
            }
            let gone: Vec<Role> = self
                .slots
                .values()
                .filter(|(_, slot)| slot.process.is_none() && slot.due.is_none())
                .map(|(role, _)| *role)
                .collect();
            for role in gone {
                self.start(role)?;
            }
        }
        if due.is_empty() { Ok(()) } else { self.write_run_file() }
    }

    fn start(&mut self, role: Role) -> Result<(), CliError> {
        let process = processes::spawn(&self.blueprint, role, &self.happenings)?;
        if let Some((_, slot)) = self.slots.get_mut(&key(role)) {
            slot.process = Some(process);
            slot.started = Instant::now();
            slot.due = None;
        }
        Ok(())
    }

    fn show_events(&mut self) {
        for line in self.coordinator_log.lines() {
            if let Some(event) = logs::notable(&line) {
                self.display.event(&event);
            }
        }
    }

    /// Lets the other processes end, and says how the job did.
    async fn end(
        mut self,
        next: Result<Next, CliError>,
        happened: &mut mpsc::Receiver<Happening>,
    ) -> Result<ExitCode, CliError> {
        let patience = if matches!(next, Ok(Next::End(..))) { FAREWELL } else { Duration::ZERO };
        self.wait_for_all(happened, patience).await;
        self.show_events();
        self.display.erase();
        // Scripts must not find processes that are gone; a run that took over may have written it anew.
        let own = format!("\"pid\": {},", std::process::id());
        if std::fs::read_to_string(self.directory.run_file()).is_ok_and(|text| text.contains(&own)) {
            let _ = std::fs::remove_file(self.directory.run_file());
        }
        match next? {
            Next::End(outcome, end) => {
                let text = self.last_words(outcome, &end);
                self.display.event(&text);
                Ok(ExitCode::from(outcome.code_of_run()))
            }
            Next::Killed | Next::Continue => {
                let text = format!("resumes from {} when it is run again", self.resumes_from(None));
                self.display.event(&text);
                Ok(ExitCode::from(outcome::INTERRUPTED))
            }
        }
    }

    async fn wait_for_all(&mut self, happened: &mut mpsc::Receiver<Happening>, patience: Duration) {
        let mut deadline = Instant::now() + patience;
        let mut killed = false;
        self.slots.retain(|_, (role, slot)| *role != Role::Coordinator || patience.is_zero() || slot.process.is_none());
        self.slots.retain(|_, (_, slot)| slot.process.is_some());
        while !self.slots.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, happened.recv()).await {
                Ok(Some(Happening::Rows(rows))) => self.display.rows(&rows),
                Ok(Some(Happening::Exited { role, .. })) => {
                    self.slots.remove(&key(role));
                }
                Ok(None) => return,
                Err(_) if killed => return,
                Err(_) => {
                    killed = true;
                    deadline = Instant::now() + FAREWELL;
                    for (_, slot) in self.slots.values_mut() {
                        if let Some(process) = &mut slot.process {
                            process.kill();
                        }
                    }
                }
            }
        }
        // Rows that were read before their process ended.
        while let Ok(Happening::Rows(rows)) = happened.try_recv() {
            self.display.rows(&rows);
        }
    }

    fn resumes_from(&self, checkpoint: Option<u64>) -> String {
        match checkpoint.or_else(|| self.progress.last().and_then(|look| look.status.checkpoints.last_id)) {
            Some(checkpoint) => format!("checkpoint {checkpoint}"),
            None => "its last checkpoint, or from the beginning if it has none,".into(),
        }
    }

    fn last_words(&self, outcome: Outcome, end: &End) -> String {
        let elapsed = duration_ms(self.display.elapsed().as_millis() as u64);
        let reason = end.report.reason.clone().unwrap_or_else(|| "no reason was given".into());
        match outcome {
            Outcome::Finished => {
                let numbers = self.progress.last().map_or_else(String::new, |look| {
                    let checkpoints = progress::checkpoints(&look.status.checkpoints, None);
                    format!(": {checkpoints}, {}", number_of(look.status.restarts, "restart"))
                });
                format!("finished after {elapsed}{numbers}")
            }
            Outcome::Suspended => format!(
                "suspended; resumes from {} when it is run again with the data directory {}",
                self.resumes_from(end.report.checkpoint),
                self.directory.path().display()
            ),
            Outcome::Failed => format!("failed after {elapsed}: {reason}"),
            Outcome::Canceled => format!("canceled after {elapsed}"),
            Outcome::Fenced => format!("fenced, another run has taken the job over: {reason}"),
            Outcome::Unrecoverable => {
                format!(
                    "cannot go on without losing state: {reason}; what is there is listed by `inspect {}`",
                    self.directory.path().display()
                )
            }
        }
    }
}

/// Coordinator first, then workers.
fn key(role: Role) -> u32 {
    match role {
        Role::Coordinator => 0,
        Role::Worker(index) => 1 + index as u32,
    }
}

/// The first time at once, then ever later.
fn backoff(deaths: u32) -> Duration {
    match deaths {
        0 | 1 => Duration::ZERO,
        n => SHORTEST_BACKOFF.saturating_mul(1 << (n - 2).min(10)).min(LONGEST_BACKOFF),
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_before_a_process_is_started_again() {
        let table = [(1, 0), (2, 100), (3, 200), (4, 400), (7, 3_200), (8, 5_000), (1_000, 5_000)];
        for (deaths, expected) in table {
            assert_eq!(backoff(deaths), Duration::from_millis(expected), "{deaths}");
        }
    }
}
