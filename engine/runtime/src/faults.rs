//! Named fault points: with the feature `faults`, a test makes a step of a real process crash, fail or wait.
//!
//! `STREAMJOB_FAULTS="ack.before=crash@3,upload.before=delay:500"`: at the third passage of `ack.before` the process dies
//! as by SIGKILL, every passage of `upload.before` waits half a second; `wait:PATH` waits until there is such a file. Without the feature nothing is compiled in.

/// A step that can be made to fail.
#[cfg(feature = "faults")]
pub fn point(name: &str) -> Result<(), String> {
    imp::point(name)
}

#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn point(_name: &str) -> Result<(), String> {
    Ok(())
}

#[cfg(feature = "faults")]
mod imp {
    use std::collections::HashMap;
    use std::sync::{Mutex, OnceLock};
    use std::time::Duration;

    struct Rule {
        action: String,
        /// Act only at this passage (1 is the first); every time when absent.
        at: Option<u64>,
        passed: u64,
    }

    fn rules() -> &'static Mutex<HashMap<String, Rule>> {
        static RULES: OnceLock<Mutex<HashMap<String, Rule>>> = OnceLock::new();
        RULES.get_or_init(|| Mutex::new(parse(&std::env::var("STREAMJOB_FAULTS").unwrap_or_default())))
    }

    fn parse(text: &str) -> HashMap<String, Rule> {
        text.split(',')
            .filter_map(|rule| {
                let (name, action) = rule.trim().split_once('=')?;
                let (action, at) = match action.split_once('@') {
                    Some((action, at)) => (action, at.parse().ok()),
                    None => (action, None),
                };
                Some((name.to_owned(), Rule { action: action.to_owned(), at, passed: 0 }))
            })
            .collect()
    }

    pub fn point(name: &str) -> Result<(), String> {
        let action = {
            let mut rules = rules().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let Some(rule) = rules.get_mut(name) else { return Ok(()) };
            rule.passed += 1;
            if rule.at.is_some_and(|at| at != rule.passed) {
                return Ok(());
            }
            rule.action.clone()
        };
        match action.split_once(':') {
            Some(("delay", ms)) => {
                std::thread::sleep(Duration::from_millis(ms.parse().unwrap_or(0)));
                Ok(())
            }
            Some(("wait", path)) => {
                tracing::warn!(path, "fault point {name} waits for a file");
                while !std::path::Path::new(path).exists() {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Ok(())
            }
            _ if action == "crash" => std::process::abort(),
            _ => {
                tracing::warn!("fault point {name} fires");
                Err(format!("fault point {name}"))
            }
        }
    }
}
