//! Verbs about a job that runs: each asks its coordinator, waits for the end of what it asked for, and prints it.

mod checkpoints;
mod lists;
mod requests;

pub use checkpoints::checkpoints;
pub use lists::list;
pub use requests::{cancel, rescale, savepoint, stop};

use crate::arguments::{OutputFormat, TargetArguments};
use crate::client::{Client, RestError};
use crate::error::CliError;
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use streamjob_api::rest::jobs::JobIdsWithStatus;

/// Between two questions.
const POLL: Duration = Duration::from_millis(100);
/// A coordinator that died is started again within this time.
const ABSENCE: Duration = Duration::from_secs(30);

/// A running job and its coordinator.
struct Target {
    client: Client,
    /// The data directory, if the job was found by it.
    directory: Option<PathBuf>,
    job_id: String,
}

/// Runs a verb to its end, which writes what is to be seen itself.
pub fn run<F: Future<Output = Result<(), CliError>>>(verb: F) -> Result<ExitCode, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Process(format!("cannot start its event loop: {error}")))?;
    runtime.block_on(verb).map(|()| ExitCode::SUCCESS)
}

/// Address of the job that the arguments name.
fn client(arguments: &TargetArguments) -> Result<(Client, Option<PathBuf>), CliError> {
    if let Some(address) = &arguments.address {
        return Ok((Client::at(address)?, None));
    }
    let directory = match &arguments.data_dir {
        Some(directory) => directory.clone(),
        None => only_running_below(Path::new(".streamjob"))?,
    };
    Ok((Client::at(&address_in(&directory)?)?, Some(directory)))
}

/// The one data directory in `parent` with a running job.
fn only_running_below(parent: &Path) -> Result<PathBuf, CliError> {
    let not_one = |reason: String| CliError::NoTarget { reason };
    let entries = std::fs::read_dir(parent).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let mut running: Vec<PathBuf> =
        entries.into_iter().map(|entry| entry.path()).filter(|path| path.join("run.json").is_file()).collect();
    running.sort();
    match running.as_slice() {
        [single] => Ok(single.clone()),
        [] => Err(not_one(format!("no job runs in a directory below {}", parent.display()))),
        several => {
            let names: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
            Err(not_one(format!("several jobs run: {}", names.join(", "))))
        }
    }
}

/// From `run.json`.
fn address_in(directory: &Path) -> Result<String, CliError> {
    let file = directory.join("run.json");
    let text = std::fs::read_to_string(&file).map_err(|error| CliError::NoTarget {
        reason: match error.kind() {
            std::io::ErrorKind::NotFound => format!("no job runs in {} (there is no run.json)", directory.display()),
            _ => format!("cannot read {}: {error}", file.display()),
        },
    })?;
    let run: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    match run["rest"].as_str() {
        Some(address) => Ok(address.to_owned()),
        None => Err(CliError::NoTarget { reason: format!("{} is damaged", file.display()) }),
    }
}

impl Target {
    async fn find(arguments: &TargetArguments) -> Result<Target, CliError> {
        let (client, directory) = client(arguments)?;
        let mut target = Target { client, directory, job_id: String::new() };
        let jobs: JobIdsWithStatus =
            target.patiently(Duration::from_secs(5), async |client: &Client| client.get("/v1/jobs").await).await?;
        target.job_id = jobs.jobs.into_iter().next().map(|job| job.id).ok_or_else(|| target.failed("it has no job"))?;
        Ok(target)
    }

    fn failed(&self, reason: impl Into<String>) -> CliError {
        CliError::Rest { address: self.client.base().to_owned(), reason: reason.into() }
    }

    /// Below the job.
    fn path(&self, rest: &str) -> String {
        format!("/v1/jobs/{}{rest}", self.job_id)
    }

    /// Asks again while the coordinator is being started again, for that long.
    async fn patiently<T>(
        &self,
        absence: Duration,
        mut ask: impl AsyncFnMut(&Client) -> Result<T, RestError>,
    ) -> Result<T, CliError> {
        let mut absent_since: Option<Instant> = None;
        loop {
            let error = match ask(&self.client).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !matches!(error, RestError::Unreachable(_) | RestError::Refused { status: 503, .. }) {
                return Err(self.failed(error.to_string()));
            }
            let ended = self.run_has_ended();
            if ended || absent_since.get_or_insert_with(Instant::now).elapsed() >= absence {
                let ended = if ended { "; the run has ended" } else { "" };
                return Err(self.failed(format!("the coordinator does not answer: {error}{ended}")));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Until `ask` has an answer, for `timeout` at most.
    async fn until<T>(
        &self,
        what: &str,
        timeout: Duration,
        mut ask: impl AsyncFnMut(&Client) -> Result<Option<T>, RestError>,
    ) -> Result<T, CliError> {
        let started = Instant::now();
        loop {
            if let Some(answer) = self.patiently(ABSENCE, &mut ask).await? {
                return Ok(answer);
            }
            if started.elapsed() >= timeout {
                return Err(self.failed(format!(
                    "{what} has not ended within {} s; it goes on, ask again later or give a longer --timeout",
                    timeout.as_secs()
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// As far as this can be seen from here.
    fn run_has_ended(&self) -> bool {
        self.directory.as_ref().is_some_and(|directory| !directory.join("run.json").exists())
    }
}

/// One JSON document, or the text; whoever closed standard output does not want to see more.
fn print<T: Serialize>(format: OutputFormat, value: &T, text: impl FnOnce() -> String) {
    let text = match format {
        OutputFormat::Json => serde_json::to_string_pretty(value).unwrap_or_default() + "\n",
        OutputFormat::Text => text(),
    };
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Columns of equal width, two spaces between.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<String> = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell}{}", " ".repeat(width - cell.chars().count())))
            .collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["1".to_owned(), "é".to_owned()], vec!["200".to_owned(), String::new()]];
        assert_eq!(table(&["id", "name"], &rows), "id   name\n1    é\n200\n");
    }

    #[test]
    fn which_job_is_meant() {
        let place = tempfile::tempdir().unwrap();
        let none = only_running_below(&place.path().join("absent")).unwrap_err().to_string();
        assert!(none.contains("no job runs in a directory below"), "{none}");
        for name in ["a", "b"] {
            std::fs::create_dir(place.path().join(name)).unwrap();
        }
        let run = r#"{"rest": "http://127.0.0.1:5"}"#;
        std::fs::write(place.path().join("b/run.json"), run).unwrap();
        assert_eq!(only_running_below(place.path()).unwrap(), place.path().join("b"));
        assert_eq!(address_in(&place.path().join("b")).unwrap(), "http://127.0.0.1:5");
        assert!(address_in(&place.path().join("a")).unwrap_err().to_string().contains("there is no run.json"));
        std::fs::write(place.path().join("a/run.json"), "{").unwrap();
        assert!(address_in(&place.path().join("a")).unwrap_err().to_string().contains("is damaged"));
        let several = only_running_below(place.path()).unwrap_err().to_string();
        assert!(several.contains("several jobs run: "), "{several}");
    }
}
