//! What can be wrong with a job file. Every message names the place, what was found and what is allowed.

use thiserror::Error;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApiError {
    /// The text is no YAML document.
    #[error("line {line}, column {column}: no valid YAML: {message}")]
    Syntax { line: u64, column: u64, message: String },
    /// A field is unknown, missing, of the wrong type, out of range or at odds with another one.
    #[error("{path}{}: {problem}; {allowed}", at_line(.line))]
    Field {
        /// As in `spec.env[1].name`.
        path: String,
        /// Line of the job file, where it is known.
        line: Option<u64>,
        problem: String,
        allowed: String,
    },
    /// A `${NAME}` in the SQL text that cannot be replaced.
    #[error("spec.program.sql, line {line} of the SQL text: {problem}; {allowed}")]
    Substitution { line: u64, problem: String, allowed: String },
}

fn at_line(line: &Option<u64>) -> String {
    line.map_or_else(String::new, |line| format!(" (line {line})"))
}
