//! Log files of child processes, and what of a coordinator's log a person wants to see at once.
//!
//! Children append to their files themselves; only the supervisor turns files over, so that it never loses its place.

use crate::format;
use serde_json::Value;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A file that is larger is copied to `<name>.1` and emptied.
const LARGEST: u64 = 16 << 20;
/// What is read at once; the rest follows with the next call.
const CHUNK: u64 = 1 << 20;

/// For a child's standard error.
pub fn append_to(path: &Path) -> std::io::Result<File> {
    File::options().create(true).append(true).open(path)
}

/// Follows a file that another process appends to.
pub struct Tail {
    path: PathBuf,
    offset: u64,
    /// A line whose end is not there yet.
    partial: Vec<u8>,
}

impl Tail {
    /// Begins at the file's present end.
    pub fn from_end(path: PathBuf) -> Tail {
        let offset = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        Tail { path, offset, partial: Vec::new() }
    }

    /// Complete lines that came since the last call. A log that cannot be read now has none.
    pub fn lines(&mut self) -> Vec<String> {
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.offset))?;
            file.take(CHUNK).read_to_end(&mut bytes)
        });
        let length = read.unwrap_or(0) as u64;
        self.offset += length;
        self.partial.extend_from_slice(&bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.partial.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
        if self.offset > LARGEST && length < CHUNK && turn_over(&self.path).is_ok() {
            self.offset = 0;
        }
        lines
    }
}

/// Turns a file over that nobody follows.
pub fn turn_over_if_large(path: &Path) {
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() > LARGEST) {
        // Tried again while the file is too large.
        let _ = turn_over(path);
    }
}

fn turn_over(path: &Path) -> std::io::Result<()> {
    let mut old = path.as_os_str().to_owned();
    old.push(".1");
    fs::copy(path, PathBuf::from(old))?;
    File::options().write(true).open(path)?.set_len(0)
}

/// The last lines of a log, for a process that died without saying why.
pub fn last_words(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(8 << 10))).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines = text.lines().rev();
    // A panic or an error message is no JSON; backtraces and notes that follow it are noise.
    let plain = |line: &&str| !line.starts_with('{') && !line.starts_with(' ') && !line.trim().is_empty();
    let said: Vec<&str> = lines.take(40).filter(plain).collect();
    said.iter()
        .find(|line| line.contains("panicked at") || line.starts_with("error:"))
        .or(said.first())
        .map(|line| (*line).trim_start_matches("error: ").to_owned())
}

/// The line for a person that a coordinator's log line deserves, if any.
pub fn notable(line: &str) -> Option<String> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let fields = entry.get("fields")?;
    let number = |name: &str| fields.get(name).and_then(Value::as_u64);
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or("unknown").to_owned();
    let message = fields.get("message").and_then(Value::as_str)?;
    match message {
        "restarting tasks" => Some(format!(
            "restarting {} in {} (restart {}): {}",
            format::number_of(number("tasks")?, "task"),
            format::duration_ms(number("delay_ms")?),
            number("restarts")?,
            text("failure")
        )),
        "checkpoint unusable, an older one is used" => Some(format!(
            "checkpoint {} cannot be used: {}; going back to an older one",
            number("checkpoint")?,
            text("reason")
        )),
        // What follows from it is said in other lines.
        "worker lost" => None,
        "savepoint completed" => Some(format!("savepoint {}", text("location"))),
        "savepoint failed" => Some(format!("no savepoint: {}", text("reason"))),
        "rescaled" => Some(format!("runs at parallelism {}", number("parallelism")?)),
        "not rescaled" => Some(format!("stays at its parallelism: {}", text("reason"))),
        "options of the running job changed" => Some(message.to_owned()),
        "checkpoint failed" => Some(format!("checkpoint {} failed: {}", number("checkpoint")?, text("reason"))),
        "restored" => match number("checkpoint") {
            Some(checkpoint) => Some(format!("restored from checkpoint {checkpoint}")),
            None => Some("started without earlier state".into()),
        },
        _ => {
            let level = entry.get("level").and_then(Value::as_str)?;
            matches!(level, "WARN" | "ERROR").then(|| other(message, fields))
        }
    }
}

/// `message (field: value, ...)`.
fn other(message: &str, fields: &Value) -> String {
    let details: Vec<String> = fields
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != "message")
        .map(|(name, value)| match value {
            Value::String(text) => format!("{name}: {text}"),
            value => format!("{name}: {value}"),
        })
        .collect();
    if details.is_empty() { message.to_owned() } else { format!("{message} ({})", details.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_a_person_sees_of_a_log() {
        let line = |level: &str, fields: &str| {
            format!("{{\"timestamp\":\"t\",\"level\":\"{level}\",\"fields\":{{{fields}}},\"target\":\"x\"}}")
        };
        let table = [
            (
                line(
                    "WARN",
                    r#""message":"restarting tasks","failure":"numbers.json: line 2","delay_ms":50,"tasks":2,"restarts":3"#,
                ),
                Some("restarting 2 tasks in 50 ms (restart 3): numbers.json: line 2"),
            ),
            (
                line(
                    "ERROR",
                    r#""message":"checkpoint unusable, an older one is used","checkpoint":7,"reason":"gone""#,
                ),
                Some("checkpoint 7 cannot be used: gone; going back to an older one"),
            ),
            (
                line("WARN", r#""message":"checkpoint failed","checkpoint":7,"reason":"expired","counted":true"#),
                Some("checkpoint 7 failed: expired"),
            ),
            (line("INFO", r#""message":"restored","checkpoint":7"#), Some("restored from checkpoint 7")),
            (
                line("INFO", r#""message":"savepoint completed","checkpoint":8,"location":"/s/savepoint-1""#),
                Some("savepoint /s/savepoint-1"),
            ),
            (line("WARN", r#""message":"savepoint failed","reason":"disk full""#), Some("no savepoint: disk full")),
            (line("INFO", r#""message":"rescaled","parallelism":3"#), Some("runs at parallelism 3")),
            (line("INFO", r#""message":"restored""#), Some("started without earlier state")),
            (line("INFO", r#""message":"checkpoint completed","checkpoint":7"#), None),
            (line("WARN", r#""message":"worker lost","worker":"worker-1""#), None),
            (line("WARN", r#""message":"odd","n":1,"s":"x""#), Some("odd (n: 1, s: x)")),
            (line("ERROR", r#""message":"bad""#), Some("bad")),
            ("no json".into(), None),
            ("{}".into(), None),
        ];
        for (line, expected) in table {
            assert_eq!(notable(&line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn a_tail_gives_each_complete_line_once_and_survives_turning_over() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.log");
        let mut file = append_to(&path).unwrap();
        writeln!(file, "before").unwrap();
        let mut tail = Tail::from_end(path.clone());
        assert_eq!(tail.lines(), Vec::<String>::new());
        write!(file, "one\ntw").unwrap();
        assert_eq!(tail.lines(), ["one"]);
        writeln!(file, "o").unwrap();
        assert_eq!(tail.lines(), ["two"]);
        let filler = vec![b'x'; LARGEST as usize];
        file.write_all(&filler).unwrap();
        writeln!(file).unwrap();
        let long: Vec<String> = std::iter::from_fn(|| Some(tail.lines())).take(20).flatten().collect();
        assert_eq!(long.len(), 1);
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        assert!(fs::metadata(place.path().join("a.log.1")).unwrap().len() > LARGEST);
        writeln!(file, "after").unwrap();
        assert_eq!(tail.lines(), ["after"]);
    }

    #[test]
    fn last_words_are_the_panic_and_not_what_follows_it() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.log");
        fs::write(&path, "{\"level\":\"INFO\"}\nthread 'x' panicked at a.rs:1:1:\nnote: run with\n  0: frame\n")
            .unwrap();
        assert_eq!(last_words(&path).as_deref(), Some("thread 'x' panicked at a.rs:1:1:"));
        fs::write(&path, "error: cannot listen\n{\"level\":\"INFO\"}\n").unwrap();
        assert_eq!(last_words(&path).as_deref(), Some("cannot listen"));
        assert_eq!(last_words(&place.path().join("none")), None);
    }
}
