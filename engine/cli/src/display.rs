//! Shows progress and events on standard error: a block that is redrawn on a terminal, plain lines elsewhere.
//!
//! Standard output belongs to the job: rows of `print` tables and nothing else.

use crate::progress::Progress;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const PLAIN_PERIOD: Duration = Duration::from_secs(1);

pub struct Display {
    name: String,
    started: Instant,
    mode: Mode,
}

enum Mode {
    Terminal {
        /// The block that stands above the cursor.
        drawn: Vec<String>,
    },
    Plain {
        last: String,
        last_state: String,
        shown_at: Option<Instant>,
    },
}

impl Display {
    pub fn new(name: &str) -> Display {
        let mode = if std::io::stderr().is_terminal() {
            Mode::Terminal { drawn: Vec::new() }
        } else {
            Mode::Plain { last: String::new(), last_state: String::new(), shown_at: None }
        };
        Display { name: name.to_owned(), started: Instant::now(), mode }
    }

    /// Whether rows that workers print would run into the block, so that they have to come through [`Display::row`].
    pub fn shares_terminal_with_rows(&self) -> bool {
        matches!(self.mode, Mode::Terminal { .. }) && std::io::stdout().is_terminal()
    }

    /// One line that stays.
    pub fn event(&mut self, text: &str) {
        self.erase();
        let name = &self.name;
        // Whoever closed standard error does not want to hear more.
        let _ = writeln!(std::io::stderr(), "{name}: {text}");
    }

    /// Rows that a worker printed, as they are.
    pub fn rows(&mut self, bytes: &[u8]) {
        self.erase();
        let mut output = std::io::stdout().lock();
        // Whoever closed standard output does not want to see more.
        let _ = output.write_all(bytes).and_then(|()| output.flush());
    }

    pub fn progress(&mut self, progress: &Progress) {
        let elapsed = self.started.elapsed();
        match &mut self.mode {
            Mode::Terminal { drawn } => {
                let lines = progress.block(&self.name, elapsed.as_millis() as u64);
                if lines != *drawn {
                    let _ = std::io::stderr().write_all(redraw(drawn.len(), &lines).as_bytes());
                    *drawn = lines;
                }
            }
            Mode::Plain { last, last_state, shown_at } => {
                let line = progress.line(&self.name);
                let state = progress.last().map_or_else(String::new, |look| look.status.state.clone());
                // A new state is shown at once, however short it lasts.
                let due = shown_at.is_none_or(|at| at.elapsed() >= PLAIN_PERIOD) || state != *last_state;
                if due && line != *last {
                    let _ = writeln!(std::io::stderr(), "{line}");
                    *last = line;
                    *last_state = state;
                    *shown_at = Some(Instant::now());
                }
            }
        }
    }

    /// Takes the block away, so that something else can be written.
    pub fn erase(&mut self) {
        if let Mode::Terminal { drawn } = &mut self.mode
            && !drawn.is_empty()
        {
            let _ = std::io::stderr().write_all(redraw(drawn.len(), &[]).as_bytes());
            drawn.clear();
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Replaces a block of lines above the cursor by another one. Lines that are too long for the terminal are cut off
/// there, so that each takes exactly one row.
fn redraw(drawn: usize, lines: &[String]) -> String {
    let mut text = String::new();
    if drawn > 0 {
        text.push_str(&format!("\x1b[{drawn}A"));
    }
    text.push_str("\r\x1b[J");
    if !lines.is_empty() {
        text.push_str("\x1b[?7l");
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("\x1b[?7h");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redrawing() {
        let lines = ["a".to_owned(), "b".to_owned()];
        assert_eq!(redraw(0, &lines), "\r\x1b[J\x1b[?7la\nb\n\x1b[?7h");
        assert_eq!(redraw(2, &lines), "\x1b[2A\r\x1b[J\x1b[?7la\nb\n\x1b[?7h");
        assert_eq!(redraw(2, &[]), "\x1b[2A\r\x1b[J");
    }
}
